import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KEPT, Rooms, isIn } from '../page/rooms.js';
import { FakeTimers, event } from './fake.js';

/** @import { Event } from '../client/types.js' */
/** @import { Session } from '../client/session.js' */

const room = (/** @type {string} */ id, more = {}) => ({
  room: id,
  title: id,
  kind: 'public',
  topic: '',
  head: 10,
  first_seq: 1,
  epoch: 'e',
  participant_count: 1,
  archived: false,
  participants: [{ user: 'ann', role: 'member', read: 10 }],
  ...more,
});

/** Rooms whose server is a table from paths to answers, which the test may hold back. */
const setup = () => {
  /** @type {Map<string, any>} */
  const answers = new Map();
  /** @type {string[]} */
  const read = [];
  globalThis.fetch = async (path) => {
    read.push(String(path));
    const found = await answers.get(String(path));
    const gone = { error: { code: 'room_not_found', message: '', temporary: false, may_have_applied: false } };
    return new Response(JSON.stringify(found ?? gone), { status: found ? 200 : 404 });
  };
  /** @type {string[]} */
  const followed = [];
  /** @type {[string, number][]} */
  const marked = [];
  /** What the session has. @type {Set<string>} */
  const follows = new Set();
  const fake = {
    follow: (/** @type {string} */ id) => follows.add(id) && followed.push(id),
    follows: (/** @type {string} */ id) => follows.has(id),
    unfollow: (/** @type {string} */ id) => follows.delete(id),
    refollow: () => {},
    markRead: (/** @type {string} */ id, /** @type {number} */ seq) => marked.push([id, seq]),
  };
  const session = /** @type {Session} */ (/** @type {unknown} */ (fake));
  const timers = new FakeTimers();
  /** @type {number[]} */
  const older = [];
  const view = { mayForget: true };
  const rooms = new Rooms({
    me: 'ann',
    session,
    timers,
    random: () => 0.5,
    onChange: () => {},
    onOlder: (_, events) => older.push(...events.map(({ seq }) => seq)),
    mayForget: () => view.mayForget,
  });
  /** Lets time pass, and what is asked for then be answered. @param {number} ms */
  const pass = async (ms) => {
    timers.pass(ms);
    await new Promise((resolve) => setImmediate(resolve));
  };
  /** The session says that a room has ended. @param {string} code */
  const end = (code) => {
    follows.delete('tea');
    rooms.ended('tea', { code, message: '', temporary: false, may_have_applied: false });
  };
  answers.set(LIST, { rooms: [] });
  answers.set(OWN, { rooms: [], next: null });
  return { answers, end, followed, marked, older, pass, read, rooms, view };
};

const LIST = '/v1/rooms?limit=1000';
const OWN = '/v1/me/rooms?limit=1000';

/** A room of ann's own, as the server lists it. */
const own = (/** @type {string} */ id, part = {}, unread = {}, more = {}) => ({
  ...room(id, { participants: undefined, ...more }),
  own: { user: 'ann', role: 'member', read: 10, ...part },
  unread: { messages: 0, mentions: 0, more: false, ...unread },
});

test('rooms that one is in are followed; others are only listed', async () => {
  const { answers, followed, rooms } = setup();
  answers.set(LIST, { rooms: [room('tea'), room('zoo')] });
  answers.set(OWN, { rooms: [own('rum', { invited: true })], next: 'rum' });
  answers.set(`${OWN}&after=rum`, { rooms: [own('tea')], next: null });
  await rooms.load();
  assert.deepEqual(followed, ['tea']);
  assert.equal(rooms.get('rum')?.part, 'invited');
  assert.equal(rooms.get('zoo')?.part, 'none');
});

test('a room that is made while the list is on its way stays; one that is gone goes', async () => {
  const { answers, rooms } = setup();
  answers.set('/v1/rooms/new', room('new'));
  answers.set('/v1/rooms/old', room('old'));
  await rooms.refresh('old');
  /** @type {(list: object) => void} */
  let arrive = () => {};
  answers.set(LIST, new Promise((resolve) => (arrive = resolve)));
  const loading = rooms.load();
  await rooms.refresh('new');
  arrive({ rooms: [room('new')] });
  await loading;
  assert.ok(isIn(rooms.get('new')?.part ?? 'none'), 'the list was asked for before it was joined');
  assert.equal(rooms.get('old'), undefined);
});

test('what is new is what the server has counted, and what came since, without its own messages', async () => {
  const { answers, marked, rooms } = setup();
  answers.set(OWN, { rooms: [own('tea', { read: 4 }, { messages: 3 })], next: null });
  await rooms.load();
  const entry = rooms.get('tea') ?? assert.fail();
  assert.deepEqual(rooms.unread(entry), { count: 3, many: false, mentioned: false });
  rooms.take('tea', event(11, { sender: 'bob', mentions: ['ann'] }));
  rooms.take('tea', event(12));
  rooms.take('tea', event(13, { sender: 'bob', kind: 'reaction', target: 12 }));
  assert.deepEqual(rooms.unread(entry), { count: 4, many: false, mentioned: true });
  rooms.noteNew(entry);
  assert.equal(entry.newAfter, 4);
  rooms.see(entry);
  rooms.see(entry);
  assert.equal(rooms.unread(entry).count, 0);
  assert.deepEqual(marked, [['tea', 13]]);
});

