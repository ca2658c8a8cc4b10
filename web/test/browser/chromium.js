// Chromium, driven by its DevTools protocol over a pipe: enough of it to use a page as people do, with
// nothing to install beside the browser.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** How long anything may take on a busy machine. */
const PATIENCE_MS = 60_000;

/** @param {number} ms */
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Tries until something is there.
 * @template T
 * @param {string} what
 * @param {() => Promise<T> | T} attempt
 * @param {number} [patienceMs]
 * @returns {Promise<NonNullable<T>>}
 */
export const until = async (what, attempt, patienceMs = PATIENCE_MS) => {
  const end = Date.now() + patienceMs;
  /** @type {unknown} */
  let last;
  for (;;) {
    try {
      const found = await attempt();
      if (found !== null && found !== undefined && found !== false) return /** @type {NonNullable<T>} */ (found);
      last = found;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`waited for ${what}: ${last}`);
    await sleep(50);
  }
};

export class Chromium {
  #process;
  #profile;
  #next = 0;
  /** @type {Map<number, { resolve: (result: any) => void, reject: (error: Error) => void }>} */
  #owed = new Map();
  /** @type {Map<string, (method: string, params: any) => void>} */
  #listeners = new Map();

  /** @param {string} path */
  constructor(path) {
    this.#profile = mkdtempSync(join(tmpdir(), 'folkmoot-chromium-'));
    // `--no-sandbox`: tests run as root in containers. They load nothing but our own page.
    const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking', '--hide-scrollbars', '--force-color-profile=srgb', '--remote-debugging-pipe', `--user-data-dir=${this.#profile}`, 'about:blank'];
    this.#process = spawn(path, flags, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    this.#process.on('exit', (code) => this.#fail(new Error(`chromium ended with ${code}`)));
    this.#process.on('error', (error) => this.#fail(error));
    /** @type {Buffer[]} */
    let parts = [];
    const from = /** @type {import('node:stream').Readable} */ (this.#process.stdio[4]);
    from.on('data', (/** @type {Buffer} */ chunk) => {
      for (let end = chunk.indexOf(0); end >= 0; end = chunk.indexOf(0)) {
        parts.push(chunk.subarray(0, end));
        this.#take(JSON.parse(Buffer.concat(parts).toString()));
        parts = [];
        chunk = chunk.subarray(end + 1);
      }
      parts.push(chunk);
    });
  }

  /** @param {Error} error */
  #fail(error) {
    for (const { reject } of this.#owed.values()) reject(error);
    this.#owed.clear();
  }

  /** @param {any} message */
  #take({ id, result, error, method, params, sessionId }) {
    const owed = this.#owed.get(id);
    this.#owed.delete(id);
    if (!owed) this.#listeners.get(sessionId)?.(method, params);
    else if (error) owed.reject(new Error(`${error.message} ${error.data ?? ''}`));
    else owed.resolve(result);
  }

  /** @param {string} method @param {object} [params] @param {string} [sessionId] @returns {Promise<any>} */
  send(method, params = {}, sessionId) {
    const id = ++this.#next;
    const to = /** @type {import('node:stream').Writable} */ (this.#process.stdio[3]);
    to.write(`${JSON.stringify({ id, method, params, ...(sessionId && { sessionId }) })}\0`);
    return new Promise((resolve, reject) => this.#owed.set(id, { resolve, reject }));
  }

  /** A window with cookies and storage of its own: another person. @param {string} url */
  async open(url) {
    const { browserContextId } = await this.send('Target.createBrowserContext');
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank', browserContextId });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, sessionId);
    this.#listeners.set(sessionId, (method, params) => page.take(method, params));
    await page.send('Page.enable');
    await page.send('Runtime.enable');
    await page.send('Log.enable');
    await page.send('Emulation.setFocusEmulationEnabled', { enabled: true });
    await page.go(url);
    return page;
  }

  async close() {
    const ended = new Promise((resolve) => this.#process.once('exit', resolve));
    this.#process.kill('SIGKILL');
    if (this.#process.exitCode === null) await ended;
    // Its helpers may take a moment longer.
    await until('its profile to be removed', () => {
      rmSync(this.#profile, { recursive: true, force: true });
      return true;
    });
  }
}

/** One window. */
export class Page {
  /** What the page complained about: exceptions, and whatever its policy has blocked. @type {string[]} */
  complaints = [];
  #chromium;
  #session;

  /** @param {Chromium} chromium @param {string} session */
  constructor(chromium, session) {
    this.#chromium = chromium;
    this.#session = session;
  }

  /** @param {string} method @param {object} [params] */
  send(method, params) {
    return this.#chromium.send(method, params, this.#session);
  }

  /** @param {string} method @param {any} params */
  take(method, params) {
    if (method === 'Runtime.exceptionThrown') {
      const { text, exception } = params.exceptionDetails;
      this.complaints.push(`${text} ${exception?.description ?? ''}`);
    } else if (method === 'Log.entryAdded' && params.entry.level === 'error' && params.entry.source !== 'network') {
      this.complaints.push(params.entry.text);
    }
  }

  /** @param {string} url */
  async go(url) {
    await this.send('Page.navigate', { url });
    await until(`${url} to load`, async () => (await this.eval('document.readyState')) === 'complete');
  }

  async reload() {
    await this.eval('window.isOld = true, location.reload()');
    await until('the page to load again', async () => (await this.eval('!window.isOld && document.readyState')) === 'complete');
  }

  /** What an expression is in the page. @param {string} expression @returns {Promise<any>} */
  async eval(expression) {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Waits until there is an element. @param {string} selector */
  async see(selector) {
    await until(selector, () => this.eval(`document.querySelector(${JSON.stringify(selector)}) !== null`));
  }

  /** Clicks on what can be seen. @param {string} selector */
  async click(selector) {
    await this.see(selector);
    const { x, y } = await this.eval(`(() => {
      const element = document.querySelector(${JSON.stringify(selector)});
      element.scrollIntoView({ block: 'nearest' });
      const { left, top, width, height } = element.getBoundingClientRect();
      return { x: left + width / 2, y: top + height / 2 };
    })()`);
    for (const type of ['mousePressed', 'mouseReleased']) {
      await this.send('Input.dispatchMouseEvent', { type, x, y, button: 'left', clickCount: 1 });
    }
  }

  /** Types into a field. @param {string} selector @param {string} text */
  async type(selector, text) {
    await this.see(selector);
    await this.eval(`document.querySelector(${JSON.stringify(selector)}).focus()`);
    await this.send('Input.insertText', { text });
  }

  /** @param {string} key */
  async press(key) {
    const code = key === 'Enter' ? { windowsVirtualKeyCode: 13, text: '\r' } : {};
    for (const type of ['keyDown', 'keyUp']) await this.send('Input.dispatchKeyEvent', { type, key, code: key, ...code });
  }

  /** @param {number} width @param {number} height @param {'light' | 'dark'} scheme */
  async look(width, height, scheme) {
    await this.send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: width < 500 });
    await this.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
  }

  /** A picture of what is to be seen, as PNG. */
  async picture() {
    const { data } = await this.send('Page.captureScreenshot', { format: 'png' });
    return Buffer.from(data, 'base64');
  }
}
