// How far the user has read, on its way to the server: one mark a room, which only moves on.
//
// A mark is sent at once, and what follows it within a second goes as one more: reading along costs the
// cluster one write a second at most. What was not acknowledged is sent again on the next connection.

/** @import { Failure, Timers } from './types.js' */

/** How long after an answer the next mark of the same room goes. */
export const PAUSE_MS = 1000;

/**
 * @typedef {object} Mark
 * @property {number} seq Where it is to be.
 * @property {number} sent Where the last one that was sent is; 0 on a new connection.
 * @property {boolean} owed That one is not answered yet.
 * @property {unknown} timer
 */

export class Marks {
  /** @type {Map<string, Mark>} */
  #marks = new Map();
  #timers;
  /** @type {((room: string, seq: number) => void) | null} */
  #send = null;

  /** @param {Timers} timers */
  constructor(timers) {
    this.#timers = timers;
  }

  /** @param {string} room @param {number} seq */
  move(room, seq) {
    const mark = this.#marks.get(room);
    if (mark) {
      mark.seq = Math.max(mark.seq, seq);
      return;
    }
    this.#marks.set(room, { seq, sent: 0, owed: false, timer: null });
    this.#go(room);
  }

  /** There is a connection. @param {(room: string, seq: number) => void} send */
  connected(send) {
    this.#send = send;
    for (const room of this.#marks.keys()) this.#go(room);
  }

  disconnected() {
    this.#send = null;
    for (const [room, mark] of this.#marks) {
      this.#timers.cancel(mark.timer);
      if (!mark.owed && mark.sent >= mark.seq) this.#marks.delete(room);
      Object.assign(mark, { sent: 0, owed: false, timer: null });
    }
  }

  /** The mark that was sent is where it was to be. @param {string} room */
  acknowledged(room) {
    const mark = this.#marks.get(room);
    if (mark) this.#pause(room, mark, PAUSE_MS);
  }

  /** @param {string} room @param {Failure} error */
  refused(room, error) {
    const mark = this.#marks.get(room);
    if (!mark) return;
    // Out of the room, say: there is nothing to be marked.
    if (!error.temporary) {
      this.#marks.delete(room);
      return;
    }
    mark.sent = 0;
    this.#pause(room, mark, Math.max(error.retry_after_ms ?? 0, PAUSE_MS));
  }

  /** @param {string} room @param {Mark} mark @param {number} ms */
  #pause(room, mark, ms) {
    mark.owed = false;
    mark.timer = this.#timers.after(() => {
      mark.timer = null;
      if (mark.seq > mark.sent) this.#go(room);
      else this.#marks.delete(room);
    }, ms);
  }

  /** @param {string} room */
  #go(room) {
    const mark = this.#marks.get(room);
    if (!mark || !this.#send) return;
    mark.sent = mark.seq;
    mark.owed = true;
    this.#send(room, mark.seq);
  }
}
