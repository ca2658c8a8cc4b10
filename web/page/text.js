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
/** What an address says before its path: the host, and whom it is asked as. */
const AUTHORITY = /^https?:[/\\]*([^/\\?#]*)/iu;
/** No host is longer, and to look into one that is takes `URL` long. */
const AUTHORITY_MAX = 1000;
/** At the end of an address these belong to the sentence. */
const AFTER_LINKS = '.,;:!?\'")]}';

/**
 * A text without what is at its end. In a loop: an expression that ends in `$` looks for its end from
 * each place in a text, and a text of nothing else takes seconds.
 * @param {string} text
 * @param {string} chars
 */
const withoutEnd = (text, chars) => {
  let end = text.length;
  while (end > 0 && chars.includes(text.charAt(end - 1))) end--;
  return text.slice(0, end);
};

/** So many users a text mentions at most. */
const MENTIONS_MAX = 50;
/** Before a mention there is no letter and no digit. */
const IN_WORD = /[\p{Alphabetic}\p{N}]$/u;
/** What might be a user's id: a character more than an id has, for one that is too long to be none. */
const NAME = /[A-Za-z0-9._-]{0,65}/y;
const ID = /^[a-z0-9][a-z0-9._-]{0,63}$/u;

/**
 * Where a text mentions somebody, by the rules by which the server counts (src/chat/mention.rs).
 * @param {string} text
 * @param {string} user
 * @returns {{ from: number, to: number }[]}
 */
const mentionsOf = (text, user) => {
  const places = [];
  const found = new Set();
  for (let from = text.indexOf('@'); from >= 0; from = text.indexOf('@', from + 1)) {
    if (IN_WORD.test(text.slice(Math.max(0, from - 2), from))) continue;
    NAME.lastIndex = from + 1;
    const name = withoutEnd(NAME.exec(text)?.[0] ?? '', '.-');
    const id = name.toLowerCase();
    if (!ID.test(id)) continue;
    if (found.size < MENTIONS_MAX) found.add(id);
    if (id === user && found.has(id)) places.push({ from, to: from + 1 + name.length });
  }
  return places;
};

/**
 * A stretch of a text, which is a link or is none; its parts are mentions of the reader or are none.
 * @typedef {{ href: string | null, parts: { text: string, own: boolean }[] }} Piece
 */

/**
 * What a text is made of.
 * @param {string} text
 * @param {string} me
 * @returns {Piece[]}
 */
export const pieces = (text, me) => {
  const places = mentionsOf(text, me);
  let next = 0;
  /** @type {Piece[]} */
  const all = [];
  const add = (/** @type {number} */ from, /** @type {number} */ to, /** @type {string | null} */ href) => {
    const parts = [];
    let at = from;
    for (let place = places[next]; place && place.from < to; place = places[++next]) {
      if (place.from > at) parts.push({ text: text.slice(at, place.from), own: false });
      at = Math.min(place.to, to); // what might go on is a link
      parts.push({ text: text.slice(place.from, at), own: true });
    }
    if (to > at) parts.push({ text: text.slice(at, to), own: false });
    if (parts.length > 0) all.push({ href, parts });
  };
  let from = 0;
  for (const { 0: found, index } of text.matchAll(LINK)) {
    const address = withoutEnd(found, AFTER_LINKS);
    if ((AUTHORITY.exec(address)?.[1]?.length ?? 0) > AUTHORITY_MAX) continue;
    const url = URL.parse?.(address) ?? (URL.canParse(address) ? new URL(address) : null);
    if (!url || !['http:', 'https:'].includes(url.protocol)) continue;
    add(from, index, null);
    from = index + address.length;
    add(index, from, url.href);
  }
  add(from, text.length, null);
  return all;
};

/**
 * A text with its links, mentions of the reader marked.
 * @param {string} text
 * @param {string} me
 * @returns {Node[]}
 */
export const rich = (text, me) =>
  pieces(text, me).flatMap(({ href, parts }) => {
    const nodes = parts.map(({ text, own }) => (own ? h('mark', { class: 'mention' }, text) : document.createTextNode(text)));
    return href === null ? nodes : [h('a', { href, target: '_blank', rel: 'noopener noreferrer nofollow' }, ...nodes)];
  });
