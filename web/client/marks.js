// How far this browser's user has looked in each room: the seam for read marks, which are the
// server's to keep one day. Until then they are this browser's own, and say so.

/** How many events of a room are gone through to count its messages; more are only called many. */
export const COUNTED_MAX = 300;

/**
 * @typedef {{ epoch: string, seq: number }} Mark
 */

export class Marks {
  #storage;
  #prefix;

  /**
   * @param {string} user
   * @param {Pick<Storage, 'getItem' | 'setItem'>} storage
   */
  constructor(user, storage) {
    this.#storage = storage;
    this.#prefix = `folkmoot.seen.${user}.`;
  }

  /**
   * @param {string} room
   * @returns {Mark | null} `null`: this browser has never looked.
   */
  get(room) {
    const cursor = this.#storage.getItem(this.#prefix + room) ?? '';
    const at = cursor.lastIndexOf(':');
    const seq = Number(cursor.slice(at + 1));
    return at > 0 && Number.isSafeInteger(seq) ? { epoch: cursor.slice(0, at), seq } : null;
  }

  /**
   * Marks are never moved back within an epoch.
   * @param {string} room
   * @param {Mark} mark
   */
  set(room, mark) {
    const before = this.get(room);
    if (before?.epoch === mark.epoch && before.seq >= mark.seq) return;
    try {
      this.#storage.setItem(this.#prefix + room, `${mark.epoch}:${mark.seq}`);
    } catch {
      // Storage is full or forbidden: what was seen is new again after a reload.
    }
  }
}

/**
 * From where to follow a room that is not looked at, so that what is new in it can be counted.
 * @param {Mark | null} mark
 * @param {{ epoch: string, head: number, first_seq: number }} room
 * @returns {{ from: number, many: boolean }} `many`: there is more than is worth counting.
 */
export const countFrom = (mark, { epoch, head, first_seq }) => {
  if (!mark || mark.epoch !== epoch || mark.seq > head) return { from: head, many: false };
  const from = Math.max(mark.seq, first_seq - 1);
  return head - from > COUNTED_MAX ? { from: head, many: true } : { from, many: false };
};
