// publish.js owns the form page: it turns the fields into one notification, sends it, and shows what the server said.
//
// Invariant: one submission has one Idempotency-Key. It is kept while the outcome is unknown and the fields are unchanged,
// so that pressing the button again after a lost answer publishes nothing twice; a change of the fields makes a new one.
// The rules for fields are the server's alone: this page repeats none of them and shows its answer beside the field.

import { showSignIn } from './signin.js';
import { connect, Problem, Unreachable } from './tidings.js';

const $ = (id) => document.getElementById(id);
const form = $('form');
const FIELDS = ['to', 'title', 'body', 'category', 'priority', 'click'];
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

function compose() {
  const name = $('name').value.trim();
  const notification = { to: audience() === 'everyone' ? { everyone: true } : { [audience()]: name }, title: $('title').value };
  for (const field of ['body', 'category', 'click']) {
    const value = field === 'body' ? $(field).value : $(field).value.trim();
    if (value !== '') notification[field] = value;
  }
  notification.priority = Number($('priority').value);
  return JSON.stringify(notification);
}

/** 128 random bits. Not `randomUUID`, which is missing where the page is not served over TLS or from this machine. */
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

async function submit() {
  if (sending) return;
  const text = compose();
  if (pending?.text !== text) pending = { text, key: newKey() };
  showErrors([]);
  showFailure('');
  $('result').replaceChildren();
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
  $('submit').textContent = on ? 'Publishing…' : 'Publish';
}

function published({ recipients, seq }) {
  const reached = recipients === null || recipients === undefined ? 'everyone'
    : recipients === 1 ? '1 recipient' : `${recipients} recipients`;
  const done = document.createElement('strong');
  done.textContent = `Published to ${reached}`;
  const number = document.createElement('span');
  number.className = 'seq';
  number.textContent = `No. ${seq}`;
  number.dataset.seq = seq;
  $('result').replaceChildren(done, number);
  for (const field of ['title', 'body', 'click']) $(field).value = '';
  $('title').focus(); // Ready for the next one; the result is announced by its role…
  $('result').scrollIntoView({ block: 'nearest' }); // …and stays in sight.
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
  const rest = showErrors(error.errors);
  const first = FIELDS.find((field) => !$(`${field}-error`).hidden);
  if (first) focusField(first);
  const words = rest.map(({ pointer, detail }) => (pointer ? `${pointer}: ${detail}` : detail));
  if (!first || words.length) showFailure([error.message, ...words].join(' '));
}

function focusField(field) {
  const target = control(field);
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
form.addEventListener('change', (event) => event.target.name === 'audience' && chooseAudience());

chooseAudience(); // The browser may have kept the choice over a reload.
client.request('GET', 'v1/inbox/counts').catch((error) => isSignedOut(error) && signedOut());
