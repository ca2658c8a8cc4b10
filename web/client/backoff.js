// When to come back after a connection has ended: docs/protocol.md, "The end".

/** "At once" is within this, at a moment picked by chance, as all clients of a node come at once. */
export const SOON_MS = 500;
/** The first pause; each one doubles. */
const FIRST_MS = 1000;
/** The longest pause. */
export const PAUSE_MS_MAX = 30_000;

/**
 * How a connection has ended.
 * @typedef {object} End
 * @property {number} code The close code; 1006 when there was none.
 * @property {number} [retryAfterMs] What the node's last error said.
 * @property {number} failures How many ends in a row came before this one without a `hello` in between.
 */

/**
 * @typedef {{ again: true, afterMs: number } | { again: false, why: 'signed_out' | 'refused' }} Plan
 */

/**
 * A pause that grows, with chance in it: between a half and the whole of its length.
 * @param {number} failures
 * @param {() => number} random
 */
export const pause = (failures, random) => {
  const longest = Math.min(PAUSE_MS_MAX, FIRST_MS * 2 ** Math.min(failures, 10));
  return longest / 2 + (random() * longest) / 2;
};

/**
 * @param {End} end
 * @param {() => number} random From 0 up to 1.
 * @returns {Plan}
 */
export const plan = (end, random) => {
  const { code, retryAfterMs, failures } = end;
  if (code === 4401) return { again: false, why: 'signed_out' };
  if (code >= 4400 && code < 4500) return { again: false, why: 'refused' };
  if (code >= 4100 && code < 4200) {
    // Chance on top, so that those who were told the same do not come together.
    const told = retryAfterMs === undefined ? 0 : retryAfterMs + random() * SOON_MS;
    return { again: true, afterMs: failures > 0 || !told ? Math.max(told, pause(failures, random)) : told };
  }
  // 40xx, and a lost network: at once the first time. A node that says 40xx to each hello is no reason
  // to hammer it, so the pause grows there too.
  const afterMs = failures > 0 ? pause(failures - 1, random) : random() * SOON_MS;
  return { again: true, afterMs };
};
