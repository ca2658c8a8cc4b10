import assert from 'node:assert/strict';
import { test } from 'node:test';
import './node.js';
import { Outbox } from '../client/outbox.js';
import { RoomLog } from '../client/roomlog.js';
import { SILENCE_MS, Session } from '../client/session.js';
import { FakeSocket, FakeStorage, FakeTimers, event } from './fake.js';

/** @import { Failure } from '../client/types.js' */

const FAILURE = { message: '', temporary: true, may_have_applied: false };

/** A session whose one room, `tea`, is kept in a log. @param {{ token?: string }} [more] */
const setup = (more = {}, log = new RoomLog('e', 0), storage = new FakeStorage()) => {
  const timers = new FakeTimers();
  /** @type {FakeSocket[]} */
  const sockets = [];
  /** @type {string[]} */
  const standings = [];
  /** @type {[string, Failure][]} */
  const ended = [];
  /** @type {[string, boolean][]} */
  const recoveries = [];
  /** @type {[string, string][]} */
  const people = [];
  const outbox = new Outbox({ user: 'ann', storage, timers, random: () => 0.5, onChange: () => {} });
  const session = new Session({
    user: 'ann',
    connect: () => {
      const socket = new FakeSocket();
      sockets.push(socket);
      return socket;
    },
    timers,
    random: () => 0.5,
    outbox,
    listener: {
      onStanding: ({ at }) => standings.push(at),
      onFollowed: (room, { recovered }) => recoveries.push([room, recovered]),
      onEvent: (room, event) => {
        if (log.add(event) === 'gap') session.refollow(room);
        outbox.seen(room, event);
      },
      onCaughtUp: () => {},
      onPeople: (room, { type }) => people.push([room, type]),
      onEnded: (room, error) => ended.push([room, error]),
    },
    ...more,
  });
  const socket = () => sockets[sockets.length - 1] ?? assert.fail('there is no socket');
  const open = () => {
    socket().onopen?.();
    socket().says({ type: 'hello', user: 'ann', node: 1, server_time_ms: timers.now() });
  };
  /** Answers the last `follow`. */
  const followed = (room = 'tea') => {
    const { ref } = socket().of('follow').at(-1);
    socket().says({ type: 'followed', ref, room, epoch: 'e', first_seq: 1, head: 9, recovered: true });
  };
  /** @param {number} seq */
  const says = (seq, rest = {}) => socket().says({ type: 'event', room: 'tea', event: event(seq, rest) });
  const seqs = () => log.events.map(({ seq }) => seq);
  /** The connection fails, and there is another one as soon as it is tried. */
  const failAndComeBack = () => {
    const { length } = sockets;
    socket().ends(1006);
    while (sockets.length === length) timers.pass(100);
  };
  return { failAndComeBack, timers, sockets, standings, ended, log, storage, outbox, session, socket, open, followed, says, seqs, people, recoveries };
};

/** The same, with `tea` being followed from its cursor. */
const following = () => {
  const all = setup();
  all.session.follow('tea', () => all.log.cursor);
  all.session.start();
  all.open();
  all.followed();
  return all;
};

test('it signs in with its token first, or lets the cookie do', () => {
  const { session, socket } = setup({ token: 'fm_x' });
  session.start();
  socket().onopen?.();
  assert.deepEqual(socket().sent, [{ type: 'sign_in', token: 'fm_x' }]);
  const cookie = setup();
  cookie.session.start();
  cookie.socket().onopen?.();
  assert.deepEqual(cookie.socket().sent, [{ type: 'ping' }]);
});

test('it follows its rooms after hello, and on other connections from where it was', () => {
  const { timers, sockets, socket, open, followed, says, seqs } = following();
  assert.deepEqual(socket().of('follow')[0].rooms, [{ room: 'tea', after: 'e:0' }]);
  says(1);
  says(2);
  socket().ends(1006);
  timers.pass(500);
  assert.equal(sockets.length, 2);
  open();
  assert.deepEqual(socket().of('follow')[0].rooms, [{ room: 'tea', after: 'e:2' }]);
  followed();
  says(2);
  says(3);
  assert.deepEqual(seqs(), [1, 2, 3]);
});

