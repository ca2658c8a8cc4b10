// Who is there in a room, who types, and how far others have read (docs/protocol.md); and what is said
// of the user's own typing.

/** @import { Frame, Person, Timers } from './types.js' */

/** While somebody types, it is said again after this; it ends by itself after twice as long. */
export const TYPING_EVERY_MS = 3000;

/** One room's people, as its frames tell. */
export class People {
  /** How many are there, the user among them; `null` where that is not known. @type {number | null} */
  present = null;
  /** @type {string[]} */
  typing = [];
  /** @type {Map<string, Person>} */
  #people = new Map();
  /** @type {Map<string, number>} */
  #read = new Map();

  /** Nothing is known any more: the room is followed anew. */
  reset() {
    this.present = null;
    this.typing = [];
    this.#people.clear();
    this.#read.clear();
  }

  /** @param {Frame} frame */
  take({ type, present, people = [], users = [], marks = [] }) {
    if (type === 'presence') {
      this.present = present ?? null;
      // A room that is large has numbers only: what was told before is void.
      if (people.length === 0) {
        this.#people.clear();
        this.#read.clear();
      }
      for (const person of people) this.#people.set(person.user, person);
    }
    if (type === 'typing') this.typing = users;
    if (type === 'receipts') for (const { user, seq } of marks) this.#read.set(user, seq);
  }

  /** @param {string} user @returns {Person} */
  of(user) {
    return this.#people.get(user) ?? { user, status: 'offline' };
  }

  /** Who has read up to a message, in order of id. @param {number} seq */
  readersOf(seq) {
    return [...this.#read].filter(([, read]) => read >= seq).map(([user]) => user).sort();
  }
}

/** Says that the user types, not too often, and that they have stopped. */
export class Typing {
  #timers;
  #say;
  #room = '';
  #saidAt = -Infinity;

  /** @param {Timers} timers @param {(room: string, types: boolean) => void} say */
  constructor(timers, say) {
    this.#timers = timers;
    this.#say = say;
  }

  /** What is being written in a room has changed. @param {string} room @param {boolean} some Whether it is anything. */
  changed(room, some) {
    if (room !== this.#room) this.#stop();
    if (!some) {
      this.#stop();
      return;
    }
    const now = this.#timers.now();
    if (now - this.#saidAt < TYPING_EVERY_MS) return;
    this.#room = room;
    this.#saidAt = now;
    this.#say(room, true);
  }

  /** It was posted: whoever is told of that is told of the end as well. */
  posted() {
    this.#room = '';
    this.#saidAt = -Infinity;
  }

  #stop() {
    if (this.#room === '') return;
    // What was said long ago has ended by itself.
    if (this.#timers.now() - this.#saidAt < 2 * TYPING_EVERY_MS) this.#say(this.#room, false);
    this.posted();
  }
}
