// What was written and is not acknowledged yet. Kept in the browser's storage, one row for each
// message, so that it outlives a reload; two tabs of a browser may send the same row, which is there
// once all the same, since its id is the same.
//
// Invariants:
// - A message is forgotten only once it was acknowledged, seen in its room, or given up by its writer.
// - Its id never changes while an attempt with it might have been, or be, applied.
// - Of one room, one message at a time is in flight, the oldest: what was written first is there first.

import { Ids } from './uuid.js';
import { pause } from './backoff.js';

/** @import { Ack, Event, Failure, Timers } from './types.js' */

/**
 * A message on its way.
 * - `sending`: it waits for a connection, or for an answer.
 * - `sent`: acknowledged with `seq`, and not seen in the room yet.
 * - `failed`: refused with `error`; whoever wrote it may try again or discard it.
 * @typedef {object} Draft
 * @property {string} id The `client_msg_id`.
 * @property {string} room
 * @property {string} text
 * @property {number} [replyTo]
 * @property {number} at When it was written.
 * @property {'sending' | 'sent' | 'failed'} state
 * @property {number} [seq]
 * @property {Failure} [error]
 */

/**
 * Sends a post over the connection that there is.
 * @typedef {(draft: Draft) => void} Send
 */

/** @typedef {Pick<Storage, 'length' | 'key' | 'getItem' | 'setItem' | 'removeItem'>} Rows */

/**
 * @typedef {object} Options
 * @property {string} user Whose messages these are: others of this browser have their own.
 * @property {Rows} storage
 * @property {Timers} timers
 * @property {() => number} random
 * @property {(room: string) => void} onChange What is on its way to a room has changed.
 */

/** Codes after which this id is of no use any more, and its attempts were certainly refused or are over. */
const SPENT = new Set(['expired', 'id_reused']);

/** @param {string} user */
const prefixOf = (user) => `folkmoot.outbox.${user}.`;

/**
 * The keys of a user's rows, all tabs' among them, as they were minted.
 * @param {Rows} storage
 * @param {string} prefix
 */
const keysOf = (storage, prefix) => {
  const found = [];
  for (let i = 0; i < storage.length; i++) {
    const key = storage.key(i);
    // No id has a point in it: what has one is of a user whose name begins as this one's.
    if (key?.startsWith(prefix) && !key.includes('.', prefix.length)) found.push(key);
  }
  return found.sort();
};

/**
 * Leaves nothing on this machine of what a user has not sent, whichever tab it is of.
 * @param {Rows} storage
 * @param {string} user
 */
export const forget = (storage, user) => {
  for (const key of keysOf(storage, prefixOf(user))) storage.removeItem(key);
};

export class Outbox {
  /** @type {Options} */
  #options;
  #prefix;
  #ids = new Ids();
  /** How far the server's clock is ahead of this machine's. */
  #aheadMs = 0;
  /** @type {Map<string, Draft>} In the order in which they were written. */
  #drafts = new Map();
  /** @type {Map<string, string>} Of each room, the id that is in flight on this connection. */
  #inFlight = new Map();
  /** @type {Map<string, unknown>} Of each room that waits before another attempt, the timer. */
  #paused = new Map();
  /** @type {Map<string, number>} Of each room, how many temporary errors came in a row. */
  #tries = new Map();
  /** @type {Send | null} */
  #send = null;

  /** @param {Options} options */
  constructor(options) {
    this.#options = options;
    this.#prefix = prefixOf(options.user);
    for (const draft of this.#rows()) this.#drafts.set(draft.id, draft);
  }

  /** The messages of these rows. */
  #rows() {
    return keysOf(this.#options.storage, this.#prefix).flatMap((key) => {
      const draft = parse(this.#options.storage.getItem(key));
      return draft && key === this.#prefix + draft.id ? [draft] : [];
    });
  }

