// Signing in by a provider, in browsers, over two nodes: from one, and back to the other.
//
// Run by tests/oidc.rs, which has the nodes and the provider. The first line of standard input says
// where they are; what is left to be seen to is said in lines of JSON, as chat.js does.

import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';
import { Chromium, until } from './chromium.js';

/** @import { Page } from './chromium.js' */

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
/** @type {{ chromium: string, nodes: string[], device: string, picture?: string }} */
const { chromium: path, nodes, device, picture } = JSON.parse((await lines.next()).value ?? 'null');
const [first = '', second = ''] = nodes;

/** @type {Page[]} */
const pages = [];
const browser = new Chromium(path);

/** @param {string} url */
const open = async (url) => {
  const page = await browser.open(url);
  pages.push(page);
  return page;
};

/** Goes to the provider, and says a name there. @param {Page} page @param {string} name */
const signIn = async (page, name) => {
  await page.click('a.provider');
  await page.type('input[name=name]', name);
  await page.press('Enter');
};

/** Waits for what the page has against a sign-in. @param {Page} page @param {string} words */
const refused = async (page, words) => {
  await until(`a refusal: ${words}`, async () => (await page.eval("document.querySelector('.problem')?.textContent ?? ''")).includes(words));
  assert.equal(await page.eval('location.search'), '', 'it is said once');
};

try {
  const cid = await open(first);
  await cid.see('a.provider');
  assert.equal(await cid.eval("document.querySelector('a.provider').textContent"), 'Sign in with <b>Test & Co</b>');
  if (picture) {
    const { writeFileSync } = await import('node:fs');
    await cid.look(900, 700, 'light');
    writeFileSync(picture, await cid.picture());
  }
  await signIn(cid, 'cid');
  await cid.see('.standing[data-at=open]');
  assert.equal(await cid.eval('location.origin'), second, 'the provider sends everybody to the other node');
  assert.equal(await cid.eval('document.cookie'), '', 'scripts see no cookie');
  // Another node takes the same session.
  await cid.go(first);
  await cid.see('.standing[data-at=open]');

  // Signed out here, still known there.
  await cid.click('.sidebar footer .plain');
  await cid.click('a.provider');
  await cid.see('.standing[data-at=open]');

  const ann = await open(first);
  await signIn(ann, 'ann');
  await refused(ann, 'another account');
  const nobody = await open(first);
  await signIn(nobody, 'nobody');
  await refused(nobody, 'start again');

  // Somebody confirms the code that the command line shows.
  const phone = await open(device);
  await phone.click('#confirm');
  await phone.type('input[name=name]', 'dan');
  await phone.press('Enter');
  await phone.see('#success');

  for (const page of pages) assert.deepEqual(page.complaints, []);
  process.stdout.write(`${JSON.stringify({ do: 'check' })}\n`);
} catch (error) {
  for (const page of pages) {
    const text = await page.eval('`${location} ${document.body.innerText}`').catch(String);
    process.stderr.write(`---- a page, at the end: ${text}\n${page.complaints.join('\n')}\n`);
  }
  throw error;
} finally {
  await browser.close();
}
process.exit(0);