test('a room without a cursor begins at its head', () => {
  const { session, open, socket } = setup();
  session.follow('tea', () => null);
  session.start();
  open();
  assert.deepEqual(socket().of('follow')[0].rooms, [{ room: 'tea' }]);
});

test('a gap is filled by following again from the cursor; what comes meanwhile is not taken', () => {
  const { socket, followed, says, seqs } = following();
  says(1);
  says(3);
  says(4);
  assert.equal(socket().of('follow').length, 2, 'once');
  assert.deepEqual(socket().of('follow')[1].rooms, [{ room: 'tea', after: 'e:1' }]);
  says(2);
  assert.deepEqual(seqs(), [1], 'not what is left of how it was followed before');
  followed();
  says(2);
  says(3);
  says(4);
  assert.deepEqual(seqs(), [1, 2, 3, 4]);
});

test('a message without an answer is sent again on the next connection, and is on its way once', () => {
  const { timers, socket, open, followed, says, outbox, storage } = following();
  outbox.post('tea', 'hello');
  const [first] = socket().of('post');
  assert.equal(first.text, 'hello');
  socket().ends(1006);
  timers.pass(500);
  open();
  const [second] = socket().of('post');
  assert.equal(second.client_msg_id, first.client_msg_id);
  socket().says({ type: 'ack', ref: second.ref, seq: 1, epoch: 'e', at: '', duplicate: true, client_msg_id: second.client_msg_id });
  assert.equal(storage.length, 0);
  followed();
  says(1, { client_msg_id: second.client_msg_id });
  assert.deepEqual(outbox.of('tea'), []);
  socket().ends(1006);
  timers.pass(500);
  open();
  assert.equal(socket().of('post').length, 0);
});

test('an error with a ref is of that post, and the connection goes on', () => {
  const { socket, outbox, standings } = following();
  outbox.post('tea', 'hello');
  const [{ ref }] = socket().of('post');
  socket().says({ type: 'error', ref, error: { ...FAILURE, code: 'muted', temporary: false } });
  assert.equal(outbox.of('tea')[0]?.state, 'failed');
  assert.equal(standings.at(-1), 'open');
});

test('the last error says when to come back', () => {
  const { timers, sockets, socket } = following();
  socket().says({ type: 'error', error: { ...FAILURE, code: 'too_many_connections', retry_after_ms: 8000 } });
  socket().ends(4101);
  timers.pass(7999);
  assert.equal(sockets.length, 1);
  timers.pass(1000);
  assert.equal(sockets.length, 2);
});

test('pauses grow while nobody answers, and begin anew after a hello', () => {
  const { timers, sockets, socket, open, failAndComeBack } = following();
  for (let i = 0; i < 8; i++) failAndComeBack();
  assert.equal(sockets.length, 9);
  socket().ends(1006);
  timers.pass(10_000);
  assert.equal(sockets.length, 9, 'not within ten seconds');
  while (sockets.length === 9) timers.pass(100);
  open();
  socket().ends(1006);
  timers.pass(500);
  assert.equal(sockets.length, 11);
});

test('whoever looks does not wait', () => {
  const { timers, sockets, session, socket, open, standings, failAndComeBack } = following();
  for (let i = 0; i < 8; i++) failAndComeBack();
  socket().ends(1006);
  assert.equal(standings.at(-1), 'waiting');
  session.wake();
  assert.equal(sockets.length, 10);
  open();
  timers.pass(15_000);
  socket().says({ type: 'pong' });
  timers.pass(15_000);
  assert.equal(sockets.length, 10, 'the timer is gone');
});

test('44xx ends it', () => {
  const { timers, sockets, socket, standings } = following();
  socket().ends(4401);
  timers.pass(600_000);
  assert.equal(sockets.length, 1);
  assert.equal(standings.at(-1), 'signed_out');
});

