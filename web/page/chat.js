// The chat: wires the client (session, outbox, logs) to what is shown.

import { ApiError, join, leave, logout, user as fetchUser } from '../client/api.js';
import { Typing } from '../client/people.js';
import { forget, Outbox } from '../client/outbox.js';
import { isMessage } from '../client/roomlog.js';
import { Session } from '../client/session.js';
import { Ids } from '../client/uuid.js';
import { Composer } from './composer.js';
import { announce, fill, h, refill } from './dom.js';
import { Rooms, isIn } from './rooms.js';
import { Sidebar, otherOf, signOf, titleOf } from './sidebar.js';
import { count, plain, presenceWords, typingWords } from './text.js';
import { Timeline } from './timeline.js';

/** @import { Timers, Event, User } from '../client/types.js' */
/** @import { Standing } from '../client/session.js' */
/** @import { Entry } from './rooms.js' */

/** How often the list of rooms is read again: nothing tells of new ones. */
const LIST_EVERY_MS = 60_000;
/** For how long a connection may be gone before it is worth a word. */
const QUIETLY_MS = 1500;
/** Who has not looked for so long is busy with something else. */
const AWAY_AFTER_MS = 5 * 60_000;

/** Where a browser's storage says who is signed in, in all of its windows. */
const WHO = 'folkmoot.user';

/** @type {Timers} */
const timers = {
  now: Date.now,
  after: (work, ms) => setTimeout(work, ms),
  cancel: (timer) => clearTimeout(timer),
};

