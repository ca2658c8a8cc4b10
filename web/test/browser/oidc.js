// Signing in by a provider, in browsers, over two nodes: from one, and back to the other.
//
// Run by tests/oidc.rs, which has the nodes and the provider. The first line of standard input says
// where they are; what is left to be seen to is said in lines of JSON, as chat.js does.

import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';
import { browse, connected, expect, signInThere } from './browser.js';

/** @import { Page } from '@playwright/test' */

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
/** @type {{ chromium: string, nodes: string[], device: string, picture?: string }} */
const { chromium, nodes, device, picture } = JSON.parse((await lines.next()).value ?? 'null');
const [first = '', second = ''] = nodes;

/** Waits for what the page has against a sign-in. @param {Page} page @param {string} words */
const refused = async (page, words) => {
  await expect(page.locator('.problem')).toContainText(words);
  assert.equal(new URL(page.url()).search, '', 'it is said once');
};

await browse(chromium, async (open) => {
  const cid = await open(first);
  await expect(cid.locator('a.provider')).toHaveText('Sign in with <b>Test & Co</b>');
  if (picture) {
    await cid.setViewportSize({ width: 900, height: 700 });
    await cid.screenshot({ path: picture });
  }
  await signInThere(cid, 'cid');
  await connected(cid);
  assert.equal(new URL(cid.url()).origin, second, 'the provider sends everybody to the other node');
  assert.equal(await cid.evaluate(() => document.cookie), '', 'scripts see no cookie');
  // Another node takes the same session.
  await cid.goto(first);
  await connected(cid);

  // Signed out here, still known there.
  await cid.getByRole('button', { name: 'Sign out' }).click();
  await cid.locator('a.provider').click();
  await connected(cid);

  const ann = await open(first);
  await signInThere(ann, 'ann');
  await refused(ann, 'another account');
  const nobody = await open(first);
  await signInThere(nobody, 'nobody');
  await refused(nobody, 'start again');

  // Somebody confirms the code that the command line shows.
  const phone = await open(device);
  await phone.locator('#confirm').click();
  await phone.locator('input[name=name]').fill('dan');
  await phone.keyboard.press('Enter');
  await phone.locator('#success').waitFor();
});
process.stdout.write(`${JSON.stringify({ do: 'check' })}\n`);
process.exit(0);
