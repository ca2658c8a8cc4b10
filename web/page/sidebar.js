// The list of rooms, the way to new ones, and who is signed in.

import { ApiError, createRoom } from '../client/api.js';
import { Ids } from '../client/uuid.js';
import { fill, h, refill } from './dom.js';
import { isIn } from './rooms.js';
import { hue, initial } from './text.js';

/** @import { Entry, Rooms } from './rooms.js' */
/** @import { User } from '../client/types.js' */
/** @import { Standing } from '../client/session.js' */

/**
 * What a room is called: a direct one by whom it is with.
 * @param {Entry['room']} room
 * @param {string} me
 * @param {(user: string) => string} nameOf
 */
export const titleOf = (room, me, nameOf) => {
  if (room.kind !== 'direct') return room.title || room.room;
  return nameOf(otherOf(room.room, me));
};

/** Whom a direct room is with. @param {string} room @param {string} me */
export const otherOf = (room, me) => {
  const [, a = '', b = ''] = room.split(':');
  return a === me ? b : a;
};

const SIGNS = { public: '#', private: '', group: '\u{2042}', direct: '@' };

/** The sign of a room's kind, which a word says to those who do not see it. @param {Entry['room']} room */
export const signOf = ({ kind }) =>
  h('span', { class: `sign ${kind}`, title: `${kind} room` }, h('span', { 'aria-hidden': 'true' }, SIGNS[kind]), h('span', { class: 'unseen' }, `${kind} room `));

export class Sidebar {
  element = h('nav', { class: 'sidebar', 'aria-label': 'Rooms' });
  #list = h('div', { class: 'rooms' });
  #standing = h('p', { class: 'standing', role: 'status' });
  #filter = '';
  #me;
  #rooms;
  #nameOf;
  #actions;

