import assert from 'node:assert/strict';
import { test } from 'node:test';
import { People, Typing, TYPING_EVERY_MS } from '../client/people.js';
import { FakeTimers } from './fake.js';

test('what is told of people adds up, until the room is followed anew', () => {
  const people = new People();
  assert.equal(people.present, null);
  people.take({ type: 'presence', present: 2, people: [{ user: 'ann', status: 'online' }, { user: 'bob', status: 'offline', last_seen: '2026-01-01T00:00:00.000Z' }] });
  people.take({ type: 'presence', present: 1, people: [{ user: 'ann', status: 'away' }] });
  assert.equal(people.present, 1);
  assert.equal(people.of('ann').status, 'away');
  assert.equal(people.of('bob').last_seen, '2026-01-01T00:00:00.000Z');
  assert.deepEqual(people.of('cid'), { user: 'cid', status: 'offline' });
  people.take({ type: 'typing', users: ['bob'] });
  people.take({ type: 'receipts', marks: [{ user: 'bob', seq: 5 }, { user: 'ann', seq: 7 }] });
  people.take({ type: 'receipts', marks: [{ user: 'bob', seq: 7 }] });
  assert.deepEqual([people.typing, people.readersOf(7), people.readersOf(8)], [['bob'], ['ann', 'bob'], []]);
  people.take({ type: 'presence', present: 300, people: [] });
  assert.deepEqual([people.present, people.of('ann').status, people.readersOf(1)], [300, 'offline', []]);
  people.take({ type: 'presence', present: 250, people: [{ user: 'ann', status: 'online' }] });
  people.take({ type: 'receipts', marks: [{ user: 'bob', seq: 7 }] });
  people.reset();
  assert.deepEqual([people.present, people.typing, people.readersOf(1), people.of('ann').status], [null, [], [], 'offline']);
});

test('that somebody types is said now and then, and that they have stopped', () => {
  const timers = new FakeTimers();
  /** @type {[string, boolean][]} */
  const said = [];
  const typing = new Typing(timers, (room, types) => said.push([room, types]));
  typing.changed('tea', false);
  typing.changed('tea', true);
  typing.changed('tea', true);
  timers.pass(TYPING_EVERY_MS);
  typing.changed('tea', true);
  assert.deepEqual(said.splice(0), [['tea', true], ['tea', true]]);
  typing.changed('rum', true);
  assert.deepEqual(said.splice(0), [['tea', false], ['rum', true]]);
  typing.changed('rum', false);
  assert.deepEqual(said.splice(0), [['rum', false]]);
  typing.changed('rum', true);
  typing.posted();
  typing.changed('rum', false);
  typing.changed('rum', true);
  timers.pass(3 * TYPING_EVERY_MS);
  typing.changed('rum', false);
  assert.deepEqual(said, [['rum', true], ['rum', true]], 'a post, and time, end it by themselves');
});