test('what was read on another device is read here, and a list that is late takes nothing back', async () => {
  const { answers, rooms } = setup();
  answers.set(OWN, { rooms: [own('tea', { read: 4 }, { messages: 3, mentions: 1 })], next: null });
  await rooms.load();
  const entry = rooms.get('tea') ?? assert.fail();
  rooms.take('tea', event(11, { sender: 'bob' }));
  answers.set(OWN, { rooms: [own('tea', { read: 10 }, { messages: 1 }, { head: 11 })], next: null });
  await rooms.load();
  assert.deepEqual(rooms.unread(entry), { count: 1, many: false, mentioned: false }, 'counted once');
  rooms.see(entry);
  await rooms.load();
  assert.equal(rooms.unread(entry).count, 0);
  answers.set(OWN, { rooms: [], next: null });
  answers.set(LIST, { rooms: [room('tea')] });
  await rooms.load();
  assert.equal(entry.part, 'none', 'left elsewhere');
});

test('who is not among those that a large room shows looks at the list', async () => {
  const { answers, rooms } = setup();
  const many = room('big', { participant_count: 2000, participants: [{ user: 'bob', role: 'owner', read: 0 }] });
  answers.set('/v1/rooms/big', many);
  answers.set(OWN, { rooms: [own('big')], next: null });
  await rooms.refresh('big');
  assert.equal(rooms.get('big')?.part, 'member');
});

/** Rooms that have `tea`, with nothing read again so far. */
const withTea = async (part = {}, unread = {}, more = {}) => {
  const all = setup();
  all.answers.set(OWN, { rooms: [own('tea', part, unread, more)], next: null });
  await all.rooms.load();
  all.read.length = 0;
  const entry = all.rooms.get('tea') ?? assert.fail();
  let seq = 10;
  /** @param {Partial<Event>} rest */
  const take = (rest) => all.rooms.take('tea', event(++seq, { sender: 'bob', ...rest }));
  return { ...all, entry, take };
};

test('what others do in a room is told by its events, and nothing is read for it', async () => {
  const { entry, pass, read, take } = await withTea({}, {}, { participant_count: 2 });
  const count = () => entry.room.participant_count;
  take({ kind: 'join', sender: 'cy' });
  assert.equal(count(), 3);
  take({ kind: 'invite', subject: 'dan' });
  take({ kind: 'leave', sender: 'dan' });
  assert.equal(count(), 3, 'who was invited has declined');
  take({ kind: 'invite', subject: 'fay' });
  take({ kind: 'role', subject: 'fay', role: 'muted' });
  take({ kind: 'leave', sender: 'fay' });
  assert.equal(count(), 3, 'a role lets nobody in');
  take({ kind: 'leave', subject: 'cy' });
  take({ kind: 'role', subject: 'cy', role: 'banned' });
  assert.equal(count(), 2, 'who is banned had left');
  take({ kind: 'role', subject: 'eve', role: 'banned' });
  assert.equal(count(), 1);
  take({ kind: 'role', subject: 'eve', role: 'banned', withdrawn: true });
  take({ kind: 'role', subject: 'bob', role: 'moderator' });
  assert.equal(count(), 1);
  take({ kind: 'topic', text: 'Green' });
  take({ kind: 'archive' });
  assert.deepEqual([entry.room.topic, entry.room.archived], ['Green', true]);
  take({ kind: 'archive', withdrawn: true });
  assert.equal(entry.room.archived, false);
  take({ kind: 'trim' });
  await pass(60_000);
  assert.deepEqual(read, []);
});

test('what is done to the user is read, once for several reasons', async () => {
  const { answers, entry, pass, read, take } = await withTea();
  answers.set('/v1/rooms/tea', room('tea', { head: 12, participants: [{ user: 'ann', role: 'muted', read: 10 }] }));
  take({ kind: 'role', subject: 'ann', role: 'moderator' });
  take({ kind: 'role', subject: 'ann', role: 'muted' });
  await pass(1000);
  assert.deepEqual(read, ['/v1/rooms/tea']);
  assert.equal(entry.part, 'muted');
});

test('an event that a room was read after counts no more, nor does a list from before an event', async () => {
  const { answers, entry, rooms, take } = await withTea({}, {}, { head: 12, participant_count: 3 });
  entry.log.base = 10;
  take({ kind: 'join', sender: 'bob' });
  take({ kind: 'join', sender: 'cy' });
  assert.equal(entry.room.participant_count, 3);
  take({ kind: 'topic', text: 'Green' });
  await rooms.load();
  assert.equal(entry.room.topic, 'Green');
  answers.set(OWN, { rooms: [own('tea', {}, {}, { head: 13, topic: 'Green', participant_count: 4 })], next: null });
  await rooms.load();
  assert.equal(entry.room.participant_count, 4, 'the next list puts right what events do not say');
});

