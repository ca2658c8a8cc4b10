// The rooms that the user sees, and what this page has of each.

import { ApiError, older, ownRooms, room as fetchRoom, rooms as fetchRooms } from '../client/api.js';
import { pause } from '../client/backoff.js';
import { People } from '../client/people.js';
import { RoomLog, isMessage } from '../client/roomlog.js';

/** @import { Event, Failure, Participant, Room, Timers, Unread } from '../client/types.js' */
/** @import { Session } from '../client/session.js' */

/** Events of a page of history. */
const PAGE = 60;
/** Events that are kept of a room that is not looked at; those of one that is followed are at most twice as many. */
export const KEPT = 500;
/** How soon a room is read again. */
const SOON_MS = 200;
/** How often in a row a room may end by itself before it is followed again with each list, and no sooner. */
const ENDS_MAX = 6;

/**
 * What the user is in a room: a participant, of some role, invited, or nothing.
 * @typedef {'owner' | 'moderator' | 'member' | 'muted' | 'banned' | 'invited' | 'none'} Part
 */

/**
 * @typedef {object} Entry
 * @property {Room} room As of its `head`.
 * @property {Part} part
 * @property {RoomLog} log
 * @property {People} people Who is there.
 * @property {number} read Up to where the user has read it, on any device.
 * @property {Unread & { head: number }} counted What the server has counted above that, up to `head`.
 * @property {number} refreshed When it was read by itself: a list that was asked for before knows less.
 * @property {number | null} newAfter After which seq events were new when the room was looked at.
 * @property {boolean} loading
 * @property {string} problem Why history could not be read.
 */

/**
 * What is not read of a room; `many`: there is more than was counted.
 * @typedef {{ count: number, many: boolean, mentioned: boolean }} Fresh
 */

/** Whether somebody is in a room. @param {Part} part */
export const isIn = (part) => part === 'owner' || part === 'moderator' || part === 'member' || part === 'muted';

/** @param {Participant} participant @returns {Part} */
const partOf = ({ invited, role }) => (invited ? 'invited' : /** @type {Part} */ (role));

/** Events by which somebody comes, goes, or is something else than before. */
const ABOUT_PEOPLE = new Set(['join', 'leave', 'invite', 'role']);

/**
 * By how much an event changes how many are in a room. Whether somebody was in it, the log may be too
 * short to say; then they are taken to have been, until the next list says how many there are.
 * @param {RoomLog} log
 * @param {Event} event
 */
const change = (log, { seq, kind, sender, subject, role, withdrawn }) => {
  if (kind === 'join') return 1;
  if (kind !== 'leave' && (kind !== 'role' || role !== 'banned' || withdrawn)) return 0;
  const who = subject ?? sender;
  const decides = (/** @type {Event} */ event) => event.kind !== 'role' || event.role === 'banned';
  const before = log.events.findLast((event) => event.seq < seq && decides(event) && (event.subject ?? event.sender) === who);
  // Who was invited declines, and who had left is banned, without having been in it.
  const wasOut = before && (before.kind === 'leave' || before.kind === 'invite' || before.role === 'banned');
  return wasOut ? 0 : -1;
};

/**
 * Messages of others, and how many of them mention the user as they were first said, as the server counts.
 * @param {Event[]} events
 * @param {string} me
 */
const countOf = (events, me) => {
  const messages = events.filter((event) => event.sender !== me && isMessage(event) && !event.redacted);
  const mentions = messages.filter(({ mentions, first_mentions }) => (first_mentions ?? mentions)?.includes(me));
  return { messages: messages.length, mentions: mentions.length };
};

export class Rooms {
  /** @type {Map<string, Entry>} */
  entries = new Map();
  loaded = false;
  #me;
  /** @type {Session} */
  #session;
  #timers;
  #random;
  #onChange;
  #onOlder;
  #mayForget;
  /** Counts what was asked for. */
  #asked = 0;
  /** @type {Map<string, unknown>} */
  #refreshing = new Map();
  /** How often in a row a room has ended by itself. @type {Map<string, number>} */
  #ends = new Map();
  /** What is not read of a room, as long as it is made of the same. @type {WeakMap<Entry, { of: unknown[], unread: Fresh }>} */
  #unread = new WeakMap();

  /**
   * @param {object} options
   * @param {string} options.me
   * @param {Session} options.session
   * @param {Timers} options.timers
   * @param {() => number} options.random
   * @param {(room: string | null) => void} options.onChange Of a room, or of the list.
   * @param {(room: string, events: Event[]) => void} options.onOlder A page of a room's history has come.
   * @param {(room: string) => boolean} options.mayForget Whether a room's oldest events are out of sight.
   */
  constructor({ me, session, timers, random, onChange, onOlder, mayForget }) {
    this.#me = me;
    this.#session = session;
    this.#timers = timers;
    this.#random = random;
    this.#onChange = onChange;
    this.#onOlder = onOlder;
    this.#mayForget = mayForget;
  }

