// A clock that moves when it is told to, sockets that are played by the test, and storage.

/** @import { Timers } from '../client/types.js' */
/** @import { Socket } from '../client/session.js' */

/** @implements {Timers} */
export class FakeTimers {
  time = 1_764_370_000_000;
  #next = 0;
  /** @type {Map<number, { at: number, work: () => void }>} */
  #waiting = new Map();

  now = () => this.time;

  /** @param {() => void} work @param {number} ms */
  after = (work, ms) => {
    this.#waiting.set(++this.#next, { at: this.time + ms, work });
    return this.#next;
  };

  /** @param {any} timer */
  cancel = (timer) => {
    this.#waiting.delete(timer);
  };

  /** Lets time pass, and what is due happen in its order. @param {number} ms */
  pass(ms) {
    const end = this.time + ms;
    for (;;) {
      const due = [...this.#waiting].filter(([, { at }]) => at <= end).sort((a, b) => a[1].at - b[1].at)[0];
      if (!due) break;
      this.#waiting.delete(due[0]);
      this.time = Math.max(this.time, due[1].at);
      due[1].work();
    }
    this.time = end;
  }
}

/** @implements {Socket} */
export class FakeSocket {
  /** @type {any[]} */
  sent = [];
  closed = false;
  /** @type {(() => void) | null} */
  onopen = null;
  /** @type {((event: any) => void) | null} */
  onmessage = null;
  /** @type {((event: any) => void) | null} */
  onclose = null;

  /** @param {string} text */
  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.closed = true;
  }

  /** The node says something. @param {any} frame */
  says(frame) {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }

  /** The connection ends. @param {number} code */
  ends(code) {
    this.onclose?.({ code });
  }

  /** What was sent of a type. @param {string} type */
  of(type) {
    return this.sent.filter((frame) => frame.type === type);
  }
}

/** Browser storage. */
export class FakeStorage {
  /** @type {Map<string, string>} */
  rows = new Map();
  get length() {
    return this.rows.size;
  }
  /** @param {number} i */
  key(i) {
    return [...this.rows.keys()][i] ?? null;
  }
  /** @param {string} key */
  getItem(key) {
    return this.rows.get(key) ?? null;
  }
  /** @param {string} key @param {string} value */
  setItem(key, value) {
    this.rows.set(key, value);
  }
  /** @param {string} key */
  removeItem(key) {
    this.rows.delete(key);
  }
}

/**
 * An event of a room.
 * @param {number} seq
 * @param {Partial<import('../client/types.js').Event>} [rest]
 */
export const event = (seq, rest = {}) => ({
  seq,
  at: '2025-11-28T10:00:00.000Z',
  sender: 'ann',
  kind: 'message',
  client_msg_id: `id-${seq}`,
  text: `text ${seq}`,
  ...rest,
});
