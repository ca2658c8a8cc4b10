// Two people in two browsers, on two nodes, while nodes die: each sees every message once. One has a password,
// the other comes by a provider of OpenID Connect.
//
// Run by tests/page.rs, which has the nodes: this tells it, a line of JSON at a time, what to do
// with them, and waits for its answer. The first line it gets says where they are.

import assert from 'node:assert/strict';
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { Chromium, until } from './chromium.js';

/** @import { Page } from './chromium.js' */

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const next = async () => JSON.parse((await lines.next()).value ?? 'null');

/** `provider`: whether bob signs in by one. @type {{ chromium: string, nodes: string[], password: string, past: number, provider: boolean }} */
const { chromium: path, nodes, password, past, provider } = await next();

/** Has something done to a node. @param {'kill' | 'restart' | 'fill'} what @param {number} node */
const have = async (what, node) => {
  process.stdout.write(`${JSON.stringify({ do: what, node })}\n`);
  assert.deepEqual(await next(), { done: what });
};

/** A load balancer: each connection goes to the first of these nodes that takes it. @param {string[]} urls */
const balance = async (urls) => {
  const server = createServer((client) => {
    const attempt = (/** @type {number} */ i) => {
      const { hostname, port } = new URL(urls[i] ?? '');
      const node = connect(Number(port), hostname);
      node.once('connect', () => client.pipe(node).pipe(client));
      node.once('error', () => (node.bytesRead === 0 && i + 1 < urls.length ? attempt(i + 1) : client.destroy()));
      node.once('close', (failed) => failed || client.destroy());
      client.once('error', () => node.destroy());
      client.once('close', () => node.destroy());
    };
    attempt(0);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(null)));
  const address = server.address();
  assert.ok(address && typeof address === 'object');
  return { url: `http://127.0.0.1:${address.port}`, close: () => server.close() };
};

/** @param {Page} page @param {string} user */
const signIn = async (page, user) => {
  await page.type('input[name=user]', user);
  await page.type('input[name=password]', 'not this one');
  await page.press('Enter');
  await until('a refusal', async () => (await page.eval("document.querySelector('.problem').textContent")) !== '');
  await page.eval("document.querySelector('input[name=password]').value = ''");
  await page.type('input[name=password]', password);
  await page.press('Enter');
  await page.see('.standing[data-at=open]');
};

/** Goes to the provider, and says a name there. @param {Page} page @param {string} name */
const signInThere = async (page, name) => {
  await page.click('a.provider');
  await page.type('input[name=name]', name);
  await page.press('Enter');
  await page.see('.standing[data-at=open]');
};

/** @param {Page} page @param {string} text */
const say = async (page, text) => {
  await page.type('.composer textarea', text);
  await page.press('Enter');
};

/** What is in the timeline, in its order. @param {Page} page @returns {Promise<string[]>} */
const texts = (page) => page.eval("[...document.querySelectorAll('.message[data-seq] .text')].map((text) => text.textContent)");

/** @param {Page} page @param {string} selector @returns {Promise<number>} */
const count = (page, selector) => page.eval(`document.querySelectorAll(${JSON.stringify(selector)}).length`);

/** Waits until a page shows each of these once, and nothing is on its way. @param {Page} page @param {string[]} all */
const settled = (page, all) =>
  until(`${all.length} messages`, async () => {
    const seen = (await texts(page)).filter((text) => !text.startsWith('past '));
    if (seen.length < all.length || (await count(page, '.draft')) > 0) throw new Error(JSON.stringify(seen));
    assert.deepEqual([...seen].sort(), [...all].sort());
    return true;
  });

