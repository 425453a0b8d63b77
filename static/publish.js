// publish.js owns the form page: it turns the fields into one notification, sends it, and shows what the server said.
//
// Invariant: one submission has one Idempotency-Key. It is kept while the outcome is unknown and the fields are unchanged,
// so that pressing the button again after a lost answer publishes nothing twice; a change of the fields makes a new one.
// Invariant: times stand in the form as they are where the person is, and are sent with their offset.
// The rules for fields are the server's alone: this page repeats none of them and shows its answer beside the field.

import { showSignIn } from './signin.js';
import { connect, Problem, Unreachable } from './tidings.js';

const $ = (id) => document.getElementById(id);
const form = $('form');
const FIELDS = ['to', 'title', 'body', 'category', 'priority', 'click', 'via', 'deliver_at', 'delay', 'expires_at', 'expires_in', 'collapse'];
/** The choices of a time; the value of each names the field that it asks for, if any. */
const CHOICES = ['when', 'ends'];
/** A time that was not picked is not sent: the server would explain a notation that nobody types here. */
const UNPICKED = 'Choose a date and a time.';
/** The control that a field's error belongs to. */
const control = (field) => $(field === 'to' ? 'name' : field);
const NAMES = { user: 'Name of the person', topic: 'Name of the topic' };

/** For requests only: this page follows no events. */
const client = connect({ paused: true });
const isSignedOut = (error) => error instanceof Problem && error.status === 401;

/** The last submission that is not settled: its exact text and its key. */
let pending = null;
let sending = false;

const audience = () => form.elements.audience.value;
const media = () => [...form.querySelectorAll('[name="via"]')];

function compose() {
  const name = $('name').value.trim();
  const notification = { to: audience() === 'everyone' ? { everyone: true } : { [audience()]: name }, title: $('title').value };
  for (const field of ['body', 'category', 'click']) {
    const value = field === 'body' ? $(field).value : $(field).value.trim();
    if (value !== '') notification[field] = value;
  }
  notification.priority = Number($('priority').value);
  const via = media().filter(({ checked }) => checked).map(({ value }) => value);
  if (via.length) notification.via = via;
  for (const field of timesAsked()) notification[field] = timeIn($(field));
  if ($('collapse').value !== '') notification.collapse = $('collapse').value;
  return JSON.stringify(notification);
}

/** The fields that the choices of a time ask for. */
const timesAsked = () => CHOICES.map((choice) => $(choice).value).filter(Boolean);

/** What a field for a time or a duration says, as the server takes it. */
function timeIn({ type, value }) {
  return type === 'datetime-local' && value !== '' ? withOffset(new Date(value)) : value.trim();
}

