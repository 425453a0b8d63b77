// signin.js owns what is shown to somebody who is not signed in: who signs people in, and in a demo one button per user.
//
// It deliberately has no password field: the application in which Tidings stands signs people in.

import { Problem } from './tidings.js';

/** The demo's users, or none where this is no demo. */
export async function demoUsers(client) {
  try {
    const answer = await client.request('GET', 'demo/users');
    return answer?.users ?? [];
  } catch (error) {
    if (error instanceof Problem && error.status === 404) return [];
    throw error;
  }
}

/** One button per user; `done` is called when one of them is signed in. */
export function userButtons(users, { client, done }) {
  const list = document.createElement('ul');
  list.className = 'users';
  const failure = element('p', 'field-error');
  failure.setAttribute('role', 'alert');
  for (const { id, name } of users) {
    const button = element('button', 'user');
    button.type = 'button';
    button.dataset.user = id;
    const avatar = element('span', 'avatar', [...(name || id)][0].toUpperCase());
    avatar.setAttribute('aria-hidden', 'true');
    const words = element('span', 'user-words');
    words.append(element('span', 'visually-hidden', 'Sign in as '), element('strong', '', name || id));
    button.append(avatar, words);
    button.addEventListener('click', async () => {
      failure.textContent = '';
      button.setAttribute('aria-busy', 'true');
      try {
        await client.request('POST', 'demo/session', { body: { user: id } });
        done(id);
      } catch (error) {
        failure.textContent = error.message;
      } finally {
        button.removeAttribute('aria-busy');
      }
    });
    const item = document.createElement('li');
    item.append(button);
    list.append(item);
  }
  const group = document.createDocumentFragment();
  group.append(list, failure);
  return group;
}

/** Fills `place` with the calm explanation and shows it. */
export async function showSignIn(place, { client, why, done }) {
  const title = element('h1', '', 'You are not signed in');
  title.id = 'sign-in-title';
  const reason = why === 'expired' ? 'Your session has ended. ' : '';
  place.replaceChildren(
    title,
    element('p', '', `${reason}Notifications are shown to those whom your application has signed in. Sign in there, then come back to this page.`),
  );
  place.hidden = false;
  const users = await demoUsers(client).catch(() => []);
  if (!users.length || place.hidden) return;
  place.append(element('p', 'lead', 'This server runs as a demo, so one click does it:'), userButtons(users, { client, done }));
}

function element(name, className, text = '') {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}
