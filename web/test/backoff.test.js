import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PAUSE_MS_MAX, SOON_MS, plan } from '../client/backoff.js';

const [least, most] = [() => 0, () => 0.999999];

/** @param {import('../client/backoff.js').End} end @param {() => number} random */
const ms = (end, random) => {
  const next = plan(end, random);
  assert.ok(next.again);
  return next.afterMs;
};

test('40xx and a lost network: at once, at a moment picked by chance', () => {
  for (const code of [4000, 4001, 4002, 1006, 1001]) {
    assert.equal(ms({ code, failures: 0 }, least), 0);
    const latest = ms({ code, failures: 0 }, most);
    assert.ok(latest > SOON_MS / 2 && latest <= SOON_MS, `${code}: ${latest}`);
  }
});

test('a pause grows up to half a minute, with chance in it', () => {
  const longest = Array.from({ length: 20 }, (_, i) => ms({ code: 1006, failures: i + 1 }, most));
  for (let i = 1; i < longest.length; i++) assert.ok((longest[i] ?? 0) >= (longest[i - 1] ?? 0));
  assert.ok((longest[0] ?? 0) <= 1000 && (longest[0] ?? 0) > 500);
  assert.ok((longest.at(-1) ?? 0) <= PAUSE_MS_MAX && (longest.at(-1) ?? 0) > PAUSE_MS_MAX - 1);
  assert.equal(ms({ code: 1006, failures: 20 }, least), PAUSE_MS_MAX / 2);
});

test('41xx: not before what the node says', () => {
  assert.equal(ms({ code: 4101, retryAfterMs: 7000, failures: 0 }, least), 7000);
  assert.ok(ms({ code: 4100, retryAfterMs: 7000, failures: 0 }, most) > 7000);
  assert.ok(ms({ code: 4100, retryAfterMs: 7000, failures: 0 }, most) <= 7000 + SOON_MS);
  assert.ok(ms({ code: 4100, failures: 0 }, least) >= 500, 'without a word, a pause');
  assert.ok(ms({ code: 4100, retryAfterMs: 100, failures: 6 }, least) >= 15_000, 'again and again');
});

test('44xx: not before something has changed', () => {
  assert.deepEqual(plan({ code: 4401, failures: 0 }, least), { again: false, why: 'signed_out' });
  assert.deepEqual(plan({ code: 4400, failures: 0 }, least), { again: false, why: 'refused' });
});
