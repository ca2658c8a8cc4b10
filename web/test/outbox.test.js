import assert from 'node:assert/strict';
import { test } from 'node:test';
import './node.js';
import { forget, Outbox } from '../client/outbox.js';
import { mintedAt } from '../client/uuid.js';
import { FakeStorage, FakeTimers, event } from './fake.js';

/** @import { Draft } from '../client/outbox.js' */

const LATER = { code: 'overloaded', message: '', temporary: true, may_have_applied: false, retry_after_ms: 5000 };
const NO = { code: 'muted', message: 'no', temporary: false, may_have_applied: false };

const setup = (storage = new FakeStorage()) => {
  const timers = new FakeTimers();
  /** @type {{ id: string, text: string }[]} */
  const sent = [];
  const outbox = new Outbox({ user: 'ann', storage, timers, random: () => 0.5, onChange: () => {} });
  const send = (/** @type {Draft} */ { id, text }) => sent.push({ id, text });
  const texts = () => sent.map(({ text }) => text);
  /** @param {number} seq */
  const ack = (seq, { id } = sent[sent.length - 1] ?? assert.fail()) =>
    outbox.acknowledged(id, { seq, epoch: 'e', at: '', duplicate: false, client_msg_id: id });
  const last = () => sent[sent.length - 1] ?? assert.fail('nothing was sent');
  return { storage, timers, sent, outbox, send, texts, ack, last };
};

test('what is written without a connection is sent once there is one, in order', () => {
  const { outbox, send, texts, ack } = setup();
  outbox.post('tea', 'one');
  outbox.post('tea', 'two');
  assert.deepEqual(texts(), []);
  outbox.connected(send);
  assert.deepEqual(texts(), ['one'], 'one at a time');
  ack(1);
  assert.deepEqual(texts(), ['one', 'two']);
});

test('rooms do not wait for one another', () => {
  const { outbox, send, texts } = setup();
  outbox.connected(send);
  outbox.post('tea', 'one');
  outbox.post('rum', 'two');
  assert.deepEqual(texts(), ['one', 'two']);
});

test('without an answer it is sent again with the same id, over another connection', () => {
  const { outbox, send, sent } = setup();
  outbox.connected(send);
  outbox.post('tea', 'one');
  outbox.disconnected();
  outbox.connected(send);
  assert.equal(sent.length, 2);
  assert.equal(sent[0]?.id, sent[1]?.id);
});

test('it outlives a reload, with its id, until it is acknowledged', () => {
  const first = setup();
  first.outbox.connected(first.send);
  first.outbox.post('tea', 'one', 7);
  const second = setup(first.storage);
  assert.equal(second.outbox.of('tea')[0]?.replyTo, 7);
  second.outbox.connected(second.send);
  assert.deepEqual(second.sent, first.sent);
  second.ack(1);
  assert.equal(first.storage.length, 0);
  const third = setup(first.storage);
  third.outbox.connected(third.send);
  assert.deepEqual(third.sent, []);
});

test('rows of other users, and rows that are none, are left alone', () => {
  const storage = new FakeStorage();
  storage.setItem('folkmoot.outbox.bob.x', '{"id":"x","room":"tea","text":"hi","at":1}');
  storage.setItem('folkmoot.outbox.ann.y', 'not json');
  storage.setItem('folkmoot.outbox.ann.z', '{"id":"another","room":"tea","text":"hi","at":1}');
  const { outbox, send, sent } = setup(storage);
  outbox.connected(send);
  assert.deepEqual(sent, []);
  assert.equal(storage.length, 3);
});

test('its own event is an answer as well, when the acknowledgement was lost', () => {
  const { outbox, send, sent, storage, last } = setup();
  outbox.connected(send);
  outbox.post('tea', 'one');
  outbox.disconnected();
  outbox.seen('tea', event(3, { sender: 'bob', client_msg_id: last().id }));
  assert.equal(outbox.of('tea').length, 1, "somebody else's is none");
  outbox.seen('tea', event(3, { client_msg_id: last().id }));
  assert.deepEqual(outbox.of('tea'), []);
  assert.equal(storage.length, 0);
  outbox.connected(send);
  assert.equal(sent.length, 1);
});

test('what is acknowledged is shown as sent until the room shows it', () => {
  const { outbox, send, ack } = setup();
  outbox.connected(send);
  outbox.post('tea', 'one');
  assert.equal(outbox.of('tea')[0]?.state, 'sending');
  ack(9);
  assert.equal(outbox.of('tea')[0]?.state, 'sent');
  outbox.shown('tea', 8);
  assert.equal(outbox.of('tea').length, 1);
  outbox.shown('tea', 9);
  assert.deepEqual(outbox.of('tea'), []);
});

