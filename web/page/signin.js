// Signing in, and making an account where people may. Other ways to sign in (a provider's page, by
// OpenID Connect) go below the form, once the server has them.

import { ApiError, login, register } from '../client/api.js';
import { fill, h } from './dom.js';

/** Who may make an account, as the node has written it into the page. */
const registration = () =>
  document.querySelector('meta[name="folkmoot-registration"]')?.getAttribute('content') ?? 'closed';

/** @param {unknown} error */
const reason = (error) => {
  if (!(error instanceof ApiError)) return 'Something went wrong. Please try again.';
  const { code, message, retry_after_ms } = error.failure;
  if (code === 'unauthenticated') return 'That name and password do not go together.';
  if (code === 'already_exists') return 'That name is taken.';
  if (code === 'rate_limited') {
    return `Too many attempts. Try again in ${Math.ceil((retry_after_ms ?? 6000) / 1000)} s.`;
  }
  return message;
};

/**
 * @param {Element} page
 * @param {{ notice?: string, onSignedIn: (user: import('../client/types.js').User) => void }} options
 */
export const showSignIn = (page, { notice = '', onSignedIn }) => {
  const open = registration();
  let isNew = false;

  /** @param {string} label @param {Record<string, any>} attributes @param {string} [hint] */
  const field = (label, attributes, hint) =>
    h('label', { class: 'field' }, h('span', {}, label), h('input', attributes), hint && h('small', {}, hint));

  const show = (said = '') => {
    const problem = h('p', { class: 'problem', role: 'alert' }, said);
    const submit = h('button', { class: 'primary', type: 'submit' }, isNew ? 'Create account' : 'Sign in');
    const name = { name: 'user', autocomplete: 'username', autocapitalize: 'none', spellcheck: 'false', required: true, maxlength: 64 };
    const fields = [
      field('Name', { ...name, pattern: '[a-z0-9][a-z0-9._\\-]{0,63}' }, isNew ? 'Small letters, digits, dots, dashes.' : ''),
      isNew && field('Name to show', { name: 'display_name', autocomplete: 'name', maxlength: 64 }, 'As others see it. May be left empty.'),
      field('Password', { name: 'password', type: 'password', required: true, ...(isNew ? { minlength: 8, autocomplete: 'new-password' } : { autocomplete: 'current-password' }) }, isNew ? '8 characters or more.' : ''),
      isNew && open === 'invite' && field('Invite', { name: 'invite', required: true, autocomplete: 'off' }, 'From an administrator.'),
    ];
    const form = h('form', { class: 'card', onsubmit }, h('h1', {}, isNew ? 'Create an account' : 'Sign in'), ...fields, problem, submit);
    const other = h('button', { class: 'plain', type: 'button', onclick: toggle }, isNew ? 'I have an account' : 'Create an account');
    const mark = h('p', { class: 'wordmark' }, h('img', { src: '/assets/page/icon.svg', alt: '', width: 32, height: 32 }), 'Folkmoot');
    fill(page, h('main', { class: 'signin' }, mark, form, open !== 'closed' && other));
    form.querySelector('input')?.focus();

    /** @param {SubmitEvent} event */
    async function onsubmit(event) {
      event.preventDefault();
      const values = Object.fromEntries([...new FormData(form)].map(([key, value]) => [key, String(value)]));
      const { user = '', password = '', display_name, invite } = values;
      submit.disabled = true;
      problem.textContent = '';
      try {
        const account = { user: user.trim(), password, ...(display_name && { display_name }), ...(invite && { invite: invite.trim() }) };
        onSignedIn(await (isNew ? register(account) : login(account.user, password)));
      } catch (error) {
        problem.textContent = reason(error);
        submit.disabled = false;
        form.querySelector('input')?.focus();
      }
    }
  };

  const toggle = () => {
    isNew = !isNew;
    show();
  };
  show(notice);
};
