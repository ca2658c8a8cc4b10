// Elements. Everything that somebody wrote becomes text, by the DOM's own means: no markup is ever
// made out of data.

/** @typedef {Node | string | number | false | null | undefined} Child */

/**
 * Makes an element. Attributes are set as such; those that are functions are listeners (`onclick`).
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string | number | boolean | null | undefined | ((event: any) => void)>} [attributes]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export const h = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name.replace(/^on/, ''), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  fill(element, ...children);
  return element;
};

/**
 * Puts these in an element, in place of what was there.
 * @param {Element} element
 * @param {...Child} children
 */
export const fill = (element, ...children) => {
  const nodes = children.filter((child) => child !== false && child !== null && child !== undefined);
  element.replaceChildren(...nodes.map((child) => (child instanceof Node ? child : String(child))));
};

/** @type {WeakMap<Element, string>} */
const shown = new WeakMap();

/**
 * The same, when it shows something else than it did. What is made anew under a finger, or a reader's
 * cursor, is not clicked.
 * @param {Element} element
 * @param {unknown} of What it shows.
 * @param {() => Child[]} make
 */
export const refill = (element, of, make) => {
  const key = JSON.stringify(of);
  if (shown.get(element) === key) return;
  shown.set(element, key);
  fill(element, ...make());
};

/** Says something to those who do not see the page. @param {string} text */
export const announce = (text) => {
  const announcer = document.getElementById('announcer');
  if (announcer) announcer.textContent = text;
};
