// Signing in, and making an account where people may. Below the form are the providers by which people
// sign in, by OpenID Connect: each is a plain link, which the server answers by sending the browser on.

import { ApiError, login, register } from '../client/api.js';
import { fill, h } from './dom.js';

/** Who may make an account, as the node has written it into the page. */
const registration = () =>
  document.querySelector('meta[name="folkmoot-registration"]')?.getAttribute('content') ?? 'closed';

/**
 * By whom people sign in, as the node has written it into the page: lines of a name and a title.
 * @returns {{ name: string, title: string }[]}
 */
const providers = () => {
  const lines = document.querySelector('meta[name="folkmoot-providers"]')?.getAttribute('content') ?? '';
  return lines.split('\n').filter(Boolean).map((line) => {
    const end = line.indexOf(' ');
    return { name: line.slice(0, end), title: line.slice(end + 1) };
  });
};

/** Why a sign-in by a provider failed, by its code: nothing that an address says is shown as it is. */
const REFUSALS = {
  already_exists: 'Your name there is another account\u2019s here. Ask an administrator to link them.',
  forbidden: 'You cannot sign in here that way: there is no account for you, or it is disabled.',
  rate_limited: 'Too many attempts. Try again in a minute.',
  unauthenticated: 'That sign-in was not finished, or took too long. Please start again.',
  unavailable: 'The provider cannot be reached right now. Try again, or sign in another way.',
};

/** What came of a sign-in by a provider, if it failed; it is said once. */
const refusal = () => {
  const code = new URLSearchParams(location.search).get('sign_in');
  if (code === null) return '';
  history.replaceState(null, '', location.pathname + location.hash);
  return new Map(Object.entries(REFUSALS)).get(code) ?? 'Signing in did not work. Please try again.';
};

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
    const form = h('form', { onsubmit }, h('h1', {}, isNew ? 'Create an account' : 'Sign in'), ...fields, problem, submit);
    const other = h('button', { class: 'plain', type: 'button', onclick: toggle }, isNew ? 'I have an account' : 'Create an account');
    const mark = h('p', { class: 'wordmark' }, h('img', { src: '/assets/page/icon.svg', alt: '', width: 32, height: 32 }), 'Folkmoot');
    const ways = providers().map(({ name, title }) => h('a', { class: 'provider', href: `/v1/oidc/${encodeURIComponent(name)}/login` }, `Sign in with ${title}`));
    const by = ways.length > 0 && h('nav', { class: 'providers', 'aria-label': 'Other ways to sign in' }, h('p', {}, 'or'), ...ways);
    fill(page, h('main', { class: 'signin' }, mark, h('div', { class: 'card' }, form, by), open !== 'closed' && other));
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
  show(notice || refusal());
};