  /** @param {string} room */
  get(room) {
    return this.entries.get(room);
  }

  /** Reads the list, and takes in what is new in it. */
  async load() {
    const asked = ++this.#asked;
    // What is made while the list is on its way is not in it, and is there all the same.
    const before = [...this.entries.keys()];
    const [own, listed] = await Promise.all([ownRooms(), fetchRooms()]);
    const known = new Set([...own, ...listed].map(({ room }) => room));
    for (const room of before) if (!known.has(room) && !this.#isNewer(room, asked)) this.#drop(room);
    for (const { own: part, unread, ...room } of own) {
      if (this.#isNewer(room.room, asked)) continue;
      this.#take(room, partOf(part), part.read);
      this.#count(room.room, part.read, { ...unread, head: room.head });
      if (this.#ends.has(room.room)) this.#goOn(room.room);
      known.delete(room.room);
    }
    for (const room of listed) {
      if (known.has(room.room) && !this.#isNewer(room.room, asked)) this.#take(room, 'none', 0);
    }
    this.loaded = true;
    this.#onChange(null);
  }

  /** Whether a room was read by itself since a list was asked for. @param {string} room @param {number} asked */
  #isNewer(room, asked) {
    return (this.entries.get(room)?.refreshed ?? 0) > asked;
  }

  /**
   * Takes what the server has counted, unless the user has read on since, or this page has counted further
   * and has not kept what it counted.
   * @param {string} room
   * @param {number} read
   * @param {Entry['counted']} counted
   */
  #count(room, read, counted) {
    const entry = this.entries.get(room);
    if (!entry || read < entry.read || counted.head < entry.log.base) return;
    entry.read = read;
    entry.counted = counted;
  }

  /** Reads one room again, soon: several reasons to do so make one read. @param {string} room */
  #refreshSoon(room, ms = SOON_MS) {
    this.#timers.cancel(this.#refreshing.get(room));
    this.#refreshing.set(room, this.#timers.after(() => this.refresh(room).catch(() => {}), ms));
  }

  /** Reads one room again. @param {string} room */
  async refresh(room) {
    const asked = ++this.#asked;
    try {
      const read = await fetchRoom(room);
      const shown = read.participants ?? [];
      const own = shown.find(({ user }) => user === this.#me);
      if (!own && shown.length < read.participant_count) {
        await this.load(); // not all of them are shown
        this.#goOn(room);
        return;
      }
      this.#take(read, own ? partOf(own) : 'none', own?.read ?? 0);
      const entry = this.entries.get(room);
      if (entry) entry.refreshed = asked;
      this.#goOn(room);
    } catch (error) {
      // Gone, or not to be known of any more. What fails for a while is read with the next list.
      if (!(error instanceof ApiError) || error.failure.temporary) return;
      this.#drop(room);
    }
    this.#onChange(room);
  }

  /** @param {Room} room @param {Part} part @param {number} read */
  #take(room, part, read) {
    const entry = this.entries.get(room.room);
    if (entry) {
      const was = isIn(entry.part);
      // An answer that was on its way while an event changed the room knows less of it.
      const knowsLess = room.epoch === entry.room.epoch && room.head < entry.room.head;
      Object.assign(entry, knowsLess ? { part } : { room, part });
      if (isIn(part) && !was) this.#begin(entry, read);
      return;
    }
    const log = new RoomLog(room.epoch, room.head);
    log.firstSeq = Math.max(1, room.first_seq);
    const counted = { messages: 0, mentions: 0, more: false, head: room.head };
    const added = { room, part, log, people: new People(), read, counted, refreshed: 0, newAfter: null, loading: false, problem: '' };
    this.entries.set(room.room, added);
    if (isIn(part)) this.#begin(added, read);
  }

  /** The user is in a room now. @param {Entry} entry @param {number} read */
  #begin(entry, read) {
    entry.read = read;
    this.follow(entry.room.room);
  }

