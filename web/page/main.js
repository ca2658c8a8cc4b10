// The page's beginning: who is there, and what they get to see.

import { ApiError, me } from '../client/api.js';
import { Chat } from './chat.js';
import { fill, h } from './dom.js';
import { showSignIn } from './signin.js';

/** @import { User } from '../client/types.js' */

const page = document.getElementById('page');

/** @param {User} user */
const showChat = (user) => {
  if (!page) return;
  new Chat(page, user, (notice) => showSignIn(page, { notice, onSignedIn: showChat }));
};

const begin = async () => {
  if (!page) return;
  try {
    showChat(await me());
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) {
      showSignIn(page, { onSignedIn: showChat });
      return;
    }
    const why = error instanceof ApiError ? error.message : 'Something went wrong.';
    const again = h('button', { class: 'primary', onclick: begin }, 'Try again');
    fill(page, h('main', { class: 'signin' }, h('div', { class: 'card' }, h('h1', {}, 'Folkmoot'), h('p', { role: 'alert' }, why), again)));
  }
};

begin();