test("where somebody else's cookie signs in, nothing is sent in their name", () => {
  const { timers, sockets, socket, standings, outbox } = following();
  outbox.post('tea', 'hello');
  socket().ends(1006);
  timers.pass(500);
  socket().says({ type: 'hello', user: 'bob', node: 1, server_time_ms: timers.now() });
  assert.deepEqual(socket().sent, []);
  assert.ok(socket().closed);
  timers.pass(600_000);
  assert.equal(sockets.length, 2);
  assert.equal(standings.at(-1), 'signed_out');
  assert.equal(outbox.of('tea').length, 1, 'it is kept for its writer');
});

test('a silent node is asked, and given up when it stays silent', () => {
  const { timers, sockets, socket } = following();
  timers.pass(SILENCE_MS);
  assert.equal(socket().of('ping').length, 2);
  socket().says({ type: 'pong' });
  timers.pass(SILENCE_MS);
  assert.equal(socket().of('ping').length, 3);
  timers.pass(SILENCE_MS);
  assert.ok(sockets[0]?.closed);
  timers.pass(500);
  assert.equal(sockets.length, 2);
});

test('a node that never answers the connection is given up', () => {
  const { timers, sockets, session } = setup();
  session.start();
  timers.pass(SILENCE_MS + 500);
  assert.equal(sockets.length, 2);
});

test('what a connection says after it was given up counts for nothing', () => {
  const { timers, sockets, open, followed, seqs } = following();
  timers.pass(2 * SILENCE_MS + 500);
  assert.equal(sockets.length, 2);
  open();
  followed();
  sockets[0]?.says({ type: 'event', room: 'tea', event: event(1) });
  sockets[0]?.ends(4401);
  assert.deepEqual(seqs(), []);
  timers.pass(1000);
  assert.equal(sockets.length, 2);
});

test('a room that ends for a while is followed again; one that ends for good is not', () => {
  const { timers, socket, ended } = following();
  socket().says({ type: 'ended', room: 'tea', seq: 0, error: { ...FAILURE, code: 'unavailable', retry_after_ms: 300 } });
  assert.equal(socket().of('follow').length, 1);
  timers.pass(600);
  assert.equal(socket().of('follow').length, 2);
  const { ref } = socket().of('follow')[1];
  socket().says({ type: 'error', ref, room: 'tea', error: { ...FAILURE, code: 'banned', temporary: false } });
  timers.pass(10_000);
  assert.equal(socket().of('follow').length, 2);
  assert.deepEqual(ended.map(([room, error]) => [room, error.code]), [['tea', 'banned']]);
});

test('a room that is cut while it is followed goes on, and says that something is missing', () => {
  const { timers, socket, says, recoveries, ended } = following();
  says(1);
  says(2);
  recoveries.length = 0;
  socket().says({ type: 'ended', room: 'tea', seq: 2, error: { ...FAILURE, code: 'unavailable', retry_after_ms: 300 } });
  timers.pass(600);
  const { ref, rooms } = socket().of('follow').at(-1);
  assert.deepEqual(rooms, [{ room: 'tea', after: 'e:2' }]);
  socket().says({ type: 'followed', ref, room: 'tea', epoch: 'e', first_seq: 40, head: 42, recovered: false });
  assert.deepEqual([recoveries, ended], [[['tea', false]], []]);
});

