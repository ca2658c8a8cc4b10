// A session over a WebSocket (docs/protocol.md) that outlives its connections: it comes back by
// itself, to whatever node answers, follows its rooms from where it was, and sends again what was not
// answered.
//
// It knows nothing of pages or of the DOM; sockets, time and chance are given to it. Whoever uses it
// keeps what came (roomlog.js) and what goes (outbox.js).

import { plan } from './backoff.js';
import { Marks } from './marks.js';

/** @import { Ack, Cursor, Event, Failure, Frame, Timers } from './types.js' */
/** @import { Outbox } from './outbox.js' */

/** After a silence this long the node is asked whether it is there; after another one it is given up. */
export const SILENCE_MS = 20_000;

/**
 * A WebSocket, as far as it is used here.
 * @typedef {object} Socket
 * @property {(text: string) => void} send
 * @property {(code?: number) => void} close
 * @property {((event: any) => void) | null} onopen
 * @property {((event: any) => void) | null} onmessage With the frame's text as `data`.
 * @property {((event: any) => void) | null} onclose With the close `code`.
 */

/**
 * Where a session stands.
 * - `connecting`: there is no connection yet.
 * - `open`: signed in; rooms are followed.
 * - `waiting`: tries again at `until`, by this machine's clock.
 * - `signed_out`: what it signs in with is good no more.
 * - `refused`: the node does not understand this client; another version of it may do.
 * - `stopped`
 * @typedef {{ at: 'connecting' | 'open' | 'signed_out' | 'refused' | 'stopped' } |
 *           { at: 'waiting', until: number }} Standing
 */

/**
 * What a session says to whoever uses it.
 * @typedef {object} Listener
 * @property {(standing: Standing) => void} onStanding
 * @property {(room: string, followed: { epoch: string, firstSeq: number, head: number, recovered: boolean }) => void} onFollowed
 *   A room is followed from its cursor on. `recovered: false`: what the user has of it is incomplete.
 * @property {(room: string, event: Event) => void} onEvent
 * @property {(room: string) => void} onCaughtUp
 * @property {(room: string, frame: Frame) => void} onPeople Who is there, who types or how far somebody has read has changed.
 * @property {(room: string, error: Failure) => void} onEnded A room cannot be followed any more.
 */

/**
 * @typedef {object} Options
 * @property {() => Socket} connect Opens a socket to `/v1/ws`, of any node.
 * @property {string} user Who is to be signed in. A browser has one cookie for all its windows: where somebody else
 *   has signed in since, nothing is sent in their name.
 * @property {string} [token] What to sign in with; without, a browser's cookie does.
 * @property {Timers} timers
 * @property {() => number} random
 * @property {Outbox} outbox
 * @property {Listener} listener
 */

/** Where to begin, as of now; `null` is the room's head. @typedef {() => Cursor | null} From */

export class Session {
  /** @type {Options} */
  #options;
  /** @type {Socket | null} */
  #socket = null;
  #signedIn = false;
  #failures = 0;
  /** @type {unknown} */
  #timer = null;
  /** @type {unknown} */
  #watch = null;
  #asked = false;
  /** @type {number | undefined} */
  #retryAfterMs;
  #ref = 0;
  /** @type {Map<number, { follow: string } | { post: string } | { mark: string }>} What is to be answered on this connection. */
  #owed = new Map();
  /** @type {Map<string, From>} */
  #rooms = new Map();
  /** Rooms of which nothing is taken before `followed` answers this ref. @type {Map<string, number>} */
  #following = new Map();
  /** @type {Map<string, { timer: unknown }>} Rooms to be followed again after a pause. */
  #later = new Map();
  /** How present the user is here. @type {'online' | 'away'} */
  #status = 'online';
  /** @type {Standing} */
  #standing = { at: 'stopped' };
  #marks;
  /** The node that answered last. @type {number | undefined} */
  node;
  /** What it takes. @type {Frame['limits']} */
  limits;

  /** @param {Options} options */
  constructor(options) {
    this.#options = options;
    this.#marks = new Marks(options.timers);
  }

  get standing() {
    return this.#standing;
  }

