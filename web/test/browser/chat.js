// Two people in two browsers, on two nodes, while nodes die: each sees every message once. One has a password,
// the other comes by a provider of OpenID Connect.
//
// Run by tests/page.rs, which has the nodes: this tells it, a line of JSON at a time, what to do
// with them, and waits for its answer. The first line it gets says where they are.

import assert from 'node:assert/strict';
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';
import '../node.js';
import { Ids } from '../../client/uuid.js';
import { browse, connected, expect, signInThere, until } from './browser.js';

/** @import { Page } from '@playwright/test' */

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const next = async () => JSON.parse((await lines.next()).value ?? 'null');

/** `provider`: whether bob signs in by one. @type {{ chromium: string, nodes: string[], password: string, past: number, provider: boolean }} */
const { chromium, nodes, password, past, provider } = await next();

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

/** Signs in with a password, at the second attempt. @param {Page} page @param {string} user */
const signIn = async (page, user) => {
  await page.locator('input[name=user]').fill(user);
  const secret = page.locator('input[name=password]');
  await secret.fill('not this one');
  await secret.press('Enter');
  await expect(page.locator('.problem')).not.toBeEmpty();
  await secret.fill(password);
  await secret.press('Enter');
};

/** @param {Page} page */
const composer = (page) => page.locator('.composer textarea');

/** What is in the timeline, in its order. @param {Page} page */
const texts = (page) => page.locator('.message[data-seq] .text').allTextContents();

/** Waits until a page shows each of these once, and nothing is on its way. @param {Page} page @param {string[]} all */
const settled = (page, all) =>
  until(async () => {
    const seen = (await texts(page)).filter((text) => !text.startsWith('past '));
    assert.deepEqual(seen.sort(), [...all].sort());
    assert.equal(await page.locator('.draft').count(), 0);
  });

/**
 * Leaves a message of hers that is not sent in the browser, as another page would.
 * @param {Page} page
 * @param {string} user
 * @param {string} text
 */
const leave = async (page, user, text) => {
  const at = Date.now();
  const id = new Ids().mint(at);
  const row = JSON.stringify({ id, room: 'tea-i-cake-i', text, at, state: 'sending' });
  await page.evaluate(([key = '', row = '']) => localStorage.setItem(key, row), [`folkmoot.outbox.${user}.${id}`, row]);
};

/** @param {Page} page */
const left = (page) => page.evaluate(() => Object.keys(localStorage).filter((key) => key.includes('outbox')));

const balancer = await balance([nodes[0] ?? '', nodes[2] ?? '']);
/** What was said. @type {string[]} */
const all = [];
/** @param {Page} page @param {string} text */
const post = async (page, text) => {
  all.push(text);
  await composer(page).fill(text);
  await composer(page).press('Enter');
};

