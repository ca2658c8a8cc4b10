import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Marks, PAUSE_MS } from '../client/marks.js';
import { FakeTimers } from './fake.js';

const FAILURE = { code: 'unavailable', message: '', temporary: true, may_have_applied: true };

const setup = () => {
  const timers = new FakeTimers();
  const marks = new Marks(timers);
  /** @type {[string, number][]} */
  const sent = [];
  const connect = () => marks.connected((room, seq) => sent.push([room, seq]));
  return { timers, marks, sent, connect };
};

test('a mark goes at once; those that follow go as one, after a pause', () => {
  const { timers, marks, sent, connect } = setup();
  connect();
  marks.move('tea', 5);
  marks.move('tea', 6);
  marks.move('rum', 1);
  assert.deepEqual(sent, [['tea', 5], ['rum', 1]]);
  marks.acknowledged('tea');
  marks.move('tea', 9);
  marks.move('tea', 7);
  timers.pass(PAUSE_MS - 1);
  assert.equal(sent.length, 2);
  timers.pass(1);
  assert.deepEqual(sent.slice(2), [['tea', 9]]);
  marks.acknowledged('tea');
  timers.pass(PAUSE_MS);
  marks.move('tea', 10);
  assert.deepEqual(sent.slice(3), [['tea', 10]], 'at once again');
});

test('what was not acknowledged goes again on the next connection', () => {
  const { timers, marks, sent, connect } = setup();
  marks.move('tea', 5);
  assert.deepEqual(sent, []);
  connect();
  marks.move('rum', 2);
  marks.acknowledged('rum');
  marks.disconnected();
  timers.pass(10 * PAUSE_MS);
  connect();
  assert.deepEqual(sent, [['tea', 5], ['rum', 2], ['tea', 5]], 'rum is done');
});

test('a mark that was refused for a while goes again; one that was refused for good does not', () => {
  const { timers, marks, sent, connect } = setup();
  connect();
  marks.move('tea', 5);
  marks.refused('tea', { ...FAILURE, retry_after_ms: 3 * PAUSE_MS });
  timers.pass(3 * PAUSE_MS - 1);
  assert.equal(sent.length, 1);
  timers.pass(1);
  assert.equal(sent.length, 2);
  marks.refused('tea', { ...FAILURE, code: 'not_participant', temporary: false });
  timers.pass(10 * PAUSE_MS);
  assert.equal(sent.length, 2);
});
