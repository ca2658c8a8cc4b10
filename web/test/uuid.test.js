import assert from 'node:assert/strict';
import { test } from 'node:test';
import './node.js';
import { Ids, mintedAt } from '../client/uuid.js';

const SHAPE = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

test('ids are UUIDs of version 7 with their time in them', () => {
  const id = new Ids().mint(1_764_370_000_123);
  assert.match(id, SHAPE);
  assert.equal(mintedAt(id), 1_764_370_000_123);
});

test('ids sort as they were minted, within a millisecond and when the clock is set back', () => {
  const ids = new Ids();
  const minted = [];
  for (let i = 0; i < 10_000; i++) minted.push(ids.mint(i < 5000 ? 1000 : 900));
  assert.deepEqual(minted, [...minted].sort());
  assert.equal(new Set(minted).size, minted.length);
  for (const id of minted) assert.match(id, SHAPE);
});

test('two that mint at once do not mint the same', () => {
  assert.notEqual(new Ids().mint(1000), new Ids().mint(1000));
});