const connect = () => {
  const url = new URL('/v1/ws', location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  return new WebSocket(url, 'folkmoot.v1');
};

/** What a part of an address stands for; nothing, where it is none. @param {string} part */
const unescaped = (part) => {
  try {
    return decodeURIComponent(part);
  } catch {
    return '';
  }
};

export class Chat {
  #page;
  #me;
  #signedOut;
  #outbox;
  #session;
  #rooms;
  #sidebar;
  #timeline;
  #composer;
  #ids = new Ids();
  #ends = new AbortController();
  #header = h('header', { class: 'room-header' });
  #people = h('span', { class: 'people' });
  // What changes each second is not read out each second.
  #lost = h('span', { role: 'status' });
  #when = h('span');
  #now = h('button', { class: 'plain' });
  #banner = h('div', { class: 'banner', hidden: true }, this.#lost, this.#when, this.#now);
  #foot = h('div', { class: 'foot' });
  #typing = h('p', { class: 'typing', 'aria-live': 'off' });
  #room = h('main', { class: 'room', id: 'room' });
  #app = h('div', { class: 'chat' });
  #current = '';
  /** @type {Map<string, string>} */
  #names = new Map();
  #drawing = false;
  #listing = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #quietly;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #leaving;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #ticking;
  #problem = '';

  /**
   * @param {Element} page
   * @param {User} me
   * @param {(notice: string) => void} signedOut
   */
  constructor(page, me, signedOut) {
    this.#page = page;
    this.#me = me;
    this.#signedOut = signedOut;
    this.#names.set(me.user, plain(me.display_name) || me.user);
    this.#outbox = new Outbox({ user: me.user, storage: localStorage, timers, random: Math.random, onChange: () => this.#draw() });
    this.#session = new Session({
      user: me.user,
      connect,
      timers,
      random: Math.random,
      outbox: this.#outbox,
      listener: {
        onStanding: (standing) => this.#stand(standing),
        onFollowed: (room, followed) => this.#rooms.followed(room, followed),
        onEvent: (room, event) => this.#event(room, event),
        onCaughtUp: () => this.#draw(),
        onPeople: (room, frame) => {
          this.#rooms.get(room)?.people.take(frame);
          this.#draw();
        },
        onEnded: (room, error) => this.#rooms.ended(room, error),
      },
    });
    this.#rooms = new Rooms({
      me: me.user,
      session: this.#session,
      timers,
      random: Math.random,
      onChange: () => this.#draw(),
      onOlder: (room, events) => {
        for (const event of events) this.#outbox.seen(room, event);
      },
      mayForget: (room) => room !== this.#current || this.#timeline.atEnd,
    });
    const nameOf = (/** @type {string} */ user) => this.#nameOf(user);
    this.#sidebar = new Sidebar(me, this.#rooms, nameOf, {
      signOut: () => this.#signOut(),
      created: async (room) => {
        await this.#rooms.refresh(room);
        location.hash = `#/${encodeURIComponent(room)}`;
      },
    });
    this.#timeline = new Timeline(me.user, nameOf, {
      older: () => this.#rooms.loadOlder(this.#current),
      looked: () => this.#looked(),
      reply: (event) => this.#composer.reply(event),
      retry: (id) => this.#outbox.retry(id),
      discard: (id) => this.#outbox.discard(id),
    });
    const typing = new Typing(timers, (room, types) => this.#session.type(room, types));
    this.#composer = new Composer((text, replyTo) => {
      this.#timeline.toEnd();
      typing.posted();
      this.#outbox.post(this.#current, text, replyTo);
    }, nameOf, (some) => typing.changed(this.#current, some));
    this.#begin();
  }

  #begin() {
    fill(this.#app, this.#sidebar.element, this.#room);
    fill(this.#page, h('a', { class: 'skip', href: '#room', onclick: (/** @type {MouseEvent} */ event) => {
      event.preventDefault();
      this.#composer.focus();
    } }, 'Skip to the message'), this.#app);
    const { signal } = this.#ends;
    const again = () => {
      this.#session.wake();
      this.#looked();
      this.#draw();
    };
    addEventListener('hashchange', () => this.#open(), { signal });
    addEventListener('online', again, { signal });
    // One cookie signs all windows of a browser in: they show one user at a time.
    const former = localStorage.getItem(WHO);
    if (former !== null && former !== this.#me.user) forget(localStorage, former);
    localStorage.setItem(WHO, this.#me.user);
    addEventListener('storage', ({ key, newValue }) => {
      if (key !== WHO || newValue === this.#me.user) return;
      this.#end(newValue === null ? 'You have been signed out, in another window.' : 'Somebody else has signed in, in another window.');
    }, { signal });
    addEventListener('focus', again, { signal });
    document.addEventListener('visibilitychange', again, { signal });
    const look = () => this.#attend();
    for (const kind of ['visibilitychange', 'pointerdown', 'keydown', 'focus']) addEventListener(kind, look, { signal, passive: true });
    document.addEventListener('visibilitychange', look, { signal });
    look();
    const listing = setInterval(() => document.visibilityState === 'visible' && this.#list(), LIST_EVERY_MS);
    signal.addEventListener('abort', () => clearInterval(listing));
    this.#session.start();
    this.#draw();
  }

  /** Reads the list of rooms; what is open already stays as it is. */
  async #list() {
    if (this.#listing) return;
    this.#listing = true;
    try {
      await this.#rooms.load();
      if (!this.#current) this.#open();
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) this.#end('You have been signed out.');
    }
    this.#listing = false;
  }

  #end(notice = '') {
    if (this.#ends.signal.aborted) return;
    this.#ends.abort();
    clearInterval(this.#ticking);
    clearTimeout(this.#quietly);
    clearTimeout(this.#leaving);
    this.#session.stop();
    // Another window has signed this user out, and asked about what was not sent. A session that is over by
    // itself is no reason to lose it.
    if (localStorage.getItem(WHO) !== this.#me.user) this.#outbox.clear();
    document.title = 'Folkmoot';
    this.#signedOut(notice);
  }

  async #signOut() {
    const waiting = this.#outbox.size;
    if (waiting && !confirm(`${count(waiting, 'message')} not sent yet will be lost. Sign out?`)) return;
    try {
      await logout();
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) {
        this.#problem = 'The server cannot be reached, so you are still signed in. Try again.';
        this.#draw();
        return;
      }
    }
    localStorage.removeItem(WHO);
    // Whatever was heard first: this page may have ended already.
    this.#outbox.clear();
    this.#end();
  }

  /** @param {Standing} standing */
  #stand(standing) {
    if (standing.at === 'signed_out') {
      this.#end('You have been signed out.');
      return;
    }
    if (standing.at === 'open') {
      this.#composer.textBytesMax = this.#session.limits?.text_bytes ?? this.#composer.textBytesMax;
      this.#list();
    }
    clearInterval(this.#ticking);
    if (standing.at === 'open' || standing.at === 'refused') {
      clearTimeout(this.#quietly);
      this.#quietly = undefined;
      this.#bannerOf(standing);
    } else if (this.#banner.hidden) {
      // A node that is restarted is not worth a word, if another one goes on at once.
      this.#quietly ??= setTimeout(() => this.#tick(), QUIETLY_MS);
    } else {
      this.#tick();
    }
    this.#sidebar.stand(standing, this.#session.node);
  }

  #tick() {
    clearInterval(this.#ticking);
    const show = () => this.#bannerOf(this.#session.standing);
    show();
    this.#ticking = setInterval(show, 1000);
  }

  /** @param {Standing} standing */
  #bannerOf(standing) {
    this.#banner.hidden = standing.at === 'open';
    const said = {
      open: '',
      refused: 'The server does not understand this page.',
    }[/** @type {string} */ (standing.at)] ?? 'No connection. What you write is sent later.';
    if (this.#lost.textContent !== said) this.#lost.textContent = said;
    const left = standing.at === 'waiting' ? Math.max(0, Math.ceil((standing.until - Date.now()) / 1000)) : 0;
    const isRefused = standing.at === 'refused';
    this.#when.textContent = isRefused ? '' : left > 1 ? `Trying again in ${left} s` : 'Trying again…';
    this.#now.textContent = isRefused ? 'Load it again' : 'Try now';
    this.#now.onclick = () => (isRefused ? location.reload() : this.#session.wake());
    this.#now.hidden = !isRefused && left <= 1;
  }

  /** @param {Entry['room']} room */
  #titleOf(room) {
    return titleOf(room, this.#me.user, (user) => this.#nameOf(user));
  }

  /** @param {string} user */
  #nameOf(user) {
    const name = this.#names.get(user);
    if (name === undefined && user !== '') {
      this.#names.set(user, user);
      const named = (/** @type {User} */ { display_name }) => {
        const name = plain(display_name);
        if (!name || name === user) return;
        this.#names.set(user, name);
        this.#draw();
      };
      fetchUser(user).then(named, () => {});
    }
    return name ?? user;
  }

  /** @param {string} room @param {Event} event */
  #event(room, event) {
    const entry = this.#rooms.get(room);
    const isSeen = this.#isLookedAt(room);
    const taken = this.#rooms.take(room, event);
    if (event.sender === this.#me.user) this.#outbox.seen(room, event);
    if (!entry || taken !== 'new') return;
    if (isSeen) {
      this.#rooms.see(entry);
      if (isMessage(event) && event.sender !== this.#me.user) announce(`${this.#nameOf(event.sender)}: ${event.text}`);
    } else if (room === this.#current && entry.newAfter === null) {
      this.#rooms.noteNew(entry);
    }
    this.#draw();
  }

  /** @param {string} room */
  #isLookedAt(room) {
    return room === this.#current && this.#timeline.atEnd && document.visibilityState === 'visible' && document.hasFocus();
  }

  /** The user is here; and is away where nothing is seen of them for a while. */
  #attend() {
    clearTimeout(this.#leaving);
    if (document.visibilityState === 'visible') this.#session.setStatus('online');
    this.#leaving = setTimeout(() => this.#session.setStatus('away'), AWAY_AFTER_MS);
  }

  #looked() {
    const entry = this.#rooms.get(this.#current);
    if (!entry || !this.#isLookedAt(this.#current)) return;
    const { count, many } = this.#rooms.unread(entry);
    this.#rooms.see(entry);
    if (count || many) this.#draw();
  }

  /** Opens the room that the address names. */
  #open() {
    const room = unescaped(location.hash.replace(/^#\/?/u, ''));
    const before = this.#rooms.get(this.#current);
    if (before && room !== this.#current) {
      before.newAfter = null;
      this.#rooms.rest(this.#current);
    }
    this.#problem = '';
    const entry = this.#rooms.get(room);
    this.#current = entry ? room : '';
    if (entry) {
      this.#rooms.open(room);
      this.#rooms.noteNew(entry);
      if (entry.log.events.length < 30) this.#rooms.loadOlder(room);
    }
    this.#drawNow();
    this.#looked();
    if (!entry) return;
    // On a small screen a keyboard would come up.
    if (matchMedia('(min-width: 721px)').matches && this.#mayPost(entry)) this.#composer.focus();
    else this.#header.querySelector('h1')?.focus();
  }

  /** Draws what has changed, once for all that has before the next frame. */
  #draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    // Frames are not drawn while nobody looks; the title's count is wanted then too.
    const frame = document.visibilityState === 'visible' ? requestAnimationFrame : (/** @type {() => void} */ work) => setTimeout(work, 50);
    frame(() => {
      this.#drawing = false;
      if (!this.#ends.signal.aborted) this.#drawNow();
    });
  }

  #drawNow() {
    const entry = this.#rooms.get(this.#current);
    this.#app.classList.toggle('in-room', entry !== undefined);
    this.#sidebar.show(this.#current);
    const fresh = [...this.#rooms.entries.values()].reduce((sum, each) => sum + this.#rooms.unread(each).count, 0);
    const title = entry ? `${this.#titleOf(entry.room)} · Folkmoot` : 'Folkmoot';
    document.title = fresh ? `(${fresh}) ${title}` : title;
    if (!entry) {
      const words = this.#rooms.loaded ? 'Choose a room, or make one.' : '';
      refill(this.#room, ['nothing', words], () => [this.#banner, h('div', { class: 'nothing' }, h('p', {}, words))]);
      return;
    }
    this.#drawHeader(entry);
    refill(this.#room, ['room'], () => [this.#header, this.#banner, this.#timeline.element, this.#typing, this.#foot]);
    this.#drawFoot(entry);
    this.#drawTyping(entry);
    this.#outbox.shown(this.#current, entry.log.last);
    this.#timeline.show({ entry, drafts: this.#outbox.of(this.#current), mayPost: this.#mayPost(entry) });
  }

  /** @param {Entry} entry */
  #mayPost({ room, part }) {
    return isIn(part) && part !== 'muted' && !room.archived;
  }

  /** @param {Entry} entry */
  #drawTyping({ people }) {
    const names = people.typing.filter((user) => user !== this.#me.user).map((user) => this.#nameOf(user));
    refill(this.#typing, names, () => [typingWords(names)]);
  }

  /** @param {Entry} entry */
  #drawHeader({ room, part, people: who }) {
    const here = who.present === null ? '' : ` · ${who.present} here`;
    const other = room.kind === 'direct' ? who.of(otherOf(room.room, this.#me.user)) : null;
    const people = other ? presenceWords(other, new Date()) : `${count(room.participant_count, 'person', 'people')}${here}`;
    const canLeave = isIn(part) && room.kind !== 'direct';
    const title = this.#titleOf(room);
    refill(this.#people, people, () => [people]);
    refill(this.#header, [room.room, room.kind, title, room.topic, canLeave], () => [
      h('a', { class: 'back', href: '#/', 'aria-label': 'All rooms' }, '‹'),
      h('div', { class: 'title' }, h('h1', { tabindex: -1 }, signOf(room), title), room.topic && h('p', { class: 'topic', title: room.topic }, room.topic)),
      this.#people,
      canLeave && h('button', { class: 'plain', onclick: () => this.#leave(room.room) }, 'Leave'),
    ]);
  }

  /** @param {Entry} entry */
  #drawFoot(entry) {
    const { room, part } = entry;
    const problem = () => this.#problem && h('p', { class: 'problem', role: 'alert' }, this.#problem);
    if (this.#mayPost(entry)) {
      this.#composer.show(room.room, this.#titleOf(room));
      // The composer stays where it is, for the focus, and what is being composed, to stay in it.
      refill(this.#foot, ['composer', this.#problem], () => [problem(), this.#composer.element]);
      return;
    }
    const joining = part === 'none' || part === 'invited';
    const words = room.archived ? 'This room is archived: it can be read, and nothing is added to it.'
      : part === 'muted' ? 'You are muted here: you can read, and say nothing.'
      : part === 'banned' ? 'You are banned from this room.'
      : part === 'invited' ? 'You are invited to this room.'
      : 'You are reading this room without being in it.';
    const button = () => joining && !room.archived && h('button', { class: 'primary', onclick: () => this.#join(room.room) }, 'Join');
    refill(this.#foot, [room.room, words, this.#problem], () => [problem(), h('div', { class: 'notice-bar' }, h('p', {}, words), button())]);
  }

  /** @param {string} room */
  async #join(room) {
    await this.#attempt(() => join(room, this.#ids.mint(Date.now())), room);
    if (this.#mayPost(this.#rooms.get(room) ?? /** @type {any} */ ({ room: {}, part: 'none' }))) this.#composer.focus();
  }

  /** @param {string} room */
  async #leave(room) {
    if (!confirm('Leave this room?')) return;
    await this.#attempt(() => leave(room, this.#ids.mint(Date.now())), room);
  }

  /** @param {() => Promise<unknown>} work @param {string} room */
  async #attempt(work, room) {
    this.#problem = '';
    try {
      await work();
    } catch (error) {
      this.#problem = error instanceof ApiError ? error.message : 'Something went wrong.';
    }
    await this.#rooms.refresh(room);
    this.#drawNow();
  }
}
