import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Rooms, isIn } from '../page/rooms.js';
import { event } from './fake.js';

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
  globalThis.fetch = async (path) => {
    const found = await answers.get(String(path));
    const gone = { error: { code: 'room_not_found', message: '', temporary: false, may_have_applied: false } };
    return new Response(JSON.stringify(found ?? gone), { status: found ? 200 : 404 });
  };
  /** @type {string[]} */
  const followed = [];
  /** @type {[string, number][]} */
  const marked = [];
  const fake = {
    follow: (/** @type {string} */ id) => followed.push(id),
    unfollow: () => {},
    refollow: () => {},
    markRead: (/** @type {string} */ id, /** @type {number} */ seq) => marked.push([id, seq]),
  };
  const session = /** @type {Session} */ (/** @type {unknown} */ (fake));
  const rooms = new Rooms({ me: 'ann', session, onChange: () => {} });
  answers.set(LIST, { rooms: [] });
  answers.set(OWN, { rooms: [], next: null });
  return { answers, followed, marked, rooms };
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