  /**
   * @param {User} me
   * @param {Rooms} rooms
   * @param {(user: string) => string} nameOf
   * @param {{ signOut: () => void, created: (room: string) => void }} actions
   */
  constructor(me, rooms, nameOf, actions) {
    this.#me = me;
    this.#rooms = rooms;
    this.#nameOf = nameOf;
    this.#actions = actions;
    const name = me.display_name || me.user;
    const search = h('input', { type: 'search', placeholder: 'Find a room', 'aria-label': 'Find a room', oninput: () => {
      this.#filter = search.value.trim().toLowerCase();
      this.show();
    } });
    const create = h('button', { class: 'icon', title: 'New room', 'aria-label': 'New room', onclick: () => this.#create() }, '+');
    fill(
      this.element,
      h('header', {}, h('img', { src: '/assets/page/icon.svg', alt: '', width: 26, height: 26 }), h('span', { class: 'wordmark' }, 'Folkmoot'), create),
      search,
      this.#list,
      h(
        'footer',
        {},
        h('span', { class: `avatar ${hue(me.user)}`, 'aria-hidden': 'true' }, initial(name)),
        h('div', { class: 'who' }, h('strong', {}, name), this.#standing),
        h('button', { class: 'plain', onclick: actions.signOut }, 'Sign out'),
      ),
    );
  }

  /** @param {string} [current] */
  show(current = this.#current) {
    this.#current = current;
    const focused = this.#list.contains(document.activeElement) ? document.activeElement?.getAttribute('href') : null;
    const name = (/** @type {Entry} */ { room }) => titleOf(room, this.#me.user, this.#nameOf).toLowerCase();
    const all = [...this.#rooms.entries.values()]
      .filter((entry) => name(entry).includes(this.#filter) || entry.room.room.includes(this.#filter))
      .sort((a, b) => name(a).localeCompare(name(b)));
    const people = all.filter(({ room, part }) => room.kind === 'direct' && isIn(part));
    const mine = all.filter((entry) => isIn(entry.part) && !people.includes(entry));
    const invited = all.filter(({ part }) => part === 'invited');
    const others = all.filter(({ part }) => part === 'none');
    const empty = !all.length && h('p', { class: 'empty' }, this.#rooms.loaded ? 'No rooms here yet.' : 'Loading…');
    const of = all.map((entry) => [entry.room.room, entry.room.kind, entry.part, name(entry), this.#rooms.unread(entry), this.#statusOf(entry)]);
    refill(this.#list, [of, current, this.#rooms.loaded], () => [
      this.#section('Invitations', invited),
      this.#section('Rooms', mine),
      this.#section('People', people),
      this.#section('More rooms', others),
      empty,
    ]);
    if (focused) for (const link of this.#list.querySelectorAll('a')) if (link.getAttribute('href') === focused) link.focus();
  }
  #current = '';

  /** @param {string} heading @param {Entry[]} entries */
  #section(heading, entries) {
    if (!entries.length) return null;
    const id = `rooms-${heading.replace(' ', '-').toLowerCase()}`;
    return h('section', { 'aria-labelledby': id }, h('h2', { id }, heading), h('ul', {}, ...entries.map((entry) => this.#link(entry))));
  }

  /** How present the other one of a direct room is. @param {Entry} entry */
  #statusOf({ room, people }) {
    return room.kind === 'direct' ? people.of(otherOf(room.room, this.#me.user)).status : '';
  }

  /** @param {Entry} entry */
  #link(entry) {
    const { room, part } = entry;
    const { count, many, mentioned } = this.#rooms.unread(entry);
    const shown = count > 99 ? '99+' : many ? (count > 0 ? `${count}+` : 'many') : String(count);
    const isCurrent = room.room === this.#current;
    const badge = (count > 0 || many) && h('span', { class: mentioned ? 'badge mentioned' : 'badge', title: 'Not read yet' }, shown, h('span', { class: 'unseen' }, ' new'));
    const classes = [isCurrent && 'current', (count > 0 || many) && 'fresh', part === 'none' && 'other'].filter(Boolean).join(' ');
    const href = `#/${encodeURIComponent(room.room)}`;
    const status = this.#statusOf(entry);
    const dot = status !== '' && h('span', { class: `presence ${status}`, title: status }, h('span', { class: 'unseen' }, `${status} `));
    return h('li', {}, h('a', { href, class: classes, 'aria-current': isCurrent && 'page' }, signOf(room), dot, h('span', { class: 'name' }, titleOf(room, this.#me.user, this.#nameOf)), badge));
  }

  /** @param {Standing} standing @param {number | undefined} node */
  stand(standing, node) {
    const words = {
      connecting: 'Connecting…',
      open: node ? `Connected to node ${node}` : 'Connected',
      waiting: 'Offline',
      signed_out: 'Signed out',
      refused: 'Refused',
      stopped: '',
    };
    this.#standing.dataset.at = standing.at;
    fill(this.#standing, words[standing.at]);
  }

  #create() {
    const problem = h('p', { class: 'problem', role: 'alert' });
    const name = h('input', { name: 'title', required: true, maxlength: 100, autocomplete: 'off' });
    const kind = h('select', { name: 'kind' }, h('option', { value: 'public' }, 'Public: everybody here may join'), h('option', { value: 'private' }, 'Private: by invitation'));
    const id = h('output', { class: 'slug' });
    const slug = () => name.value.toLowerCase().normalize('NFKD').replace(/[^a-z0-9]+/gu, '-').replace(/^-+|-+$/gu, '').slice(0, 64);
    name.addEventListener('input', () => {
      id.textContent = slug() && `Its id will be ${slug()}`;
    });
    // One id for all attempts at one wish: it is made once.
    const request_id = new Ids().mint(Date.now());
    const close = () => dialog.close();
    const submit = h('button', { class: 'primary' }, 'Create');
    const onsubmit = async (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      const room = slug();
      if (!room) {
        problem.textContent = 'The name needs a letter or a digit.';
        return;
      }
      submit.disabled = true;
      try {
        await createRoom({ room, title: name.value.trim(), kind: kind.value, request_id });
        dialog.close();
        this.#actions.created(room);
      } catch (error) {
        const taken = error instanceof ApiError && error.failure.code === 'already_exists';
        problem.textContent = taken ? 'There is a room of that id already.' : error instanceof Error ? error.message : '';
        submit.disabled = false;
      }
    };
    const form = h('form', { onsubmit }, h('h2', {}, 'New room'), h('label', { class: 'field' }, h('span', {}, 'Name'), name, id), h('label', { class: 'field' }, h('span', {}, 'Who may join'), kind), problem, h('div', { class: 'buttons' }, h('button', { type: 'button', class: 'plain', onclick: close }, 'Cancel'), submit));
    const dialog = h('dialog', { class: 'card', onclose: () => dialog.remove() }, form);
    document.body.append(dialog);
    dialog.showModal();
    name.focus();
  }
}