await browse(chromium, async (open) => {
  const ann = await open(balancer.url);
  const bob = await open(nodes[1] ?? '');
  const both = [ann, bob];
  await signIn(ann, 'ann');
  await (provider ? signInThere : signIn)(bob, 'bob');
  for (const page of both) {
    await connected(page);
    assert.equal(await page.evaluate(() => document.cookie), '', 'scripts do not see the cookie');
  }

  await ann.getByRole('button', { name: 'New room' }).click();
  await ann.locator('input[name=title]').fill('Tea & <i>cake</i>');
  await ann.keyboard.press('Enter');
  await composer(ann).waitFor();
  await bob.reload();
  await expect(bob.locator('.rooms a', { hasText: 'Tea & <i>cake</i>' })).toBeAttached();
  await bob.evaluate(() => void (location.hash = '#/tea-i-cake-i'));
  await bob.locator('.notice-bar .primary').click();
  await composer(bob).waitFor();

  await post(ann, 'Is the kettle on?');
  await post(bob, 'It is.');
  await post(ann, '<img src=x onerror="document.title=1"><script>document.title=1</script>');
  await post(bob, 'See https://example.org/a?b=<c> and javascript:alert(1)');
  for (const page of both) await settled(page, all);
  // Who is there, over two nodes; who types; who has read.
  for (const page of both) await expect(page.locator('.room-header .people')).toContainText('2 here');
  await composer(bob).fill('Hm');
  await expect(ann.locator('.typing')).toHaveText('bob is typing…', { ignoreCase: true });
  await composer(bob).fill('');
  await expect(ann.locator('.typing')).toBeEmpty();
  await expect(ann.locator('.state.sent')).toHaveText('Read by 1');
  await expect(ann.locator('.message img, .message script')).toHaveCount(0);
  await expect(ann.locator('.text a')).toHaveAttribute('href', 'https://example.org/a?b=');

  // The node that serves one of them dies while both write.
  await have('kill', 0);
  for (let i = 0; i < 5; i++) {
    await post(ann, `ann while node 0 is down, ${i}`);
    await post(bob, `bob while node 0 is down, ${i}`);
  }
  for (const page of both) await settled(page, all);
  await have('restart', 0);

  // Now the other one's, who has no other way: what is written waits, and says so.
  await have('kill', 1);
  for (let i = 0; i < 3; i++) {
    await post(bob, `bob without a node, ${i}`);
    await post(ann, `ann while node 1 is down, ${i}`);
  }
  const banner = bob.locator('.banner');
  await expect(bob.locator('.draft.sending')).toHaveCount(3);
  await expect(banner).toBeVisible();
  await have('restart', 1);
  for (const page of both) await settled(page, all);
  await expect(banner).toBeHidden();
  assert.deepEqual(await texts(ann), await texts(bob), 'one order');

  // Nothing is sent again by a page that is loaded anew, and all of the past can be scrolled to.
  await have('fill', 2);
  for (const page of both) {
    await page.reload();
    await page.locator('.message').first().waitFor();
    await until(async () => {
      await page.locator('.scroll').evaluate((scroll) => void (scroll.scrollTop = 0));
      assert.match((await page.locator('.top').textContent()) ?? '', /begins/);
    });
    await settled(page, all);
    assert.equal((await texts(page)).filter((text) => text.startsWith('past ')).length, past);
    const seqs = await page.locator('.events [data-seq]').evaluateAll((nodes) => nodes.map((node) => Number(node.getAttribute('data-seq'))));
    assert.deepEqual(seqs, seqs.map((_, i) => (seqs[0] ?? 0) + i), 'no gap');
    assert.deepEqual(await left(page), []);
  }

  // What a page has left is sent by the next one, and shown once.
  await leave(ann, 'ann', 'From before');
  all.push('From before');
  await ann.reload();
  await ann.locator('.message').first().waitFor();
  for (const page of both) await until(async () => assert.equal((await texts(page)).filter((text) => text === 'From before').length, 1));
  await expect(ann.locator('.draft')).toHaveCount(0);
  assert.deepEqual(await left(ann), []);

  // On a phone: who is there is to be seen, and whoever opens a room is told so.
  await ann.setViewportSize({ width: 390, height: 800 });
  await ann.locator('.back').click();
  await ann.locator('.rooms a', { hasText: 'Tea & <i>cake</i>' }).click();
  await expect(ann.locator('.room-header .people')).toBeVisible();
  await expect(ann.locator('.room-header h1')).toBeFocused();
  await ann.setViewportSize({ width: 1280, height: 800 });

  // Signing out ends her other window too, and takes what is not sent, whichever has left it.
  const other = await ann.context().newPage();
  other.setDefaultTimeout(60_000);
  await other.goto(balancer.url);
  await connected(other);
  await leave(other, 'ann', 'Never sent');
  ann.once('dialog', (dialog) => {
    assert.match(dialog.message(), /^1 message not sent yet/);
    dialog.accept();
  });
  await ann.getByRole('button', { name: 'Sign out' }).click();
  await ann.locator('input[name=user]').waitFor();
  await other.locator('input[name=user]').waitFor();
  assert.deepEqual(await left(ann), []);
  await ann.reload();
  await ann.locator('input[name=user]').waitFor();
});
balancer.close();
process.stdout.write(`${JSON.stringify({ do: 'check', texts: all })}\n`);
process.exit(0);
