// Where messages are written.

import { fill, h } from './dom.js';

/** @import { Event } from '../client/types.js' */

/** What is too long is refused here, where it can still be changed. */
const bytes = (/** @type {string} */ text) => new TextEncoder().encode(text).length;

export class Composer {
  element = h('div', { class: 'composer' });
  #text = h('textarea', { rows: 1, 'aria-label': 'Message', enterkeyhint: 'send', oninput: () => this.#input(), onkeydown: (/** @type {KeyboardEvent} */ event) => this.#key(event) });
  #reply = h('div', { class: 'replying', hidden: true });
  #problem = h('p', { class: 'problem', role: 'alert' });
  /** @type {Event | null} */
  #target = null;
  /** @type {Map<string, string>} What was begun in other rooms. */
  #begun = new Map();
  #room = '';
  #post;
  #nameOf;
  #changed;
  textBytesMax = 65_536;

  /**
   * @param {(text: string, replyTo?: number) => void} post
   * @param {(user: string) => string} nameOf
   * @param {(some: boolean) => void} changed What is being written has changed; whether it is anything.
   */
  constructor(post, nameOf, changed) {
    this.#changed = changed;
    this.#post = post;
    this.#nameOf = nameOf;
    const send = h('button', { class: 'send', type: 'submit', 'aria-label': 'Send', title: 'Send' }, '↑');
    const onsubmit = (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      this.#send();
    };
    fill(this.element, h('form', { onsubmit }, this.#reply, this.#problem, h('div', { class: 'row' }, this.#text, send)));
  }

  /** @param {string} room @param {string} title */
  show(room, title) {
    this.#text.placeholder = `Message ${title}`;
    if (room === this.#room) return;
    this.#begun.set(this.#room, this.#text.value);
    this.#room = room;
    this.#text.value = this.#begun.get(room) ?? '';
    this.reply(null);
    this.#grow();
  }

  focus() {
    this.#text.focus();
  }

  /** @param {Event | null} event The message that is answered. */
  reply(event) {
    this.#target = event;
    this.#reply.hidden = !event;
    if (!event) return;
    const stop = h('button', { type: 'button', class: 'plain', 'aria-label': 'Do not reply', onclick: () => this.reply(null) }, '✕');
    fill(this.#reply, h('span', {}, '↳ Reply to ', h('strong', {}, this.#nameOf(event.sender)), ` ${event.text.slice(0, 120)}`), stop);
    this.focus();
  }

  #input() {
    this.#grow();
    this.#changed(this.#text.value.trim() !== '');
  }

  #grow() {
    this.#problem.textContent = '';
    this.#text.style.height = '';
    // Of an empty one its rows say how high it is, also before it is part of the page.
    if (this.#text.value !== '') this.#text.style.height = `${this.#text.scrollHeight}px`;
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    // A keyboard on glass has no other way to begin a line.
    const touch = matchMedia('(pointer: coarse)').matches;
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing && !touch) {
      event.preventDefault();
      this.#send();
    }
    if (event.key === 'Escape' && this.#target) this.reply(null);
  }

  #send() {
    const text = this.#text.value.trim();
    if (text === '') return;
    if (bytes(text) > this.textBytesMax) {
      this.#problem.textContent = `This is too long: at most ${this.textBytesMax} bytes.`;
      return;
    }
    this.#post(text, this.#target?.seq);
    this.#text.value = '';
    this.reply(null);
    this.#grow();
    this.focus();
  }
}
