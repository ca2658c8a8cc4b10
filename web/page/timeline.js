// A room's timeline: what its log shows, with what is on its way below. It is brought up to date by
// comparing keys, so that what has not changed is not made anew.

import { isMessage } from '../client/roomlog.js';
import { h } from './dom.js';
import { count, dayKey, dayName, fullTime, hue, initial, rich, sentWords, shortTime, timeOfDay } from './text.js';

/** @import { Draft } from '../client/outbox.js' */
/** @import { Event } from '../client/types.js' */
/** @import { Entry } from './rooms.js' */

/** Messages of one sender within this belong together. */
const TOGETHER_MS = 5 * 60_000;
/** This near to an end counts as being there, in pixels. */
const NEAR = 80;

/**
 * @typedef {object} Shown
 * @property {Entry} entry
 * @property {Draft[]} drafts
 * @property {boolean} mayPost
 */

/** @typedef {{ key: string, of: unknown[], make: () => HTMLElement }} Item */

export class Timeline {
  #list = h('ol', { class: 'events', role: 'log', 'aria-live': 'off', 'aria-label': 'Messages' });
  #latest = h('button', { class: 'latest', hidden: true, onclick: () => this.toEnd() }, 'New messages ↓');
  #scroll = h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Timeline', onscroll: () => this.#scrolled() }, this.#list);
  element = h('div', { class: 'timeline' }, this.#scroll, this.#latest);
  /** @type {Map<string, { of: unknown[], node: HTMLElement }>} */
  #nodes = new Map();
  #room = '';
  #atEnd = true;
  #me;
  #nameOf;
  #actions;

  /**
   * @param {string} me
   * @param {(user: string) => string} nameOf
   * @param {{ older: () => void, looked: () => void, reply: (event: Event) => void, retry: (id: string) => void, discard: (id: string) => void }} actions
   */
  constructor(me, nameOf, actions) {
    this.#me = me;
    this.#nameOf = nameOf;
    this.#actions = actions;
    // A window that gets smaller, or a keyboard that comes up, must not hide the newest.
    new ResizeObserver(() => {
      if (this.#atEnd) this.#scroll.scrollTop = this.#scroll.scrollHeight;
    }).observe(this.#scroll);
  }

  /** Whether the newest is in sight. */
  get atEnd() {
    return this.#atEnd;
  }

  toEnd() {
    this.#atEnd = true;
    this.#scroll.scrollTop = this.#scroll.scrollHeight;
    this.#latest.hidden = true;
    this.#actions.looked();
  }

  #scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.#scroll;
    this.#atEnd = scrollHeight - scrollTop - clientHeight < NEAR;
    if (this.#atEnd && !this.#latest.hidden) this.#latest.hidden = true;
    if (this.#atEnd) this.#actions.looked();
    if (scrollTop < 4 * NEAR) this.#actions.older();
  }

  /** @param {Shown} shown */
  show(shown) {
    const { room } = shown.entry.room;
    const isOther = room !== this.#room;
    if (isOther) {
      this.#room = room;
      this.#nodes.clear();
      this.#list.replaceChildren();
      this.#atEnd = true;
    }
    const hadLast = this.#list.lastElementChild;
    const anchor = this.#atEnd ? null : this.#anchor();
    this.#reconcile(this.#items(shown));
    if (this.#atEnd) {
      this.#scroll.scrollTop = this.#scroll.scrollHeight;
    } else {
      if (anchor) this.#scroll.scrollTop += anchor.node.getBoundingClientRect().top - anchor.top;
      if (hadLast !== this.#list.lastElementChild) this.#latest.hidden = false;
    }
    if (isOther) this.#latest.hidden = true;
    // Where a page does not fill the window there is nothing to scroll, so it asks for more by itself.
    if (shown.entry.problem === '' && this.#scroll.scrollTop < 4 * NEAR) queueMicrotask(this.#actions.older);
  }

  /** The first element in sight, and where it is. */
  #anchor() {
    const edge = this.#scroll.getBoundingClientRect().top;
    for (const node of this.#list.children) {
      const { top, bottom } = node.getBoundingClientRect();
      if (bottom > edge && node instanceof HTMLElement && node.dataset.seq) return { node, top };
    }
    return null;
  }

  /** @param {Item[]} items */
  #reconcile(items) {
    const nodes = new Map();
    /** @type {HTMLElement | null} */
    let after = null;
    for (const { key, of, make } of items) {
      const known = this.#nodes.get(key);
      const same = known && known.of.length === of.length && known.of.every((part, i) => part === of[i]);
      const node = same ? known.node : make();
      if (known && !same) known.node.replaceWith(node);
      nodes.set(key, { of, node });
      /** @type {ChildNode | null} */
      const place = after ? after.nextSibling : this.#list.firstChild;
      if (place !== node) this.#list.insertBefore(node, place);
      after = node;
    }
    for (const [key, { node }] of this.#nodes) if (nodes.get(key)?.node !== node) node.remove();
    this.#nodes = nodes;
  }

  /** @param {Shown} shown @returns {Item[]} */
  #items({ entry, drafts, mayPost }) {
    const { log, newAfter, people } = entry;
    const now = new Date();
    const today = dayKey(now);
    /** @type {Item[]} */
    const items = [this.#top(entry)];
    let day = '';
    /** @type {{ sender: string, at: number } | null} */
    let before = null;
    let marked = newAfter === null || newAfter < log.base;
    const lastOwn = log.events.findLast((event) => event.sender === this.#me && isMessage(event))?.seq;
    for (const event of log.events) {
      if (event.kind === 'edit' || event.kind === 'redaction' || event.kind === 'reaction') continue;
      const at = new Date(event.original_at ?? event.at);
      if (dayKey(at) !== day) {
        day = dayKey(at);
        items.push({ key: `day ${day} ${event.seq}`, of: [today], make: () => h('li', { class: 'day' }, h('span', {}, dayName(at, now))) });
        before = null;
      }
      if (!marked && event.seq > (newAfter ?? 0) && event.sender !== this.#me && isMessage(event)) {
        marked = true;
        before = null;
        items.push({ key: `new ${newAfter}`, of: [], make: () => h('li', { class: 'new' }, h('span', {}, 'New')) });
      }
      if (!isMessage(event)) {
        before = null;
        const names = [event.sender, event.subject ?? ''].map(this.#nameOf);
        items.push({ key: `event ${event.seq}`, of: [event, ...names], make: () => this.#line(event, at) });
        continue;
      }
      const sender = event.original_sender ?? event.sender;
      const head = event.kind !== 'message' || before?.sender !== sender || at.getTime() - before.at > TOGETHER_MS || event.target !== undefined;
      before = event.kind === 'message' ? { sender, at: at.getTime() } : null;
      const target = event.target === undefined ? undefined : log.at(event.target);
      const isLast = event.seq === lastOwn && drafts.length === 0;
      const readers = isLast ? people.readersOf(event.seq).filter((user) => user !== this.#me) : [];
      const sent = isLast ? sentWords(readers.length, entry.room.kind === 'direct') : '';
      const by = readers.map(this.#nameOf).join(', ');
      const of = [event, head, target, sent, by, mayPost, this.#nameOf(sender), target && this.#nameOf(target.sender)];
      items.push({ key: `event ${event.seq}`, of, make: () => this.#message(event, at, { head, target, sent, by, mayPost }) });
    }
    for (const draft of drafts) {
      const of = [draft.state, draft.error, draft.text];
      items.push({ key: `draft ${draft.id}`, of, make: () => this.#draft(draft) });
    }
    return items;
  }

  /** @param {Entry} entry @returns {Item} */
  #top({ log, loading, problem, room }) {
    const key = 'top';
    if (problem !== '') {
      const again = h('button', { class: 'plain', onclick: this.#actions.older }, 'Try again');
      return { key, of: [problem], make: () => h('li', { class: 'top', role: 'alert' }, problem, ' ', again) };
    }
    if (log.hasOlder) {
      return { key, of: ['older', loading], make: () => h('li', { class: 'top' }, loading ? 'Loading older messages…' : '') };
    }
    const words = log.firstSeq > 1 ? 'Older messages are not kept.' : `This is where ${room.kind === 'direct' ? 'your conversation' : room.title || room.room} begins.`;
    return { key, of: [words], make: () => h('li', { class: 'top' }, words) };
  }

  /** @param {Date} at @param {(at: Date) => string} [shown] */
  #time(at, shown = timeOfDay) {
    return h('time', { datetime: at.toISOString(), title: fullTime(at) }, shown(at));
  }

  /** @param {string} user @param {string} [original] Who it was before an import. */
  #sender(user, original) {
    const name = original ?? this.#nameOf(user);
    const id = original === undefined && name.toLowerCase() !== user && h('span', { class: 'id' }, `@${user}`);
    return h('span', { class: 'sender' }, h('strong', {}, name), id);
  }

  /**
   * @param {Event} event
   * @param {Date} at
   * @param {{ head: boolean, target: Event | undefined, sent: string, by: string, mayPost: boolean }} context
   */
  #message(event, at, { head, target, sent, by, mayPost }) {
    const { seq, kind, text, redacted, edited_at, reactions = [], reply_count = 0, sender, original_sender } = event;
    const isAction = kind === 'action';
    const name = original_sender ?? this.#nameOf(sender);
    const own = sender === this.#me;
    const body = redacted
      ? h('p', { class: 'text gone' }, 'This message was removed.')
      : h('p', { class: 'text', dir: 'auto' }, isAction && h('strong', {}, `${name} `), ...rich(text, this.#me), edited_at && h('span', { class: 'edited', title: fullTime(new Date(edited_at)) }, ' (edited)'));
    const notes = [
      ...reactions.map(({ symbol, users }) => h('span', { class: 'reaction', title: users.map(this.#nameOf).join(', ') }, symbol, ' ', String(users.length))),
      reply_count > 0 && h('span', { class: 'replies' }, count(reply_count, 'reply', 'replies')),
    ].filter(Boolean);
    const reply = mayPost && !redacted && h('button', { class: 'tool', 'aria-label': `Reply to ${name}`, onclick: () => this.#actions.reply(event) }, 'Reply');
    return h(
      'li',
      { class: ['message', head && 'head', own && 'own', kind].filter(Boolean).join(' '), 'data-seq': seq },
      head && !isAction ? h('span', { class: `avatar ${hue(original_sender ?? sender)}`, 'aria-hidden': 'true' }, initial(name)) : h('span', { class: 'gutter' }, this.#time(at, shortTime)),
      h(
        'div',
        { class: 'body' },
        head && !isAction && h('p', { class: 'by' }, this.#sender(sender, original_sender), this.#time(at)),
        event.target !== undefined && this.#quote(event.target, target),
        body,
        notes.length > 0 && h('p', { class: 'notes' }, ...notes),
      ),
      sent !== '' && h('span', { class: 'state sent', title: by }, sent),
      reply,
    );
  }

  /** @param {number} seq @param {Event | undefined} target */
  #quote(seq, target) {
    if (!target) return h('p', { class: 'quote' }, '↳ in reply to an earlier message');
    const words = target.redacted ? 'a message that was removed' : target.text.slice(0, 200);
    return h('button', { class: 'quote', onclick: () => this.#jump(seq) }, '↳ ', h('strong', {}, this.#nameOf(target.sender)), ' ', words);
  }

  /** @param {number} seq */
  #jump(seq) {
    const node = this.#nodes.get(`event ${seq}`)?.node;
    if (!node) return;
    node.scrollIntoView({ block: 'center' });
    node.classList.remove('found');
    requestAnimationFrame(() => node.classList.add('found'));
  }

  /** @param {Draft} draft */
  #draft(draft) {
    const { id, text, state, error } = draft;
    const at = new Date(draft.at);
    const failed = state === 'failed' && h(
      'p',
      { class: 'state failed', role: 'alert' },
      `Not sent: ${error?.message ?? 'refused'}. `,
      h('button', { class: 'plain', onclick: () => this.#actions.retry(id) }, 'Try again'),
      h('button', { class: 'plain', onclick: () => this.#actions.discard(id) }, 'Discard'),
    );
    const word = state === 'sending' ? 'Sending…' : state === 'sent' ? 'Sent' : '';
    return h(
      'li',
      { class: `message head own draft ${state}`, 'data-draft': id },
      h('span', { class: `avatar ${hue(this.#me)}`, 'aria-hidden': 'true' }, initial(this.#nameOf(this.#me))),
      h('div', { class: 'body' }, h('p', { class: 'by' }, this.#sender(this.#me), this.#time(at)), h('p', { class: 'text', dir: 'auto' }, ...rich(text, this.#me)), failed),
      word !== '' && h('span', { class: `state ${state}` }, word),
    );
  }

  /** @param {Event} event @param {Date} at */
  #line(event, at) {
    return h('li', { class: 'line', 'data-seq': event.seq }, h('span', { class: 'gutter' }, this.#time(at, shortTime)), h('p', {}, this.#words(event)));
  }

  /** What happened, in words. @param {Event} event */
  #words({ kind, sender, subject, role, text, withdrawn, until }) {
    const by = this.#nameOf(sender);
    const whom = subject === undefined ? '' : this.#nameOf(subject);
    const why = text ? `: ${text}` : '';
    switch (kind) {
      case 'join':
        return `${by} joined`;
      case 'leave':
        return subject === undefined || subject === sender ? `${by} left` : `${by} removed ${whom}${why}`;
      case 'invite':
        return withdrawn ? `${by} took back the invitation of ${whom}` : `${by} invited ${whom}`;
      case 'role': {
        const done = role === 'muted' || role === 'banned' ? role : `made ${role}`;
        const end = until === undefined ? '' : ` until ${fullTime(new Date(until))}`;
        if (withdrawn) return `${whom} is no longer ${role}, says ${by}`;
        return done === role ? `${by} ${done} ${whom}${end}${why}` : `${by} made ${whom} ${role}`;
      }
      case 'topic':
        return text ? `${by} set the topic: ${text}` : `${by} cleared the topic`;
      case 'pin':
        return `${by} ${withdrawn ? 'unpinned' : 'pinned'} a message`;
      case 'archive':
        return `${by} ${withdrawn ? 'opened the room again' : 'archived the room'}`;
      case 'retention':
        return `${by} changed how long messages are kept`;
      case 'trim':
        return 'Older messages were removed, as this room keeps them for some time only';
      default:
        return `${by}: ${kind}`;
    }
  }
}
