// How times, names and what people wrote are shown.

import { h } from './dom.js';

/** @import { Person } from '../client/types.js' */

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const thisYear = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' });
const otherYear = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'long', year: 'numeric' });
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });

/** A name without what would turn around, or hide, the words beside it. @param {string} name */
export const plain = (name) => name.replace(/[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/gu, '').trim();

/** @param {Date} at */
export const timeOfDay = (at) => clock.format(at);

/** The same where there is little room: without AM or PM. @param {Date} at */
export const shortTime = (at) =>
  clock.formatToParts(at).filter(({ type }) => type !== 'dayPeriod').map(({ value }) => value).join('').trim();

/** @param {Date} at */
export const fullTime = (at) => whole.format(at);

/** The day, for comparing. @param {Date} at */
export const dayKey = (at) => `${at.getFullYear()}-${at.getMonth()}-${at.getDate()}`;

/** The day, for people. @param {Date} at @param {Date} now */
export const dayName = (at, now) => {
  if (dayKey(at) === dayKey(now)) return 'Today';
  const yesterday = new Date(now.getFullYear(), now.getMonth(), now.getDate() - 1);
  if (dayKey(at) === dayKey(yesterday)) return 'Yesterday';
  return (at.getFullYear() === now.getFullYear() ? thisYear : otherYear).format(at);
};

/** @param {number} n @param {string} one @param {string} [many] */
export const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

/** Names, as a sentence has them: at most three of them. @param {string[]} names */
const listed = (names) => {
  const shown = names.length > 3 ? [...names.slice(0, 2), count(names.length - 2, 'other')] : names;
  return shown.length < 2 ? shown.join('') : `${shown.slice(0, -1).join(', ')} and ${shown.at(-1)}`;
};

/** Who types. @param {string[]} names */
export const typingWords = (names) => names.length === 0 ? '' : `${listed(names)} ${names.length === 1 ? 'is' : 'are'} typing…`;

/** What has become of a message of one's own, in few words. @param {number} readers @param {boolean} direct */
export const sentWords = (readers, direct) => readers === 0 ? 'Sent' : direct ? 'Read' : `Read by ${readers}`;

/** How present somebody is. @param {Person} person @param {Date} now */
export const presenceWords = ({ status, last_seen }, now) => {
  if (status !== 'offline') return status;
  if (last_seen === undefined) return '';
  const at = new Date(last_seen);
  return `last seen ${dayKey(at) === dayKey(now) ? `at ${timeOfDay(at)}` : dayName(at, now)}`;
};

/** One of eight colours, always the same for a name. @param {string} name */
export const hue = (name) => {
  let sum = 0;
  for (const char of name) sum = (sum * 31 + (char.codePointAt(0) ?? 0)) % 8191;
  return `hue-${sum % 8}`;
};

/** @param {string} name */
export const initial = (name) => [...new Intl.Segmenter().segment(name)][0]?.segment.toLocaleUpperCase() ?? '?';

/** Where a link in a text might begin. What follows it is checked by `URL`. */
const LINK = /\bhttps?:\/\/[^\s<>"]+/giu;

/**
 * A text with its links, mentions of the reader marked.
 * @param {string} text
 * @param {string} me
 * @returns {Node[]}
 */
export const rich = (text, me) => {
  const nodes = [];
  let from = 0;
  for (const { 0: found, index } of text.matchAll(LINK)) {
    // Punctuation at the end belongs to the sentence.
    const address = found.replace(/[.,;:!?'")\]}]+$/u, '');
    const url = URL.parse?.(address) ?? (URL.canParse(address) ? new URL(address) : null);
    if (!url || !['http:', 'https:'].includes(url.protocol)) continue;
    nodes.push(...mentions(text.slice(from, index), me));
    nodes.push(h('a', { href: url.href, target: '_blank', rel: 'noopener noreferrer nofollow' }, address));
    from = index + address.length;
  }
  nodes.push(...mentions(text.slice(from), me));
  return nodes;
};

/** @param {string} text @param {string} me @returns {Node[]} */
const mentions = (text, me) =>
  text.split(/(?<![\w@.-])(@[a-z0-9][a-z0-9._-]*)/u).map((part, i) => {
    if (i % 2 === 0) return document.createTextNode(part);
    const own = part.slice(1).replace(/[._-]+$/u, '') === me;
    return own ? h('mark', { class: 'mention' }, part) : document.createTextNode(part);
  });