  /** @param {Draft} draft */
  #keep(draft) {
    try {
      this.#options.storage.setItem(this.#prefix + draft.id, JSON.stringify(draft));
    } catch {
      // Storage is full or forbidden: it is sent all the same, and does not outlive a reload.
    }
  }

  /** @param {Draft} draft */
  #forget(draft) {
    this.#drafts.delete(draft.id);
    this.#options.storage.removeItem(this.#prefix + draft.id);
  }

  /**
   * What is on its way to a room, the oldest first.
   * @param {string} room
   * @returns {Draft[]}
   */
  of(room) {
    return [...this.#drafts.values()].filter((draft) => draft.room === room);
  }

  /** How many messages are not acknowledged, of all tabs. */
  get size() {
    const here = [...this.#drafts.values()].filter(({ state }) => state !== 'sent');
    return new Set([...here, ...this.#rows()].map(({ id }) => id)).size;
  }

  /** Gives everything up, and leaves nothing of it on this machine, whichever tab it is of: its writer signs out. */
  clear() {
    this.#drafts.clear();
    forget(this.#options.storage, this.#options.user);
  }

  /**
   * Takes a message, and sends it when there is a connection.
   * @param {string} room
   * @param {string} text
   * @param {number} [replyTo]
   */
  post(room, text, replyTo) {
    const at = this.#options.timers.now() + this.#aheadMs;
    /** @type {Draft} */
    const draft = { id: this.#ids.mint(at), room, text, at, state: 'sending' };
    if (replyTo !== undefined) draft.replyTo = replyTo;
    this.#drafts.set(draft.id, draft);
    this.#keep(draft);
    this.#options.onChange(room);
    this.#pump(room);
  }

  /**
   * Tries a message again that was refused.
   * @param {string} id
   */
  retry(id) {
    const draft = this.#drafts.get(id);
    if (draft?.state !== 'failed') return;
    const spent = SPENT.has(draft.error?.code ?? '');
    draft.state = 'sending';
    delete draft.error;
    if (spent) this.#mintAnew(draft);
    else this.#keep(draft);
    this.#options.onChange(draft.room);
    this.#pump(draft.room);
  }

  /**
   * Gives a message up that was refused.
   * @param {string} id
   */
  discard(id) {
    const draft = this.#drafts.get(id);
    if (draft?.state !== 'failed') return;
    this.#forget(draft);
    this.#options.onChange(draft.room);
  }

  /**
   * Gives a message another id, in its place among the others.
   * @param {Draft} draft
   */
  #mintAnew(draft) {
    this.#options.storage.removeItem(this.#prefix + draft.id);
    draft.id = this.#ids.mint(this.#options.timers.now() + this.#aheadMs);
    this.#drafts = new Map([...this.#drafts.values()].map((each) => [each.id, each]));
    this.#keep(draft);
  }

  /**
   * There is a connection: everything that was not answered is sent again.
   * @param {Send} send
   * @param {number} [serverTimeMs]
   */
  connected(send, serverTimeMs) {
    if (serverTimeMs !== undefined) this.#aheadMs = serverTimeMs - this.#options.timers.now();
    this.#send = send;
    for (const timer of this.#paused.values()) this.#options.timers.cancel(timer);
    this.#paused.clear();
    for (const room of new Set([...this.#drafts.values()].map((draft) => draft.room))) this.#pump(room);
  }

  /** The connection is gone, and what was in flight has no answer. */
  disconnected() {
    this.#send = null;
    this.#inFlight.clear();
  }

  /** @param {string} room */
  #pump(room) {
    if (!this.#send || this.#inFlight.has(room) || this.#paused.has(room)) return;
    const next = this.of(room).find((draft) => draft.state === 'sending');
    if (!next) return;
    this.#inFlight.set(room, next.id);
    this.#send(next);
  }

  /**
   * @param {string} id
   * @param {Ack} ack
   */
  acknowledged(id, ack) {
    const draft = this.#drafts.get(id);
    if (!draft) return;
    this.#options.storage.removeItem(this.#prefix + id);
    draft.state = 'sent';
    draft.seq = ack.seq;
    this.#next(draft);
  }

  /**
   * An event of this user's own was seen: nothing of it is on its way any more, whether its answer
   * has come or not.
   * @param {string} room
   * @param {Event} event
   */
  seen(room, event) {
    const draft = this.#drafts.get(event.client_msg_id);
    if (!draft || draft.room !== room || event.sender !== this.#options.user) return;
    this.#forget(draft);
    this.#next(draft);
  }

  /**
   * Drops what was acknowledged with a seq that the room's log has, however it got there: after a reload,
   * say, it may begin behind a message whose answer comes later.
   * @param {string} room
   * @param {number} last
   */
  shown(room, last) {
    for (const draft of this.of(room)) {
      if (draft.state === 'sent' && (draft.seq ?? 0) <= last) this.#forget(draft);
    }
  }

  /** @param {Draft} draft One that needs no answer any more. */
  #next(draft) {
    if (this.#inFlight.get(draft.room) === draft.id) this.#inFlight.delete(draft.room);
    this.#resume(draft.room);
    this.#options.onChange(draft.room);
    this.#pump(draft.room);
  }

  /** @param {string} room */
  #resume(room) {
    if (this.#paused.has(room)) this.#options.timers.cancel(this.#paused.get(room));
    this.#paused.delete(room);
    this.#tries.delete(room);
  }

  /**
   * @param {string} id
   * @param {Failure} error
   */
  refused(id, error) {
    const draft = this.#drafts.get(id);
    if (draft?.state !== 'sending') return;
    const { room } = draft;
    if (this.#inFlight.get(room) === id) this.#inFlight.delete(room);
    if (error.code === 'clock_skew' && error.server_time_ms !== undefined) {
      // Refused for its time, and so was each earlier attempt with it: it was even further ahead.
      const { timers } = this.#options;
      const ahead = error.server_time_ms - timers.now();
      const corrected = Math.abs(ahead - this.#aheadMs) > 1000;
      this.#aheadMs = ahead;
      if (corrected) {
        this.#ids = new Ids();
        this.#mintAnew(draft);
        this.#pump(room);
        return;
      }
    }
    if (error.temporary) {
      this.#pauseRoom(room, error);
      return;
    }
    draft.state = 'failed';
    draft.error = error;
    this.#keep(draft);
    this.#options.onChange(room);
    this.#pump(room);
  }

  /**
   * @param {string} room
   * @param {Failure} error
   */
  #pauseRoom(room, error) {
    const { timers, random } = this.#options;
    const tries = this.#tries.get(room) ?? 0;
    this.#tries.set(room, tries + 1);
    const ms = Math.max(error.retry_after_ms ?? 0, pause(tries, random));
    const timer = timers.after(() => {
      this.#paused.delete(room);
      this.#pump(room);
    }, ms);
    this.#paused.set(room, timer);
  }
}

/**
 * A row, unless it is none of ours.
 * @param {string | null} row
 * @returns {Draft | null}
 */
const parse = (row) => {
  try {
    const draft = JSON.parse(row ?? 'null');
    const whole = ['id', 'room', 'text'].every((field) => typeof draft?.[field] === 'string');
    if (!whole || typeof draft.at !== 'number') return null;
    return { ...draft, state: draft.state === 'failed' ? 'failed' : 'sending' };
  } catch {
    return null;
  }
};
