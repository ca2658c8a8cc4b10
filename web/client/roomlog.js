// What this client has of one room's log: a stretch of it without a gap, and what became of the
// messages in it.
//
// Invariants:
// - Events are dense: each `seq` is one above the one before. What comes twice is dropped; what
//   would leave a gap is not taken.
// - Applying a change to a message (an edit, a redaction, a reaction) once more changes nothing, so
//   that pages, which show messages as of their head, and live events may overlap.

/** @import { Cursor, Event, Page } from './types.js' */

/** What is said, and can be edited, redacted and reacted to. @param {Event} event */
export const isMessage = ({ kind }) => kind === 'message' || kind === 'action' || kind === 'notice';

export class RoomLog {
  /** @type {string} */
  epoch;
  /** The seq before the first event here; what is older has not been fetched. */
  base;
  /** @type {Event[]} */
  events = [];
  /** The oldest event that the room keeps; 1 unless its retention, or a page, said otherwise. */
  firstSeq = 1;
  /** Grows whenever what is here changes. */
  version = 0;

  /**
   * Begins after a place in the log, which counts as seen.
   * @param {string} epoch
   * @param {number} base
   */
  constructor(epoch, base) {
    this.epoch = epoch;
    this.base = base;
  }

  /** The seq of the last event that this client has dealt with. */
  get last() {
    return this.base + this.events.length;
  }

  /** @returns {Cursor} */
  get cursor() {
    return `${this.epoch}:${this.last}`;
  }

  /** Whether there is anything older that could be fetched. */
  get hasOlder() {
    return this.base + 1 > this.firstSeq;
  }

  /** @param {number} seq @returns {Event | undefined} */
  at(seq) {
    return this.events[seq - this.base - 1];
  }

  /**
   * Takes an event that came live.
   * @param {Event} event
   * @returns {'new' | 'known' | 'gap'}
   */
  add(event) {
    if (event.seq <= this.last) return 'known';
    if (event.seq > this.last + 1) return 'gap';
    this.events.push(event);
    this.#affect(event);
    this.version++;
    return 'new';
  }

  /**
   * Puts a page of what is older before what is here. A page that does not end where this begins
   * is not taken.
   * @param {Page} page
   * @returns {boolean}
   */
  prepend(page) {
    if (page.epoch !== this.epoch) return false;
    this.firstSeq = Math.max(this.firstSeq, page.first_seq);
    const older = page.events.filter((event) => event.seq <= this.base);
    const end = older.at(-1);
    if (!end) {
      // Nothing older is kept.
      this.firstSeq = Math.max(this.firstSeq, this.base + 1);
      return true;
    }
    const begin = end.seq - older.length + 1;
    if (end.seq !== this.base || older.some((event, i) => event.seq !== begin + i)) return false;
    this.events = [...older, ...this.events];
    this.base = begin - 1;
    this.version++;
    // The page shows its messages as of its head; what came live since happened to them too.
    for (const event of this.events) if (event.seq > page.head) this.#affect(event, begin, end.seq);
    return true;
  }

  /**
   * Forgets the oldest events, which can be fetched again.
   * @param {number} keep How many stay.
   */
  trim(keep) {
    const gone = this.events.length - keep;
    if (gone <= 0) return;
    this.events.splice(0, gone);
    this.base += gone;
    this.version++;
  }

  /**
   * Lets an event do what it does to a message that is here.
   * @param {Event} event
   * @param {number} [from] Only to messages from here on.
   * @param {number} [to] Only to messages up to here.
   */
  #affect(event, from = 0, to = Infinity) {
    const seq = event.target;
    if (seq === undefined || seq < from || seq > to) return;
    const message = this.at(seq);
    if (!message || seq >= event.seq) return;
    const change = CHANGES[event.kind];
    if (change) this.events[seq - this.base - 1] = change(message, event);
  }
}

/**
 * How a message looks after an event of which it is the target. Messages are replaced, not changed:
 * whoever shows them sees by the object whether something has become of them.
 * @type {Record<string, ((message: Event, event: Event) => Event) | undefined>}
 */
const CHANGES = {
  edit: (message, { seq, at, text, mentions, redacted }) => {
    // An edit whose text is erased belongs to a message that has been redacted.
    if (message.redacted || redacted || message.edits?.some((edit) => edit.seq === seq)) return message;
    const edits = [...(message.edits ?? []), { seq, at, text }];
    const first_mentions = message.first_mentions ?? message.mentions ?? [];
    return { ...message, text, edits, edited_at: at, mentions: mentions ?? [], first_mentions };
  },
  redaction: (message) => ({ ...message, text: '', redacted: true, edits: [], reactions: [], mentions: [], first_mentions: [] }),
  reaction: (message, { sender, text, withdrawn }) => {
    if (message.redacted) return message;
    const reactions = (message.reactions ?? []).map(({ symbol, users }) => ({ symbol, users: [...users] }));
    let reaction = reactions.find(({ symbol }) => symbol === text);
    if (!reaction) reactions.push((reaction = { symbol: text, users: [] }));
    reaction.users = reaction.users.filter((user) => user !== sender);
    if (!withdrawn) reaction.users.push(sender);
    return { ...message, reactions: reactions.filter(({ users }) => users.length > 0) };
  },
  message: (message, { seq }) => reply(message, seq),
  action: (message, { seq }) => reply(message, seq),
};

/** @param {Event} message @param {number} seq @returns {Event} */
const reply = (message, seq) => {
  if ((message.last_reply ?? 0) >= seq) return message;
  return { ...message, reply_count: (message.reply_count ?? 0) + 1, last_reply: seq };
};
