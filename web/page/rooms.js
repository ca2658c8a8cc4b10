// The rooms that the user sees, and what this page has of each.

import { ApiError, older, room as fetchRoom, rooms as fetchRooms } from '../client/api.js';
import { countFrom } from '../client/marks.js';
import { RoomLog, isMessage } from '../client/roomlog.js';

/** @import { Marks } from '../client/marks.js' */
/** @import { Event, Failure, Room } from '../client/types.js' */
/** @import { Session } from '../client/session.js' */

/** How many rooms are asked for at once. */
const AT_ONCE = 6;
/** In how many rooms it is looked up whether the user is in them: there is no list of those yet. */
const LOOKED_UP_MAX = 200;
/** Events of a page of history. */
const PAGE = 60;
/** Events that are kept of a room that is not looked at. */
const KEPT = 500;

/**
 * What the user is in a room: a participant, of some role, invited, or nothing.
 * @typedef {'owner' | 'moderator' | 'member' | 'muted' | 'banned' | 'invited' | 'none'} Part
 */

/**
 * @typedef {object} Entry
 * @property {Room} room
 * @property {Part} part
 * @property {RoomLog} log
 * @property {boolean} many There is more that is new than was counted.
 * @property {number | null} newAfter After which seq events were new when the room was looked at.
 * @property {boolean} loading
 * @property {string} problem Why history could not be read.
 */

/** Whether somebody is in a room. @param {Part} part */
export const isIn = (part) => part === 'owner' || part === 'moderator' || part === 'member' || part === 'muted';

export class Rooms {
  /** @type {Map<string, Entry>} */
  entries = new Map();
  loaded = false;
  #me;
  #marks;
  /** @type {Session} */
  #session;
  #onChange;
  /** @type {Map<string, ReturnType<typeof setTimeout>>} */
  #refreshing = new Map();

  /**
   * @param {{ me: string, marks: Marks, session: Session, onChange: (room: string | null) => void }} options
   *   `onChange`: of a room, or of the list.
   */
  constructor({ me, marks, session, onChange }) {
    this.#me = me;
    this.#marks = marks;
    this.#session = session;
    this.#onChange = onChange;
  }

  /** @param {string} room */
  get(room) {
    return this.entries.get(room);
  }

  /** Reads the list, and takes in what is new in it. */
  async load() {
    // What is made while the list is on its way is not in it, and is there all the same.
    const before = [...this.entries.keys()];
    const listed = await fetchRooms();
    const known = new Set(listed.map(({ room }) => room));
    for (const room of before) if (!known.has(room)) this.#drop(room);
    const added = listed.filter(({ room }) => !this.entries.has(room)).slice(0, LOOKED_UP_MAX);
    const takeNext = async () => {
      for (let next = added.shift(); next; next = added.shift()) await this.refresh(next.room);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, takeNext));
    for (const room of listed) if (!this.entries.has(room.room)) this.#take(room, 'none');
    this.loaded = true;
    this.#onChange(null);
  }

  /** Reads one room again, soon: several reasons to do so make one read. @param {string} room */
  refreshSoon(room) {
    clearTimeout(this.#refreshing.get(room));
    this.#refreshing.set(room, setTimeout(() => this.refresh(room).catch(() => {}), 200));
  }

  /** Reads one room again. @param {string} room */
  async refresh(room) {
    try {
      const read = await fetchRoom(room);
      const own = read.participants?.find(({ user }) => user === this.#me);
      this.#take(read, /** @type {Part} */ (own?.invited ? 'invited' : (own?.role ?? 'none')));
    } catch (error) {
      // Gone, or not to be known of any more. What fails for a while is read with the next list.
      if (!(error instanceof ApiError) || error.failure.temporary) return;
      this.#drop(room);
    }
    this.#onChange(room);
  }

  /** @param {Room} room @param {Part} part */
  #take(room, part) {
    const entry = this.entries.get(room.room);
    if (entry) {
      const was = isIn(entry.part);
      Object.assign(entry, { room, part });
      if (isIn(part) && !was) this.follow(room.room);
      return;
    }
    const { from, many } = countFrom(isIn(part) ? this.#marks.get(room.room) : null, room);
    const log = new RoomLog(room.epoch, from);
    log.firstSeq = Math.max(1, room.first_seq);
    this.entries.set(room.room, { room, part, log, many, newAfter: null, loading: false, problem: '' });
    // Where this browser has never looked, everything counts as seen, from now on.
    if (isIn(part) && !this.#marks.get(room.room)) this.#marks.set(room.room, { epoch: room.epoch, seq: room.head });
    if (isIn(part)) this.follow(room.room);
  }

  /** @param {string} room */
  #drop(room) {
    if (!this.entries.delete(room)) return;
    this.#session.unfollow(room);
    this.#onChange(null);
  }

  /** @param {string} room */
  follow(room) {
    this.#session.follow(room, () => this.entries.get(room)?.log.cursor ?? null);
  }

  /** @param {string} room @param {{ epoch: string, firstSeq: number, head: number, recovered: boolean }} followed */
  followed(room, { epoch, firstSeq, head, recovered }) {
    const entry = this.entries.get(room);
    if (!entry) return;
    if (recovered && epoch === entry.log.epoch) return;
    // What is here is of no use: begin at the head, and read what is wanted of its history again.
    entry.log = new RoomLog(epoch, head);
    entry.log.firstSeq = Math.max(1, firstSeq);
    entry.many = false;
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
      entry.room.head = Math.max(entry.room.head, event.seq);
      if (['join', 'leave', 'role', 'topic', 'archive', 'invite', 'trim'].includes(event.kind)) this.refreshSoon(room);
    }
    return taken;
  }

  /** @param {string} room @param {Failure} error */
  ended(room, error) {
    const entry = this.entries.get(room);
    if (!entry) return;
    if (error.code !== 'invalid_cursor') {
      this.refreshSoon(room);
      return;
    }
    this.entries.delete(room);
    this.refreshSoon(room);
  }

  /** Forgets what is not needed of a room that nobody looks at. @param {string} room */
  rest(room) {
    const entry = this.entries.get(room);
    if (!entry) return;
    entry.log.trim(KEPT);
    if (!isIn(entry.part)) this.#session.unfollow(room);
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
      if (entry.log === log && !log.prepend(page)) this.#session.refollow(room);
    } catch (error) {
      entry.problem = error instanceof ApiError ? error.message : 'Something went wrong.';
    }
    entry.loading = false;
    this.#onChange(room);
  }

  /** Messages of others since this browser last looked. @param {Entry} entry */
  unread({ room, part, log, many }) {
    const mark = this.#marks.get(room.room);
    if (!isIn(part) || !mark) return { count: 0, many: false, mentioned: false };
    const fresh = log.events.filter((event) => event.seq > mark.seq && event.sender !== this.#me && isMessage(event));
    return { count: fresh.length, many, mentioned: fresh.some(({ mentions }) => mentions?.includes(this.#me)) };
  }

  /** All of a room is seen now. @param {Entry} entry */
  see(entry) {
    entry.many = false;
    if (isIn(entry.part)) this.#marks.set(entry.room.room, { epoch: entry.log.epoch, seq: entry.log.last });
  }

  /** Where what is new begins, before it is seen. @param {Entry} entry */
  noteNew(entry) {
    const { count, many } = this.unread(entry);
    if (count > 0 || many) entry.newAfter = this.#marks.get(entry.room.room)?.seq ?? null;
  }
}
