// preferences.js owns the preferences page: it shows what the signed-in person has said about how they are reached, and saves it.
//
// Invariant: what is sent is what was changed here, so that a page that stood open for long takes nothing back that was said
// elsewhere meanwhile. The server's rules are repeated nowhere; its refusals stand beside the field they are about.

import { make } from './dom.js';
import { showSignIn } from './signin.js';
import { Words } from './strings.js';
import { connect, Problem, Unreachable } from './tidings.js';

const ENGLISH = {
  title: 'Preferences',
  inbox: 'Inbox',
  skip: 'Skip to the preferences',
  pages: 'Pages',
  summary: 'How you are reached besides your inbox.',
  language: 'Language',
  timeZone: 'Time zone',
  timeZoneHint: 'For your application to read. Times in notifications are in the sender’s time zone.',
  asUsual: 'As your application decides',
  wishes: 'What reaches you, and by what',
  wishesHint: 'Default: as for everything; and there, as the sender decides.',
  category: 'Category',
  everything: 'Everything',
  email: 'Email',
  dingtalk: 'DingTalk',
  webhook: 'Webhook',
  byDefault: 'Default',
  yes: 'Yes',
  no: 'No',
  wishFor: '{category}: {medium}',
  emailAt: 'Mail goes to {address}.',
  emailNone: 'Your application has no mail address of yours.',
  dingtalkAt: 'In DingTalk you are {address}.',
  dingtalkNone: 'Your application does not know you in DingTalk.',
  save: 'Save',
  saving: 'Saving…',
  saved: 'Saved',
};

const CHINESE = {
  title: '偏好设置',
  inbox: '收件箱',
  skip: '跳到偏好设置',
  pages: '页面',
  summary: '除收件箱外，通知如何送达你。',
  language: '语言',
  timeZone: '时区',
  timeZoneHint: '供应用读取。通知中的时间按发送方的时区显示。',
  asUsual: '由应用决定',
  wishes: '接收哪些通知，通过什么方式',
  wishesHint: '默认：与“全部”相同；“全部”的默认由发送方决定。',
  category: '类别',
  everything: '全部',
  email: '邮件',
  dingtalk: '钉钉',
  webhook: 'Webhook',
  byDefault: '默认',
  yes: '接收',
  no: '不接收',
  wishFor: '{category}：{medium}',
  emailAt: '邮件发送至 {address}。',
  emailNone: '应用没有你的邮件地址。',
  dingtalkAt: '你的钉钉账号是 {address}。',
  dingtalkNone: '应用不知道你的钉钉账号。',
  save: '保存',
  saving: '正在保存…',
  saved: '已保存',
};

/** Languages that can be chosen; another one that was set elsewhere is shown too. */
const LANGUAGES = ['en', 'zh-Hans', 'zh-Hant', 'ar', 'de', 'es', 'fr', 'hi', 'id', 'it', 'ja', 'ko', 'nl', 'pl', 'pt', 'ru', 'th', 'tr', 'uk', 'vi'];
/** Media that are always shown; of the others those that something was said about. */
const MEDIA = ['email', 'dingtalk'];
const EVERY = '*';

const $ = (id) => document.getElementById(id);
const client = connect({ paused: true });
const isSignedOut = (error) => error instanceof Problem && error.status === 401;

/** What the server said last. */
let known = null;
let words = null;
let saving = false;

/** Says everything in the language that the person has chosen, or the browser's. */
function speak(locale) {
  const tag = locale ?? navigator.language;
  const isChinese = tag.toLowerCase().startsWith('zh');
  words = new Words(isChinese ? tag : 'en', isChinese ? CHINESE : ENGLISH);
  document.documentElement.lang = isChinese ? tag : 'en';
  document.title = `${words.say('title')} · Tidings`;
  $('pages').setAttribute('aria-label', words.say('pages'));
  for (const place of document.querySelectorAll('[data-word]')) place.textContent = words.say(place.dataset.word);
}

const option = (value, text, chosen) => make('option', { value, selected: value === chosen }, text);

/** A language by its own name. */
function languageName(tag) {
  try {
    return new Intl.DisplayNames([tag], { type: 'language', languageDisplay: 'standard' }).of(tag) ?? tag;
  } catch {
    return tag;
  }
}

function zones() {
  return ['UTC', ...Intl.supportedValuesOf?.('timeZone') ?? [Intl.DateTimeFormat().resolvedOptions().timeZone]];
}

/** Puts `chosen` among the values where it is none of them. */
const including = (values, chosen) => (chosen && !values.includes(chosen) ? [chosen, ...values] : values);

