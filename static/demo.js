// demo.js owns the demo's door: it asks who there is, signs in as the one chosen and goes to the inbox.

import { ROOT } from './api.js';
import { demoUsers, userButtons } from './signin.js';

const place = document.getElementById('users');

try {
  const users = await demoUsers();
  if (users.length) place.replaceChildren(userButtons(users, () => location.assign(ROOT)));
  else place.textContent = 'This server does not run as a demo.';
} catch (error) {
  place.textContent = error.message;
}