  /** @param {Standing} standing */
  #stand(standing) {
    this.#standing = standing;
    this.#options.listener.onStanding(standing);
  }

  start() {
    if (this.#standing.at !== 'stopped') return;
    this.#connect();
  }

  stop() {
    this.#drop();
    this.#options.timers.cancel(this.#timer);
    this.#stand({ at: 'stopped' });
  }

  /** Tries again at once where it waits: the network is said to be back, or somebody looks. */
  wake() {
    if (this.#standing.at !== 'waiting') return;
    this.#options.timers.cancel(this.#timer);
    this.#connect();
  }

  /**
   * Follows a room, until it is unfollowed; after each reconnection from where it is then.
   * @param {string} room
   * @param {From} from
   */
  follow(room, from) {
    this.#rooms.set(room, from);
    if (this.#signedIn) this.#ask([room]);
  }

  /** Whether a room is followed, or will be. @param {string} room */
  follows(room) {
    return this.#rooms.has(room);
  }

  /** Follows a room anew from its cursor: for whoever has found a gap. @param {string} room */
  refollow(room) {
    if (this.#signedIn && this.#rooms.has(room) && !this.#following.has(room)) this.#ask([room]);
  }

  /** @param {string} room */
  unfollow(room) {
    this.#options.timers.cancel(this.#later.get(room)?.timer);
    this.#later.delete(room);
    this.#following.delete(room);
    if (this.#rooms.delete(room) && this.#signedIn) this.#say({ type: 'unfollow', rooms: [room] });
  }

  /** Says up to where the user has read a room. @param {string} room @param {number} seq */
  markRead(room, seq) {
    this.#marks.move(room, seq);
  }

  /** Says how present the user is here. @param {'online' | 'away'} status */
  setStatus(status) {
    if (status === this.#status) return;
    this.#status = status;
    if (this.#signedIn) this.#say({ type: 'presence', status });
  }

  /** Says that the user types in a room, or has stopped; nobody needs to know later. @param {string} room @param {boolean} typing */
  type(room, typing) {
    if (this.#signedIn && this.#delivers(room)) this.#say({ type: 'typing', room, typing });
  }

  #connect() {
    this.#stand({ at: 'connecting' });
    this.#retryAfterMs = undefined;
    const socket = this.#options.connect();
    this.#socket = socket;
    // A socket that was given up may still say something.
    const current = () => this.#socket === socket;
    socket.onopen = () => {
      if (!current()) return;
      const { token } = this.#options;
      // With a cookie that is good the node says `hello` by itself. Where it is good no more the node
      // waits for a token: any other frame lets it say so.
      this.#say(token === undefined ? { type: 'ping' } : { type: 'sign_in', token });
    };
    socket.onmessage = (/** @type {{ data: unknown }} */ { data }) => {
      if (!current()) return;
      this.#watchSilence();
      const frame = parse(data);
      if (frame) this.#take(frame);
    };
    socket.onclose = (/** @type {{ code: number }} */ { code }) => {
      if (current()) this.#ended(code);
    };
    this.#watchSilence();
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    this.#signedIn = false;
    const { timers, outbox } = this.#options;
    timers.cancel(this.#watch);
    this.#watch = null;
    this.#owed.clear();
    this.#following.clear();
    for (const { timer } of this.#later.values()) timers.cancel(timer);
    this.#later.clear();
    outbox.disconnected();
    this.#marks.disconnected();
    socket?.close();
  }

  /** @param {number} code */
  #ended(code) {
    const failures = this.#failures++;
    this.#drop();
    const { timers, random } = this.#options;
    const next = plan({ code, retryAfterMs: this.#retryAfterMs, failures }, random);
    if (!next.again) {
      this.#stand({ at: next.why });
      return;
    }
    this.#stand({ at: 'waiting', until: timers.now() + next.afterMs });
    this.#timer = timers.after(() => this.#connect(), next.afterMs);
  }

  /** Asks a node that is silent whether it is there, and gives it up if it stays so. */
  #watchSilence() {
    const { timers } = this.#options;
    timers.cancel(this.#watch);
    this.#asked = false;
    const look = () => {
      if (this.#asked || !this.#signedIn) {
        this.#ended(1006);
        return;
      }
      this.#asked = true;
      this.#say({ type: 'ping' });
      this.#watch = timers.after(look, SILENCE_MS);
    };
    this.#watch = timers.after(look, SILENCE_MS);
  }

  /** @param {object} frame */
  #say(frame) {
    this.#socket?.send(JSON.stringify(frame));
  }

  /** @param {string[]} rooms */
  #ask(rooms) {
    for (const room of rooms) {
      const from = this.#rooms.get(room);
      if (!from) continue;
      this.#options.timers.cancel(this.#later.get(room)?.timer);
      this.#later.delete(room);
      const ref = ++this.#ref;
      this.#owed.set(ref, { follow: room });
      this.#following.set(room, ref);
      const after = from();
      this.#say({ type: 'follow', ref, presence: true, rooms: [after === null ? { room } : { room, after }] });
    }
  }

  /** @param {Frame} frame */
  #take(frame) {
    const { room, error } = frame;
    switch (frame.type) {
      case 'hello':
        this.#hello(frame);
        break;
      case 'followed':
        this.#followed(frame);
        break;
      case 'event':
        if (room !== undefined && frame.event && this.#delivers(room)) {
          this.#options.listener.onEvent(room, frame.event);
        }
        break;
      case 'caught_up':
        if (room !== undefined && this.#delivers(room)) this.#options.listener.onCaughtUp(room);
        break;
      case 'presence':
      case 'typing':
      case 'receipts':
        if (room !== undefined && this.#delivers(room)) this.#options.listener.onPeople(room, frame);
        break;
      case 'ended':
        if (room !== undefined && error && this.#delivers(room)) this.#lost(room, error);
        break;
      case 'ack':
        this.#acknowledged(frame);
        break;
      case 'error':
        if (error) this.#failed(frame, error);
        break;
      default: // What comes with later versions is ignored.
    }
  }

  /** Whether what is said of a room belongs to how it is followed now. @param {string} room */
  #delivers(room) {
    return this.#rooms.has(room) && !this.#following.has(room);
  }

  /** @param {Frame} hello */
  #hello(hello) {
    if (hello.user !== this.#options.user) {
      this.#drop();
      this.#stand({ at: 'signed_out' });
      return;
    }
    this.#signedIn = true;
    this.#failures = 0;
    this.node = hello.node;
    this.limits = hello.limits;
    this.#stand({ at: 'open' });
    if (this.#status !== 'online') this.#say({ type: 'presence', status: this.#status });
    this.#ask([...this.#rooms.keys()]);
    this.#options.outbox.connected((draft) => {
      const ref = ++this.#ref;
      this.#owed.set(ref, { post: draft.id });
      const { id, room, text, replyTo } = draft;
      const reply = replyTo === undefined ? {} : { reply_to: replyTo };
      this.#say({ type: 'post', ref, room, client_msg_id: id, text, ...reply });
    }, hello.server_time_ms);
    this.#marks.connected((room, seq) => {
      const ref = ++this.#ref;
      this.#owed.set(ref, { mark: room });
      this.#say({ type: 'mark_read', ref, room, seq });
    });
  }

  /** @param {number | undefined} ref */
  #settle(ref) {
    const owed = ref === undefined ? undefined : this.#owed.get(ref);
    if (ref !== undefined) this.#owed.delete(ref);
    return owed;
  }

  /** @param {Frame} frame */
  #followed({ ref, room, epoch, first_seq, head, recovered }) {
    this.#settle(ref);
    if (room === undefined || this.#following.get(room) !== ref) return;
    this.#following.delete(room);
    this.#options.listener.onFollowed(room, {
      epoch: epoch ?? '',
      firstSeq: first_seq ?? 1,
      head: head ?? 0,
      recovered: recovered ?? true,
    });
  }

  /** @param {Frame} frame */
  #acknowledged(frame) {
    const owed = this.#settle(frame.ref);
    if (owed && 'mark' in owed) this.#marks.acknowledged(owed.mark);
    if (!owed || !('post' in owed)) return;
    const { seq = 0, epoch = '', at = '', duplicate = false } = frame;
    /** @type {Ack} */
    const ack = { seq, epoch, at, duplicate, client_msg_id: owed.post };
    this.#options.outbox.acknowledged(owed.post, ack);
  }

  /**
   * @param {Frame} frame
   * @param {Failure} error
   */
  #failed({ ref }, error) {
    const owed = this.#settle(ref);
    if (!owed) {
      // The last frame of a connection says why it ends.
      this.#retryAfterMs = error.retry_after_ms;
      return;
    }
    if ('post' in owed) {
      this.#options.outbox.refused(owed.post, error);
    } else if ('mark' in owed) {
      this.#marks.refused(owed.mark, error);
    } else if (this.#following.get(owed.follow) === ref) {
      this.#following.delete(owed.follow);
      this.#lost(owed.follow, error);
    }
  }

  /**
   * @param {string} room
   * @param {Failure} error
   */
  #lost(room, error) {
    if (!error.temporary) {
      // A cursor that no node knows is of no use: whoever follows says whether to begin anew.
      this.#rooms.delete(room);
      this.#options.listener.onEnded(room, error);
      return;
    }
    const { timers, random } = this.#options;
    const ms = (error.retry_after_ms ?? 500) * (1 + random());
    const timer = timers.after(() => {
      this.#later.delete(room);
      if (this.#signedIn) this.#ask([room]);
    }, ms);
    this.#later.set(room, { timer });
  }
}

/** @param {unknown} data @returns {Frame | null} */
const parse = (data) => {
  try {
    const frame = JSON.parse(String(data));
    return typeof frame?.type === 'string' ? frame : null;
  } catch {
    return null;
  }
};