  /** @param {string} room */
  #drop(room) {
    if (!this.entries.delete(room)) return;
    this.#ends.delete(room);
    this.#session.unfollow(room);
    this.#onChange(null);
  }

  /** @param {string} room */
  follow(room) {
    this.#session.follow(room, () => this.entries.get(room)?.log.cursor ?? null);
  }

  /** Follows a room of the user's again, where that has ended. @param {string} room */
  #goOn(room) {
    if (isIn(this.entries.get(room)?.part ?? 'none')) this.open(room);
  }

  /** A room is looked at: it is followed, also by who is not in it. @param {string} room */
  open(room) {
    if (!this.#session.follows(room)) this.follow(room);
  }

  /** @param {string} room @param {{ epoch: string, firstSeq: number, head: number, recovered: boolean }} followed */
  followed(room, { epoch, firstSeq, head, recovered }) {
    const entry = this.entries.get(room);
    if (!entry) return;
    this.#ends.delete(room);
    entry.people.reset();
    if (recovered && epoch === entry.log.epoch) return;
    // What is here is of no use: begin at the head, and read what is wanted of its history again.
    entry.log = new RoomLog(epoch, head);
    entry.log.firstSeq = Math.max(1, firstSeq);
    // How many of what was missed is new, the next list says.
    entry.counted = { messages: 0, mentions: 0, more: head > entry.read, head };
    entry.newAfter = null;
    this.#session.refollow(room);
    this.#onChange(room);
  }

  /** @param {string} room @param {Event} event @returns {'new' | 'known' | 'gap'} */
  take(room, event) {
    const entry = this.entries.get(room);
    if (!entry) return 'known';
    const taken = entry.log.add(event);
    if (taken === 'gap') this.#session.refollow(room);
    if (taken === 'new') {
      this.#happened(entry, event);
      if (entry.log.events.length > 2 * KEPT && !entry.loading && this.#mayForget(room)) this.#trim(entry);
    }
    return taken;
  }

  /**
   * An event has changed a room, or what the user is in it. Only they read it again: everybody who follows
   * a room sees its events at the same moment.
   * @param {Entry} entry
   * @param {Event} event
   */
  #happened({ room, log }, event) {
    const { seq, kind, sender, subject, text, withdrawn } = event;
    if (ABOUT_PEOPLE.has(kind) && (subject ?? sender) === this.#me) this.#refreshSoon(room.room);
    if (room.epoch === log.epoch && seq <= room.head) return; // it was read since
    const by = change(log, event);
    if (kind === 'topic') room.topic = text;
    else if (kind === 'archive') room.archived = !withdrawn;
    else if (by !== 0) room.participant_count = Math.max(0, room.participant_count + by);
    else return;
    room.head = seq;
  }

  /** @param {string} room @param {Failure} error */
  ended(room, error) {
    if (!this.entries.has(room)) return;
    if (error.code === 'limit_reached') return; // as many are followed as may be
    if (error.code === 'invalid_cursor') this.entries.delete(room);
    const ends = this.#ends.get(room) ?? 0;
    this.#ends.set(room, ends + 1);
    if (ends >= ENDS_MAX) return;
    this.#refreshSoon(room, ends === 0 ? SOON_MS : pause(ends, this.#random));
  }

  /** Forgets what is not needed of a room that nobody looks at. @param {string} room */
  rest(room) {
    const entry = this.entries.get(room);
    if (!entry) return;
    this.#trim(entry);
    if (!isIn(entry.part)) this.#session.unfollow(room);
  }

  /** Forgets all but the newest events. What was not read of them stays counted. @param {Entry} entry */
  #trim(entry) {
    const { log, read, counted } = entry;
    const base = log.last - KEPT;
    if (base <= log.base) return;
    if (base > counted.head) {
      const known = read < counted.head ? counted : { messages: 0, mentions: 0, more: false };
      const gone = countOf(log.events.filter(({ seq }) => seq > Math.max(read, counted.head) && seq <= base), this.#me);
      entry.counted = { messages: known.messages + gone.messages, mentions: known.mentions + gone.mentions, more: known.more, head: base };
    }
    log.trim(KEPT);
  }

  /** Reads a page of what is older. @param {string} room */
  async loadOlder(room) {
    const entry = this.entries.get(room);
    if (!entry || entry.loading || !entry.log.hasOlder) return;
    const { log } = entry;
    entry.loading = true;
    entry.problem = '';
    this.#onChange(room);
    try {
      const page = await older(room, `${log.epoch}:${log.base + 1}`, PAGE);
      if (entry.log === log) {
        if (log.prepend(page)) this.#onOlder(room, page.events);
        else this.#session.refollow(room);
      }
    } catch (error) {
      entry.problem = error instanceof ApiError ? error.message : 'Something went wrong.';
    }
    entry.loading = false;
    this.#onChange(room);
  }

  /** Messages of others that the user has not read. @param {Entry} entry @returns {Fresh} */
  unread(entry) {
    const { part, log, read, counted } = entry;
    if (!isIn(part)) return { count: 0, many: false, mentioned: false };
    const of = [log, log.version, read, counted];
    const known = this.#unread.get(entry);
    // It is asked for of each room each time that the page is drawn.
    if (known?.of.every((part, i) => part === of[i])) return known.unread;
    const before = read < counted.head ? counted : { messages: 0, mentions: 0, more: false };
    const since = countOf(log.events.slice(Math.max(0, Math.max(read, counted.head) - log.base)), this.#me);
    const unread = { count: before.messages + since.messages, many: before.more, mentioned: before.mentions + since.mentions > 0 };
    this.#unread.set(entry, { of, unread });
    return unread;
  }

  /** All of a room is read now. @param {Entry} entry */
  see(entry) {
    const { last } = entry.log;
    if (!isIn(entry.part) || last <= entry.read) return;
    entry.read = last;
    this.#session.markRead(entry.room.room, last);
  }

  /** Where what is new begins, before it is read. @param {Entry} entry */
  noteNew(entry) {
    const { count, many } = this.unread(entry);
    if (count > 0 || many) entry.newAfter = entry.read;
  }
}
