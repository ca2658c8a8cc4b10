// Debian's Chromium, driven by Playwright as people use it. What a page complains about fails the test.

import assert from 'node:assert/strict';
import { chromium, expect as expectSoon } from '@playwright/test';

/** @import { Page } from '@playwright/test' */

/** How long anything may take on a busy machine. */
const PATIENCE_MS = 60_000;

export const expect = expectSoon.configure({ timeout: PATIENCE_MS });

/** Tries until nothing is thrown. @param {() => Promise<void>} attempt */
export const until = (attempt) => expect(attempt).toPass({ timeout: PATIENCE_MS, intervals: [50] });

/**
 * Starts a browser, and ends it. `open` makes a window with cookies and storage of its own: another person.
 * @param {string} path
 * @param {(open: (url: string) => Promise<Page>) => Promise<void>} use
 */
export const browse = async (path, use) => {
  // `--no-sandbox`: tests run as root in containers. They load nothing but our own page.
  const browser = await chromium.launch({ executablePath: path, chromiumSandbox: false, args: ['--disable-dev-shm-usage'] });
  /** @type {Page[]} */
  const pages = [];
  /** Exceptions, and whatever a page's policy has blocked. @type {string[]} */
  const complaints = [];
  const open = async (/** @type {string} */ url) => {
    const context = await browser.newContext();
    const page = await context.newPage();
    pages.push(page);
    page.setDefaultTimeout(PATIENCE_MS);
    page.on('pageerror', (error) => complaints.push(String(error.stack)));
    const tools = await context.newCDPSession(page);
    tools.on('Log.entryAdded', ({ entry }) => {
      if (entry.level === 'error' && entry.source !== 'network') complaints.push(entry.text);
    });
    await tools.send('Log.enable');
    await page.goto(url);
    return page;
  };
  try {
    await use(open);
    assert.deepEqual(complaints, []);
  } catch (error) {
    for (const page of pages) {
      const text = await page.locator('body').innerText({ timeout: 1000 }).catch(String);
      process.stderr.write(`---- a page, at the end: ${page.url()} ${text}\n`);
    }
    process.stderr.write(`${complaints.join('\n')}\n`);
    throw error;
  } finally {
    await browser.close();
  }
};

/** Goes to the provider of OpenID Connect, and says a name there. @param {Page} page @param {string} name */
export const signInThere = async (page, name) => {
  await page.locator('a.provider').click();
  await page.locator('input[name=name]').fill(name);
  await page.keyboard.press('Enter');
};

/** Waits until a page follows its rooms. @param {Page} page */
export const connected = (page) => expect(page.locator('.standing')).toHaveAttribute('data-at', 'open');
