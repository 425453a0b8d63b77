// inbox.js owns what the inbox page has around its elements: who is signed in, how the connection is, and signing out.
//
// The list and the counts are <tidings-inbox> and <tidings-counter>; this file asks for nothing that they show.
// Invariant: while nobody is signed in, nothing of anybody's is on display: the elements clear themselves when their client ends,
// and here the sign-in stands in their place.

import './tidings-elements.js';
import { showSignIn } from './signin.js';

const $ = (id) => document.getElementById(id);
const inbox = $('list');
/** The elements' own client: the badge shares it, since it asks for the same. */
const { client } = inbox;

const STATUS = { connecting: 'Connecting…', live: 'Live', reconnecting: 'Reconnecting…', offline: 'Offline' };

function showStatus(status, why) {
  $('connection').hidden = !STATUS[status];
  $('connection').dataset.state = status;
  $('connection-text').textContent = STATUS[status] ?? '';
  if (status !== 'ended') showInbox();
  // The cookie became another person's: this page is theirs now, from the beginning.
  else if (why === 'another-user') client.open();
  else signedOut(why);
}

function showInbox() {
  $('sign-in').hidden = true;
  $('inbox').hidden = false;
}

function signedOut(why) {
  for (const id of ['inbox', 'who', 'sign-out', 'failure']) $(id).hidden = true;
  showSignIn($('sign-in'), { client, why, done: () => client.open() });
}

client.on('status', showStatus);
client.on('hello', ({ user }) => {
  $('who').textContent = user;
  $('who').hidden = false;
  $('sign-out').hidden = false;
});

inbox.addEventListener('tidings-counts', ({ detail: { unread } }) => {
  $('summary').textContent = unread === 0 ? 'Nothing unread' : `${unread} unread`;
});

inbox.addEventListener('tidings-notification', ({ detail: { replayed } }) => {
  if (replayed) return;
  const bell = $('bell');
  bell.classList.remove('is-ringing');
  bell.getBoundingClientRect(); // Lets the animation start anew.
  bell.classList.add('is-ringing');
});

$('sign-out').addEventListener('click', async () => {
  try {
    await client.request('DELETE', 'v1/session');
    client.close();
  } catch (error) {
    $('failure').textContent = `Signing out did not work: ${error.message}`;
    $('failure').hidden = false;
  }
});

/** Somebody who comes back to this tab may have signed in elsewhere. */
document.addEventListener('visibilitychange', async () => {
  if (document.visibilityState !== 'visible' || client.status !== 'ended') return;
  const isSignedIn = await client.request('GET', 'v1/inbox/counts').then(() => true, () => false);
  if (isSignedIn) client.open();
});

showStatus(client.status);
