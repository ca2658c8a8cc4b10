import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COUNTED_MAX, Marks, countFrom } from '../client/marks.js';
import { FakeStorage } from './fake.js';

test('marks are kept for each user and room, and are not moved back', () => {
  const storage = new FakeStorage();
  const marks = new Marks('ann', storage);
  assert.equal(marks.get('tea'), null);
  marks.set('tea', { epoch: 'e', seq: 7 });
  marks.set('tea', { epoch: 'e', seq: 3 });
  assert.deepEqual(new Marks('ann', storage).get('tea'), { epoch: 'e', seq: 7 });
  assert.equal(new Marks('bob', storage).get('tea'), null);
  marks.set('tea', { epoch: 'restored', seq: 3 });
  assert.deepEqual(marks.get('tea'), { epoch: 'restored', seq: 3 });
});

test('what is new is counted from where the browser looked last, if that is worth it', () => {
  const room = { epoch: 'e', head: 1000, first_seq: 1 };
  assert.deepEqual(countFrom(null, room), { from: 1000, many: false }, 'never looked');
  assert.deepEqual(countFrom({ epoch: 'e', seq: 990 }, room), { from: 990, many: false });
  assert.deepEqual(countFrom({ epoch: 'old', seq: 990 }, room), { from: 1000, many: false });
  const far = { epoch: 'e', seq: 1000 - COUNTED_MAX - 1 };
  assert.deepEqual(countFrom(far, room), { from: 1000, many: true });
  assert.deepEqual(countFrom(far, { ...room, first_seq: 996 }), { from: 995, many: false });
});