test('a room that ends while the user is in it is followed again, less and less often', async () => {
  const { answers, end, followed, pass, read, rooms } = await withTea();
  answers.set('/v1/rooms/tea', room('tea'));
  followed.length = 0;
  end('forbidden');
  await pass(1000);
  assert.deepEqual(followed, ['tea']);
  for (let i = 0; i < 20; i++) {
    end('forbidden');
    await pass(30_000);
  }
  assert.ok(followed.length < 10, `${followed.length} times`);
  followed.length = 0;
  await rooms.load();
  assert.deepEqual(followed, ['tea'], 'with the next list');
  end('forbidden');
  rooms.open('tea');
  rooms.open('tea');
  assert.deepEqual(followed, ['tea', 'tea'], 'and when it is looked at');
  rooms.followed('tea', { epoch: 'e', firstSeq: 1, head: 10, recovered: true });
  end('forbidden');
  await pass(1000);
  assert.equal(followed.length, 3, 'at once, where it went well in between');
  read.length = 0;
  end('limit_reached');
  await pass(60_000);
  assert.deepEqual([followed.length, read], [3, []], 'there is no place for it');
});

test('who is banned does not follow', async () => {
  const { answers, end, followed, pass, rooms } = await withTea();
  answers.set('/v1/rooms/tea', room('tea', { participants: [{ user: 'ann', role: 'banned', read: 10 }] }));
  end('banned');
  await pass(1000);
  assert.deepEqual([followed, rooms.get('tea')?.part], [['tea'], 'banned']);
});

test('a room that cannot go on from its cursor begins at its head, and shows what it does not keep', async () => {
  const { answers, entry, rooms, take } = await withTea();
  take({});
  const { log } = entry;
  rooms.followed('tea', { epoch: 'e', firstSeq: 40, head: 42, recovered: false });
  assert.notEqual(entry.log, log);
  assert.deepEqual([entry.log.cursor, entry.log.firstSeq, entry.log.hasOlder], ['e:42', 40, true]);
  assert.equal(rooms.unread(entry).many, true);
  const events = [event(40), event(41), event(42)];
  answers.set('/v1/rooms/tea/events?before=e%3A43&limit=60', { epoch: 'e', first_seq: 40, head: 42, recovered: true, events });
  await rooms.loadOlder('tea');
  assert.deepEqual([entry.log.events.length, entry.log.hasOlder], [3, false]);
});

test('of a room that nobody scrolls, the newest events are kept; what was not read stays counted', async () => {
  const { answers, entry, rooms, take, view } = await withTea({ read: 8 }, { messages: 2 });
  take({ text: '@ann', mentions: ['ann'] });
  for (let i = 1; i < 5 * KEPT; i++) take(i % 2 ? {} : { sender: 'ann' });
  assert.ok(entry.log.events.length <= 2 * KEPT, `${entry.log.events.length} events`);
  const all = { count: 2 + 1 + (5 * KEPT) / 2, many: false, mentioned: true };
  assert.deepEqual(rooms.unread(entry), all);
  await rooms.load();
  assert.deepEqual(rooms.unread(entry), all, 'a list from before takes nothing of that back');
  rooms.rest('tea');
  assert.equal(entry.log.events.length, KEPT);
  assert.deepEqual(rooms.unread(entry), all);
  answers.set(OWN, { rooms: [own('tea', { read: 10 }, { messages: 3 }, { head: entry.log.last })], next: null });
  await rooms.load();
  assert.deepEqual(rooms.unread(entry), { count: 3, many: false, mentioned: false });
  rooms.see(entry);
  take({});
  assert.equal(rooms.unread(entry).count, 1);
  view.mayForget = false;
  for (let i = 0; i < 3 * KEPT; i++) take({});
  assert.ok(entry.log.events.length > 3 * KEPT, 'somebody is reading the oldest');
});

test('a mention counts as it was first said, as the server counts', async () => {
  const { entry, rooms, take } = await withTea();
  take({ text: 'hello' });
  take({ kind: 'edit', target: 11, text: 'hello @ann', mentions: ['ann'] });
  assert.deepEqual(rooms.unread(entry), { count: 1, many: false, mentioned: false });
  take({ text: 'hi @ann', mentions: ['ann'] });
  take({ kind: 'edit', target: 13, text: 'hi' });
  take({ kind: 'edit', target: 13, text: 'hi all' });
  assert.equal(rooms.unread(entry).mentioned, true);
  take({ kind: 'redaction', target: 13 });
  assert.deepEqual(rooms.unread(entry), { count: 1, many: false, mentioned: false });
});

test('a page of history is told of, when it fits', async () => {
  const { answers, older, rooms } = await withTea();
  const path = '/v1/rooms/tea/events?before=e%3A11&limit=60';
  answers.set(path, { epoch: 'other', first_seq: 1, head: 10, recovered: true, events: [event(10)] });
  await rooms.loadOlder('tea');
  assert.deepEqual(older, []);
  answers.set(path, { epoch: 'e', first_seq: 1, head: 10, recovered: true, events: [event(9), event(10)] });
  await rooms.loadOlder('tea');
  assert.deepEqual(older, [9, 10]);
});