test('signing out takes what other tabs have not sent, and nothing of other users', () => {
  const storage = new FakeStorage();
  storage.setItem('folkmoot.outbox.ann.b.x', '{"id":"x","room":"tea","text":"hi","at":1}');
  const one = setup(storage);
  const two = setup(storage);
  one.outbox.post('tea', 'here');
  two.outbox.post('tea', 'in another tab');
  assert.deepEqual([one.outbox.size, two.outbox.size], [2, 2]);
  two.outbox.connected(two.send);
  two.ack(1);
  assert.deepEqual([one.outbox.size, two.outbox.size], [1, 1], 'what is acknowledged is sent');
  two.outbox.post('tea', 'in another tab, too');
  one.outbox.clear();
  assert.deepEqual([one.outbox.size, one.outbox.of('tea')], [0, []]);
  assert.deepEqual([...storage.rows.keys()], ['folkmoot.outbox.ann.b.x']);
  // The other tab is told, and what it has is of no more use to anybody.
  two.outbox.clear();
  two.outbox.refused(two.last().id, NO);
  assert.equal(storage.length, 1);
  one.outbox.post('tea', 'and does not come back');
  forget(storage, 'ann');
  assert.deepEqual([...storage.rows.keys()], ['folkmoot.outbox.ann.b.x'], 'somebody else has signed in');
});

test('what storage does not take counts too', () => {
  const storage = new FakeStorage();
  storage.setItem = () => {
    throw new Error('it is full');
  };
  const { outbox } = setup(storage);
  outbox.post('tea', 'one');
  assert.equal(outbox.size, 1);
  outbox.clear();
  assert.equal(outbox.size, 0);
});

test('a temporary error: again with the same id, not before retry_after, and nothing overtakes', () => {
  const { outbox, send, sent, texts, timers, last } = setup();
  outbox.connected(send);
  outbox.post('tea', 'one');
  outbox.refused(last().id, LATER);
  outbox.post('tea', 'two');
  timers.pass(4999);
  assert.deepEqual(texts(), ['one']);
  timers.pass(1);
  assert.deepEqual(texts(), ['one', 'one']);
  assert.equal(sent[0]?.id, sent[1]?.id);
  for (let i = 0; i < 6; i++) {
    outbox.refused(last().id, { ...LATER, retry_after_ms: 0 });
    timers.pass(30_000);
  }
  assert.equal(sent.length, 8, 'as long as it takes');
});

test('a refusal is shown; then its writer may try again with the same id, or discard it', () => {
  const { outbox, send, sent, texts, storage, last } = setup();
  outbox.connected(send);
  outbox.post('tea', 'one');
  outbox.post('tea', 'two');
  const { id } = last();
  outbox.refused(id, NO);
  assert.equal(outbox.of('tea')[0]?.state, 'failed');
  assert.deepEqual(texts(), ['one', 'two'], 'the next one does not wait for it');
  const again = setup(storage);
  assert.equal(again.outbox.of('tea')[0]?.state, 'failed', 'it outlives a reload too');
  outbox.refused(last().id, NO);
  outbox.retry(id);
  assert.equal(last().id, id);
  assert.equal(sent.length, 3);
  outbox.refused(id, NO);
  outbox.discard(id);
  assert.deepEqual(outbox.of('tea').map(({ text }) => text), ['two']);
  assert.equal(storage.length, 1);
});

test('only what is certainly not there, and cannot get there, gets another id', () => {
  const { outbox, send, last } = setup();
  outbox.connected(send);
  outbox.post('tea', 'one');
  const { id } = last();
  outbox.refused(id, { ...NO, code: 'internal', may_have_applied: true });
  outbox.retry(id);
  assert.equal(last().id, id);
  outbox.refused(id, { ...NO, code: 'expired' });
  outbox.retry(id);
  assert.notEqual(last().id, id);
});

test('a clock that is wrong is corrected, and the message keeps its place', () => {
  const { outbox, send, timers, texts, sent, last, ack } = setup();
  outbox.connected(send);
  outbox.post('tea', 'one');
  outbox.post('tea', 'two');
  const { id } = last();
  const server_time_ms = timers.now() - 3_600_000;
  outbox.refused(id, { ...NO, code: 'clock_skew', server_time_ms });
  assert.deepEqual(texts(), ['one', 'one']);
  assert.notEqual(last().id, id);
  assert.equal(mintedAt(last().id), server_time_ms);
  ack(1);
  assert.deepEqual(texts(), ['one', 'one', 'two']);
  outbox.refused(last().id, { ...NO, code: 'clock_skew', server_time_ms });
  assert.equal(sent.length, 3, 'one that is corrected and refused again is not sent for ever');
});

test("ids have the server's time", () => {
  const { outbox, send, timers, last } = setup();
  outbox.connected(send, timers.now() + 90_000);
  outbox.post('tea', 'one');
  assert.equal(mintedAt(last().id), timers.now() + 90_000);
});