function show(profile) {
  known = profile;
  speak(profile.locale);
  const usual = () => option('', words.say('asUsual'), null);
  const languages = including(LANGUAGES, profile.locale);
  $('locale').replaceChildren(usual(), ...languages.map((tag) => option(tag, languageName(tag), profile.locale)));
  $('time_zone').replaceChildren(usual(), ...including(zones(), profile.time_zone).map((zone) => option(zone, zone.replaceAll('_', ' '), profile.time_zone)));
  showWishes(profile);
  const address = (medium) => words.say(profile[medium] ? `${medium}At` : `${medium}None`, { address: profile[medium] ?? '' });
  $('addresses').textContent = MEDIA.map(address).join(' ');
  $('preferences').hidden = false;
}

function showWishes({ preferences, categories }) {
  const said = Object.values(preferences).flatMap(Object.keys);
  const media = [...MEDIA, ...['webhook'].filter((medium) => said.includes(medium))];
  $('media').replaceChildren(
    make('th', { scope: 'col' }, words.say('category')),
    ...media.map((medium) => make('th', { scope: 'col' }, words.say(medium))),
  );
  $('wishes').replaceChildren(...[EVERY, ...categories].map((category) => {
    const name = category === EVERY ? words.say('everything') : category;
    const cells = media.map((medium) => make('td', {}, wish(category, name, medium, preferences[category]?.[medium])));
    return make('tr', {}, make('th', { scope: 'row' }, name), ...cells);
  }));
}

function wish(category, name, medium, said) {
  const now = said === undefined ? '' : String(said);
  const label = words.say('wishFor', { category: name, medium: words.say(medium) });
  const select = make('select', { 'aria-label': label, 'data-category': category, 'data-medium': medium },
    option('', words.say('byDefault'), now), option('true', words.say('yes'), now), option('false', words.say('no'), now));
  return make('span', { class: 'select' }, select);
}

/** What was changed since it was shown, as the server takes it: null takes back. */
function changes() {
  const change = {};
  for (const field of ['locale', 'time_zone']) {
    const value = $(field).value || null;
    if (value !== known[field]) change[field] = value;
  }
  for (const { value, dataset: { category, medium } } of $('wishes').querySelectorAll('select')) {
    const wanted = value === '' ? undefined : value === 'true';
    if (wanted === known.preferences[category]?.[medium]) continue;
    change.preferences ??= {};
    change.preferences[category] ??= {};
    change.preferences[category][medium] = wanted ?? null;
  }
  return change;
}

async function save() {
  if (saving) return;
  showErrors([]);
  fail('');
  $('result').replaceChildren();
  busy(true);
  try {
    show(await client.request('PUT', 'v1/preferences', { body: changes() }));
    $('result').replaceChildren(make('strong', {}, words.say('saved')));
    $('result').scrollIntoView({ block: 'nearest' });
  } catch (error) {
    refused(error);
  } finally {
    busy(false);
  }
}

function busy(on) {
  saving = on;
  $('submit').setAttribute('aria-disabled', String(on));
  $('submit').textContent = words.say(on ? 'saving' : 'save');
}

function refused(error) {
  if (isSignedOut(error)) return signedOut();
  if (!(error instanceof Problem || error instanceof Unreachable)) throw error;
  const rest = showErrors(error.errors ?? []);
  if (!error.errors?.length || rest.length) fail(words.reason(error));
}

/** Puts each error beside its field and answers those that have none. */
function showErrors(errors) {
  const rest = [];
  for (const field of ['locale', 'time_zone', 'preferences']) {
    $(`${field}-error`).hidden = true;
    $(`${field}-error`).textContent = '';
  }
  for (const error of errors) {
    const place = $(`${String(error.pointer ?? '').split('/')[1]}-error`);
    if (!place) {
      rest.push(error);
      continue;
    }
    place.textContent = [place.textContent, error.detail].filter(Boolean).join(' ');
    place.hidden = false;
  }
  return rest;
}

function fail(text) {
  $('failure').textContent = text;
  $('failure').hidden = text === '';
}

async function load() {
  fail('');
  try {
    show(await client.request('GET', 'v1/preferences'));
  } catch (error) {
    refused(error);
  }
}

function signedOut() {
  $('preferences').hidden = true;
  showSignIn($('sign-in'), { client, done: () => {
    $('sign-in').hidden = true;
    load();
  } });
}

$('form').addEventListener('submit', (event) => {
  event.preventDefault();
  save();
});

speak(null);
load();
