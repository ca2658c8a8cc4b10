import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RoomLog } from '../client/roomlog.js';
import { event } from './fake.js';

/** @param {RoomLog} log */
const seqs = (log) => log.events.map(({ seq }) => seq);

/**
 * @param {number} from
 * @param {number} to
 * @param {number} head
 * @returns {import('../client/types.js').Page}
 */
const page = (from, to, head) => {
  const events = [];
  for (let seq = from; seq <= to; seq++) events.push(event(seq));
  return { epoch: 'e', first_seq: 1, head, recovered: true, events };
};

test('what comes twice is dropped, and what would leave a gap is not taken', () => {
  const log = new RoomLog('e', 4);
  assert.equal(log.add(event(5)), 'new');
  assert.equal(log.add(event(5)), 'known');
  assert.equal(log.add(event(4)), 'known');
  assert.equal(log.add(event(7)), 'gap');
  assert.equal(log.add(event(6)), 'new');
  assert.deepEqual(seqs(log), [5, 6]);
  assert.equal(log.cursor, 'e:6');
});

test('pages go before what is here, without a gap and without a repetition', () => {
  const log = new RoomLog('e', 10);
  log.add(event(11));
  assert.equal(log.prepend(page(3, 8, 11)), false, 'a hole before 10');
  assert.equal(log.prepend({ ...page(6, 10, 11), epoch: 'other' }), false);
  assert.equal(log.prepend(page(6, 11, 11)), true, 'it overlaps');
  assert.deepEqual(seqs(log), [6, 7, 8, 9, 10, 11]);
  assert.equal(log.hasOlder, true);
  assert.equal(log.prepend(page(1, 5, 11)), true);
  assert.equal(log.hasOlder, false);
  assert.deepEqual(seqs(log), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
});

test('what is not kept any more is not asked for again', () => {
  const log = new RoomLog('e', 10);
  log.prepend({ ...page(8, 10, 10), first_seq: 8 });
  assert.equal(log.hasOlder, false);
  const empty = new RoomLog('e', 10);
  empty.prepend({ ...page(1, 0, 10), first_seq: 11 });
  assert.equal(empty.hasOlder, false);
});

test('edits, reactions and redactions change the message that they mean', () => {
  const log = new RoomLog('e', 0);
  log.add(event(1));
  const before = log.at(1);
  log.add(event(2, { kind: 'edit', target: 1, text: 'better', mentions: ['bob'] }));
  assert.notEqual(log.at(1), before, 'another object');
  assert.equal(log.at(1)?.text, 'better');
  assert.deepEqual(log.at(1)?.mentions, ['bob']);
  assert.equal(log.at(1)?.edits?.length, 1);
  const unnamed = new RoomLog('e', 0);
  unnamed.add(event(1, { mentions: ['bob'] }));
  unnamed.add(event(2, { kind: 'edit', target: 1, text: 'nobody' }));
  assert.deepEqual(unnamed.at(1)?.mentions, [], 'an edit mentions whom it names, and nobody else');
  log.add(event(3, { kind: 'reaction', target: 1, text: '+1', sender: 'bob' }));
  log.add(event(4, { kind: 'reaction', target: 1, text: '+1', sender: 'cy' }));
  assert.deepEqual(log.at(1)?.reactions, [{ symbol: '+1', users: ['bob', 'cy'] }]);
  log.add(event(5, { kind: 'reaction', target: 1, text: '+1', sender: 'bob', withdrawn: true }));
  assert.deepEqual(log.at(1)?.reactions, [{ symbol: '+1', users: ['cy'] }]);
  log.add(event(6, { target: 1, text: 'an answer' }));
  assert.equal(log.at(1)?.reply_count, 1);
  log.add(event(7, { kind: 'redaction', target: 1, text: 'spam' }));
  assert.equal(log.at(1)?.text, '');
  assert.equal(log.at(1)?.redacted, true);
  log.add(event(8, { kind: 'edit', target: 1, text: 'back again' }));
  assert.equal(log.at(1)?.text, '', 'what is redacted stays so');
});

test('a page and what comes live may overlap: nothing is applied twice, nothing is missed', () => {
  const log = new RoomLog('e', 1);
  log.add(event(2, { kind: 'edit', target: 1, text: 'once' }));
  log.add(event(3, { kind: 'reaction', target: 1, text: '+1', sender: 'bob' }));
  log.add(event(4, { target: 1 }));
  // Asked for when the head was 2, answered now.
  const shown = { ...event(1), text: 'once', edits: [{ seq: 2, at: '', text: 'once' }] };
  log.prepend({ epoch: 'e', first_seq: 1, head: 2, recovered: true, events: [shown] });
  assert.equal(log.at(1)?.edits?.length, 1);
  assert.deepEqual(log.at(1)?.reactions, [{ symbol: '+1', users: ['bob'] }]);
  assert.equal(log.at(1)?.reply_count, 1);
});

test('the oldest are forgotten and can be fetched again', () => {
  const log = new RoomLog('e', 0);
  for (let seq = 1; seq <= 10; seq++) log.add(event(seq));
  log.trim(3);
  assert.deepEqual(seqs(log), [8, 9, 10]);
  assert.equal(log.last, 10);
  assert.equal(log.hasOlder, true);
  log.prepend(page(1, 7, 10));
  assert.equal(log.events.length, 10);
});
