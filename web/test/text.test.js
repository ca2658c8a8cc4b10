import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pieces } from '../page/text.js';

/** What of a text mentions ann. @param {string} text @param {string} [me] */
const own = (text, me = 'ann') => pieces(text, me).flatMap(({ parts }) => parts.filter(({ own }) => own).map(({ text }) => text));

/** The links of a text, as they are shown. @param {string} text */
const links = (text) => pieces(text, 'ann').filter(({ href }) => href !== null).map(({ parts }) => parts.map(({ text }) => text).join(''));

/** All of a text. @param {string} text */
const whole = (text, me = 'ann') => pieces(text, me).flatMap(({ parts }) => parts.map(({ text }) => text)).join('');

test('what a link begins with is said once, also where it might be a mention', () => {
  const text = 'see @https://x.example/ and @a.http://x.example/';
  for (const me of ['https', 'a.http']) assert.equal(whole(text, me), text);
});

test('what is marked is what the server takes for a mention', () => {
  /** The cases of src/chat/mention.rs, and what is at their edges. @type {[string, string[]][]} */
  const cases = [
    ['@ann', ['@ann']],
    ['hi @ann, and (@bob)!', ['@ann']],
    ['@Ann @ann @ANN', ['@Ann', '@ann', '@ANN']],
    ['ask @ann.', ['@ann']],
    ['ask @ann.b-c_d...', []],
    ['a@ann \u00e4@ann 7@ann \u0967@ann \u{10400}@ann', []],
    ['@@ann .@ann -@ann _@ann', ['@ann', '@ann', '@ann', '@ann']],
    ['\u{1f600}@ann\u{1f600}', ['@ann']],
    ['@ann\u00e4', ['@ann']],
    ['@ann_', []],
    ['@ann@ann @ann.@ann', ['@ann', '@ann', '@ann']],
    ['', []],
  ];
  for (const [text, expected] of cases) {
    assert.deepEqual(own(text), expected, text);
    assert.equal(whole(text), text);
  }
  assert.deepEqual(own('ask @ann.b-c_d...', 'ann.b-c_d'), ['@ann.b-c_d']);
  const longest = 'a'.repeat(64);
  assert.deepEqual(own(`@${longest}. @${longest}a`, longest), [`@${longest}`]);
  const many = Array.from({ length: 50 }, (_, n) => `@u${n}`).join(' ');
  assert.deepEqual(own(`${many} @ann @u49`), [], 'fifty at most');
  assert.deepEqual(own(`${many} @ann @u49`, 'u49'), ['@u49', '@u49']);
});

test('links end before the punctuation of their sentence', () => {
  const text = 'See (https://example.org/a?b=1), http://b.example/x! and https://c.example/@ann or javascript:alert(1).';
  assert.deepEqual(links(text), ['https://example.org/a?b=1', 'http://b.example/x', 'https://c.example/@ann']);
  assert.deepEqual(own(text), ['@ann']);
  assert.equal(whole(text), text);
  assert.deepEqual(links('http:// https://[ and http://'), []);
});

/** As many different ones as a text has place for. */
const LETTERS = Array.from({ length: 20_000 }, (_, i) => String.fromCodePoint(0x4e00 + i)).join('');

test('a text as long as one may be is taken apart in no time', () => {
  const hostile = [
    ['http://a', '!', 'x'],
    ['http://a', ')', ' '],
    ['@a', '.', 'x'],
    ['@', 'a', 'x'],
    ['', '@', 'x'],
    ['', '@ann', ''],
    ['', '@a.', 'x'],
    ['', 'http://', 'x'],
    ['', 'http://a ', ''],
    ['', 'http://a@ann ', ''],
    ['http://', '\u00e4', ''],
    ['http://a', '\u0301\u0323', ''],
    ['http:///\\', LETTERS, ''],
    ['https://a/', LETTERS, '/'],
    ['', '\u{1f600}@', ''],
  ];
  for (const [before = '', unit = '', after = ''] of hostile) {
    const text = before + unit.repeat(Math.max(1, 65_500 / unit.length)) + after;
    const start = performance.now();
    assert.equal(whole(text), text);
    const ms = performance.now() - start;
    assert.ok(ms < 200, `${before}${unit.slice(0, 20)}…${after}: ${Math.round(ms)} ms`);
  }
});