test('after a reload, a message that was on its way is shown once, whatever is heard of it first', () => {
  const before = following();
  before.outbox.post('tea', 'one');
  const { client_msg_id } = before.socket().of('post')[0];
  // It was applied as 7, without an answer; the next page's list says that 7 is the head.
  const { log, open, outbox, session, socket } = setup({}, new RoomLog('e', 7), before.storage);
  session.follow('tea', () => log.cursor);
  session.start();
  open();
  const shown = () => {
    outbox.shown('tea', log.last);
    return [...log.events.map(({ text }) => text), ...outbox.of('tea').map(({ state }) => state)];
  };
  assert.deepEqual(shown(), ['sending']);
  const ack = () => {
    const { ref } = socket().of('post').at(-1);
    socket().says({ type: 'ack', ref, seq: 7, epoch: 'e', at: '', duplicate: true });
  };
  ack();
  assert.deepEqual(shown(), [], 'no event comes for it: it is in the history, which begins before it');

  // Where history comes first, its events are answers.
  before.outbox.post('tea', 'two');
  const again = setup({}, new RoomLog('e', 8), before.storage);
  const own = event(8, { client_msg_id: before.outbox.of('tea').at(-1)?.id ?? '', text: 'two' });
  const first = event(7, { client_msg_id, text: 'one' });
  again.session.start();
  again.open();
  again.log.prepend({ epoch: 'e', first_seq: 1, head: 8, recovered: true, events: [first, own] });
  for (const each of again.log.events) again.outbox.seen('tea', each);
  assert.deepEqual([again.outbox.of('tea'), again.storage.length], [[], 0]);
});

test('whoever asks is told which rooms are followed', () => {
  const { session, socket } = following();
  assert.deepEqual([session.follows('tea'), session.follows('rum')], [true, false]);
  socket().says({ type: 'ended', room: 'tea', seq: 0, error: { ...FAILURE, code: 'forbidden', temporary: false } });
  assert.equal(session.follows('tea'), false);
});

test('what is no frame, or of a type that is not known, is ignored', () => {
  const { socket, says, seqs, standings } = following();
  socket().onmessage?.({ data: 'not json' });
  socket().onmessage?.({ data: 'null' });
  socket().says({ type: 'of_tomorrow', room: 'tea' });
  says(1);
  assert.deepEqual(seqs(), [1]);
  assert.equal(standings.at(-1), 'open');
});

test('stopped, it says and does nothing more', () => {
  const { timers, sockets, session, socket, standings } = following();
  session.stop();
  socket().ends(1006);
  timers.pass(600_000);
  assert.equal(sockets.length, 1);
  assert.equal(standings.at(-1), 'stopped');
});

test('a read mark is sent, again where it was not answered, and one that is refused harms nothing', () => {
  const { failAndComeBack, session, socket, open } = following();
  session.markRead('tea', 7);
  assert.deepEqual(socket().of('mark_read').map(({ room, seq }) => [room, seq]), [['tea', 7]]);
  failAndComeBack();
  open();
  const { ref } = socket().of('mark_read').at(-1);
  socket().says({ type: 'error', ref, error: { ...FAILURE, code: 'not_participant', temporary: false } });
  session.markRead('tea', 8);
  const { ref: second, seq } = socket().of('mark_read').at(-1);
  assert.equal(seq, 8);
  socket().says({ type: 'ack', ref: second, seq: 8, epoch: 'e', at: '', duplicate: false });
  assert.equal(session.standing.at, 'open');
});

test('who is there is told of rooms as they are followed now; being away is said on each connection', () => {
  const { failAndComeBack, session, socket, open, followed, people } = following();
  assert.equal(socket().of('follow').at(-1).presence, true);
  socket().says({ type: 'presence', room: 'rum', present: 1, people: [] });
  followed();
  socket().says({ type: 'presence', room: 'tea', present: 1, people: [] });
  socket().says({ type: 'typing', room: 'tea', users: [] });
  socket().says({ type: 'receipts', room: 'tea', marks: [] });
  assert.deepEqual(people, [['tea', 'presence'], ['tea', 'typing'], ['tea', 'receipts']]);
  session.type('tea', true);
  session.type('rum', true);
  assert.deepEqual(socket().of('typing').map(({ room, typing }) => [room, typing]), [['tea', true]]);
  session.setStatus('away');
  session.setStatus('away');
  assert.deepEqual(socket().of('presence').map(({ status }) => status), ['away']);
  failAndComeBack();
  assert.deepEqual(socket().of('presence'), [], 'not before it is signed in');
  open();
  assert.deepEqual(socket().of('presence').map(({ status }) => status), ['away']);
});