/** RFC 3339, in the time of this place. */
function withOffset(date) {
  const two = (number) => String(Math.trunc(Math.abs(number))).padStart(2, '0');
  const east = -date.getTimezoneOffset();
  const day = `${String(date.getFullYear()).padStart(4, '0')}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return `${day}T${time}${east < 0 ? '-' : '+'}${two(east / 60)}:${two(east % 60)}`;
}

/** 128 random bits. Not `randomUUID`, which is missing where the page is not served over TLS or from this machine. */
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

async function submit() {
  if (sending) return;
  showErrors([]);
  showFailure('');
  $('result').replaceChildren();
  const unpicked = timesAsked().filter((field) => $(field).type === 'datetime-local' && $(field).value === '');
  if (unpicked.length) return void showAtFields(unpicked.map((field) => ({ pointer: `/${field}`, detail: UNPICKED })));
  const text = compose();
  if (pending?.text !== text) pending = { text, key: newKey() };
  busy(true);
  try {
    const answer = await client.request('POST', 'v1/notifications', { body: text, headers: { 'Idempotency-Key': pending.key } });
    pending = null;
    published(answer);
  } catch (error) {
    refused(error);
  } finally {
    busy(false);
  }
}

function busy(on) {
  sending = on;
  $('submit').setAttribute('aria-disabled', String(on));
  nameSubmit();
}

function nameSubmit() {
  $('submit').textContent = sending ? 'Publishing…' : $('when').value ? 'Schedule' : 'Publish';
}

function published({ recipients, seq, due }) {
  const done = document.createElement('strong');
  $('result').replaceChildren(done);
  if (due) {
    done.append('Scheduled for ', localTime(due));
  } else {
    const reached = recipients === null || recipients === undefined ? 'everyone'
      : recipients === 1 ? '1 recipient' : `${recipients} recipients`;
    done.textContent = `Published to ${reached}`;
    $('result').append(numberOf(seq));
  }
  // What belongs to this one only. A choice left standing, perhaps out of sight, would delay or replace the next.
  for (const field of ['title', 'body', 'click', 'collapse', ...CHOICES]) $(field).value = '';
  for (const medium of media()) medium.checked = false;
  chooseTimes();
  $('title').focus(); // Ready for the next one; the result is announced by its role…
  $('result').scrollIntoView({ block: 'nearest' }); // …and stays in sight.
}

function numberOf(seq) {
  const number = document.createElement('span');
  number.className = 'seq';
  number.textContent = `No. ${seq}`;
  number.dataset.seq = seq;
  return number;
}

/** A moment as it is said here; to the second, since a delay may be one of seconds. */
function localTime(text) {
  const time = document.createElement('time');
  time.dateTime = text;
  time.textContent = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: 'long', timeStyle: 'medium' }).format(new Date(text));
  return time;
}

function refused(error) {
  if (isSignedOut(error)) return signedOut();
  const unknown = error instanceof Unreachable || (error instanceof Problem && (error.status >= 500 || error.status === 409 && error.code !== 'category-conflict'));
  if (unknown) {
    showFailure(`${error.message} It is not certain whether this was published. Press the button again: it will not be published twice.`);
    return;
  }
  pending = null;
  if (!(error instanceof Problem)) throw error;
  const { first, rest } = showAtFields(error.errors);
  const words = rest.map(({ pointer, detail }) => (pointer ? `${pointer}: ${detail}` : detail));
  if (!first || words.length) showFailure([error.message, ...words].join(' '));
}

/** Shows errors and leads to the first of them; answers its field and the errors that have none. */
function showAtFields(errors) {
  const rest = showErrors(errors);
  const first = FIELDS.find((field) => !$(`${field}-error`).hidden);
  if (first) focusField(first);
  return { first, rest };
}

function focusField(field) {
  const target = control(field);
  if ($('more').contains(target)) $('more').open = true;
  if (field === 'to' && $('name-row').hidden) form.querySelector('[name="audience"]:checked').focus();
  else target.focus();
}

/** Puts each error beside its field and answers those that have none. */
function showErrors(errors) {
  const byField = new Map(FIELDS.map((field) => [field, []]));
  const rest = [];
  for (const error of errors) {
    const field = String(error.pointer ?? '').split('/')[1];
    (byField.get(field) ?? rest).push(byField.has(field) ? error.detail : error);
  }
  for (const [field, details] of byField) {
    const place = $(`${field}-error`);
    place.textContent = details.join(' ');
    place.hidden = details.length === 0;
    if (details.length) control(field).setAttribute('aria-invalid', 'true');
    else control(field).removeAttribute('aria-invalid');
  }
  return rest;
}

function showFailure(text) {
  $('failure').textContent = text;
  $('failure').hidden = text === '';
}

function chooseAudience() {
  const chosen = audience();
  $('name-row').hidden = chosen === 'everyone';
  if (NAMES[chosen]) $('name-label').textContent = NAMES[chosen];
}

/** Shows the field that each choice of a time asks for. */
function chooseTimes() {
  const chosen = CHOICES.map((choice) => $(choice).value);
  for (const place of form.querySelectorAll('[data-for]')) place.hidden = !chosen.includes(place.dataset.for);
  nameSubmit();
}

function signedOut() {
  $('publish').hidden = true;
  showSignIn($('sign-in'), { client, done: () => {
    $('sign-in').hidden = true;
    $('publish').hidden = false;
    $('title').focus();
  } });
}

form.addEventListener('submit', (event) => {
  event.preventDefault();
  submit();
});
form.addEventListener('change', ({ target: { name } }) => {
  if (name === 'audience') chooseAudience();
  if (CHOICES.includes(name)) chooseTimes();
});

// The browser may have kept the choices over a reload. None of them stays out of sight.
chooseAudience();
chooseTimes();
$('more').open = ['collapse', ...CHOICES].some((field) => $(field).value !== '');
client.request('GET', 'v1/inbox/counts').catch((error) => isSignedOut(error) && signedOut());
