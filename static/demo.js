// demo.js owns the demo's door: it asks who there is, signs in as the one chosen and goes to the inbox.

import { demoUsers, userButtons } from './signin.js';
import { connect } from './tidings.js';

const place = document.getElementById('users');
/** For requests only: nobody is signed in here. */
const client = connect({ paused: true });

try {
  const users = await demoUsers(client);
  if (users.length) place.replaceChildren(userButtons(users, { client, done: () => location.assign('./') }));
  else place.textContent = 'This server does not run as a demo.';
} catch (error) {
  place.textContent = error.message;
}
