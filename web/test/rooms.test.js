import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Marks } from '../client/marks.js';
import { Rooms, isIn } from '../page/rooms.js';
import { FakeStorage, event } from './fake.js';

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
  participants: [{ user: 'ann', role: 'member' }],
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
  const fake = { follow: (/** @type {string} */ id) => followed.push(id), unfollow: () => {}, refollow: () => {} };
  const session = /** @type {Session} */ (/** @type {unknown} */ (fake));
  const marks = new Marks('ann', new FakeStorage());
  const rooms = new Rooms({ me: 'ann', marks, session, onChange: () => {} });
  return { answers, followed, marks, rooms };
};

test('rooms that one is in are followed; others are only listed', async () => {
  const { answers, followed, rooms } = setup();
  answers.set('/v1/rooms?limit=1000', { rooms: [room('tea'), room('rum')] });
  answers.set('/v1/rooms/tea', room('tea'));
  answers.set('/v1/rooms/rum', room('rum', { participants: [{ user: 'ann', role: 'member', invited: true }] }));
  await rooms.load();
  assert.deepEqual(followed, ['tea']);
  assert.equal(rooms.get('rum')?.part, 'invited');
});

test('a room that is made while the list is on its way stays; one that is gone goes', async () => {
  const { answers, rooms } = setup();
  answers.set('/v1/rooms/new', room('new'));
  answers.set('/v1/rooms/old', room('old'));
  await rooms.refresh('old');
  /** @type {(list: object) => void} */
  let arrive = () => {};
  answers.set('/v1/rooms?limit=1000', new Promise((resolve) => (arrive = resolve)));
  const loading = rooms.load();
  await rooms.refresh('new');
  arrive({ rooms: [] });
  await loading;
  assert.ok(isIn(rooms.get('new')?.part ?? 'none'));
  assert.equal(rooms.get('old'), undefined);
});

test('what is new is counted from what this browser has seen, without its own messages', async () => {
  const { answers, marks, rooms } = setup();
  answers.set('/v1/rooms/tea', room('tea'));
  await rooms.refresh('tea');
  const entry = rooms.get('tea') ?? assert.fail();
  assert.equal(rooms.unread(entry).count, 0, 'nothing, where it never looked');
  rooms.take('tea', event(11, { sender: 'bob', mentions: ['ann'] }));
  rooms.take('tea', event(12));
  rooms.take('tea', event(13, { sender: 'bob', kind: 'reaction', target: 12 }));
  assert.deepEqual(rooms.unread(entry), { count: 1, many: false, mentioned: true });
  rooms.noteNew(entry);
  assert.equal(entry.newAfter, 10);
  rooms.see(entry);
  assert.equal(rooms.unread(entry).count, 0);
  assert.deepEqual(marks.get('tea'), { epoch: 'e', seq: 13 });
});