/** @type {Page[]} */
const pages = [];
const browser = new Chromium(path);
const balancer = await balance([nodes[0] ?? '', nodes[2] ?? '']);
try {
  const ann = await browser.open(balancer.url);
  const bob = await browser.open(nodes[1] ?? '');
  pages.push(ann, bob);
  await signIn(ann, 'ann');
  await (provider ? signInThere : signIn)(bob, 'bob');
  for (const page of [ann, bob]) assert.equal(await page.eval('document.cookie'), '', 'scripts do not see the cookie');

  await ann.click('button[aria-label="New room"]');
  await ann.type('input[name=title]', 'Tea & <i>cake</i>');
  await ann.press('Enter');
  await ann.see('.composer');
  await bob.reload();
  await until('the new room', () => bob.eval("[...document.querySelectorAll('.rooms a')].some((a) => a.textContent.includes('Tea & <i>cake</i>'))"));
  await bob.eval("location.hash = '#/tea-i-cake-i'");
  await bob.click('.notice-bar .primary');
  await bob.see('.composer');

  /** @type {string[]} */
  const all = [];
  /** @param {Page} page @param {string} text */
  const post = async (page, text) => {
    all.push(text);
    await say(page, text);
  };
  await post(ann, 'Is the kettle on?');
  await post(bob, 'It is.');
  await post(ann, '<img src=x onerror="document.title=1"><script>document.title=1</script>');
  await post(bob, 'See https://example.org/a?b=<c> and javascript:alert(1)');
  for (const page of [ann, bob]) await settled(page, all);
  // Who is there, over two nodes; who types; who has read.
  for (const page of [ann, bob]) await until('both to be there', () => page.eval("document.querySelector('.room-header .people').textContent.includes('2 here')"));
  await bob.type('.composer textarea', 'Hm');
  await until('bob to type', () => ann.eval("document.querySelector('.typing').textContent.toLowerCase() === 'bob is typing…'"));
  await bob.eval("document.querySelector('.composer textarea').value = ''");
  await bob.eval("document.querySelector('.composer textarea').dispatchEvent(new Event('input'))");
  await until('bob to have stopped', () => ann.eval("document.querySelector('.typing').textContent === ''"));
  await until('bob to have read', () => ann.eval("document.querySelector('.state.sent')?.textContent === 'Read by 1'"));
  assert.equal(await count(ann, '.message img, .message script'), 0);
  assert.equal(await ann.eval("document.querySelector('.text a').href"), 'https://example.org/a?b=');

  // The node that serves one of them dies while both write.
  await have('kill', 0);
  for (let i = 0; i < 5; i++) {
    await post(ann, `ann while node 0 is down, ${i}`);
    await post(bob, `bob while node 0 is down, ${i}`);
  }
  for (const page of [ann, bob]) await settled(page, all);
  await have('restart', 0);

  // Now the other one's, who has no other way: what is written waits, and says so.
  await have('kill', 1);
  for (let i = 0; i < 3; i++) {
    await post(bob, `bob without a node, ${i}`);
    await post(ann, `ann while node 1 is down, ${i}`);
  }
  await until('bob to see that nothing goes', async () => (await count(bob, '.draft.sending')) === 3 && (await count(bob, '.banner:not([hidden])')) === 1);
  await have('restart', 1);
  for (const page of [ann, bob]) await settled(page, all);
  await until('the banner to go', async () => (await count(bob, '.banner:not([hidden])')) === 0);
  assert.deepEqual(await texts(ann), await texts(bob), 'one order');

  // Nothing is sent again by a page that is loaded anew, and all of the past can be scrolled to.
  await have('fill', 2);
  for (const page of [ann, bob]) {
    await page.reload();
    await page.see('.message');
    await until('the beginning', async () => {
      await page.eval("document.querySelector('.scroll').scrollTop = 0");
      return (await page.eval("document.querySelector('.top').textContent")).includes('begins');
    });
    await settled(page, all);
    assert.equal((await texts(page)).filter((text) => text.startsWith('past ')).length, past);
    const seqs = await page.eval("[...document.querySelectorAll('.events [data-seq]')].map((node) => Number(node.dataset.seq))");
    assert.deepEqual(seqs, seqs.map((/** @type {number} */ _, /** @type {number} */ i) => seqs[0] + i), 'no gap');
    assert.equal(await page.eval("Object.keys(localStorage).filter((key) => key.includes('outbox')).length"), 0);
  }

  await ann.click('.sidebar footer .plain');
  await ann.see('input[name=user]');
  await ann.reload();
  await ann.see('input[name=user]');
  assert.deepEqual([...ann.complaints, ...bob.complaints], []);
  process.stdout.write(`${JSON.stringify({ do: 'check', texts: all })}\n`);
} catch (error) {
  for (const page of pages) {
    const text = await page.eval('`${location} ${document.body.innerText} ${document.querySelector("dialog")?.innerText}`').catch(String);
    process.stderr.write(`---- a page, at the end: ${text}\n${page.complaints.join('\n')}\n`);
  }
  throw error;
} finally {
  balancer.close();
  await browser.close();
}
process.exit(0);
