// The rooms that the user sees, and what this page has of each.

import { ApiError, older, ownRooms, room as fetchRoom, rooms as fetchRooms } from '../client/api.js';
import { People } from '../client/people.js';
import { RoomLog, isMessage } from '../client/roomlog.js';

/** @import { Event, Failure, Participant, Room, Unread } from '../client/types.js' */
/** @import { Session } from '../client/session.js' */

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
 * @property {People} people Who is there.
 * @property {number} read Up to where the user has read it, on any device.
 * @property {Unread & { head: number }} counted What the server has counted above that, up to `head`.
 * @property {number} refreshed When it was read by itself: a list that was asked for before knows less.
 * @property {number | null} newAfter After which seq events were new when the room was looked at.
 * @property {boolean} loading
 * @property {string} problem Why history could not be read.
 */

/** Whether somebody is in a room. @param {Part} part */
export const isIn = (part) => part === 'owner' || part === 'moderator' || part === 'member' || part === 'muted';

/** @param {Participant} participant @returns {Part} */
const partOf = ({ invited, role }) => (invited ? 'invited' : /** @type {Part} */ (role));

export class Rooms {
  /** @type {Map<string, Entry>} */
  entries = new Map();
  loaded = false;
  #me;
  /** @type {Session} */
  #session;
  #onChange;
  /** Counts what was asked for. */
  #asked = 0;
  /** @type {Map<string, ReturnType<typeof setTimeout>>} */
  #refreshing = new Map();

  /**
   * @param {{ me: string, session: Session, onChange: (room: string | null) => void }} options
   *   `onChange`: of a room, or of the list.
   */
  constructor({ me, session, onChange }) {
    this.#me = me;
    this.#session = session;
    this.#onChange = onChange;
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

  /** Takes what the server has counted, unless the user has read on since. @param {string} room @param {number} read @param {Entry['counted']} counted */
  #count(room, read, counted) {
    const entry = this.entries.get(room);
    if (!entry || read < entry.read) return;
    entry.read = read;
    entry.counted = counted;
  }

  /** Reads one room again, soon: several reasons to do so make one read. @param {string} room */
  refreshSoon(room) {
    clearTimeout(this.#refreshing.get(room));
    this.#refreshing.set(room, setTimeout(() => this.refresh(room).catch(() => {}), 200));
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
        return;
      }
      this.#take(read, own ? partOf(own) : 'none', own?.read ?? 0);
      const entry = this.entries.get(room);
      if (entry) entry.refreshed = asked;
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
      Object.assign(entry, { room, part });
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

  /** Messages of others that the user has not read. @param {Entry} entry */
  unread({ part, log, read, counted }) {
    if (!isIn(part)) return { count: 0, many: false, mentioned: false };
    const known = read < counted.head ? counted : { messages: 0, mentions: 0, more: false };
    const from = Math.max(read, counted.head);
    const fresh = log.events.filter((event) => event.seq > from && event.sender !== this.#me && isMessage(event) && !event.redacted);
    return {
      count: known.messages + fresh.length,
      many: known.more,
      mentioned: known.mentions > 0 || fresh.some(({ mentions }) => mentions?.includes(this.#me)),
    };
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
