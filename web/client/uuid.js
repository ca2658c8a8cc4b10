// Ids of messages: UUIDs of version 7 (RFC 9562), which nodes remember by the time in them.

/** @param {number} bytes @returns {Uint8Array} */
const randomBytes = (bytes) => crypto.getRandomValues(new Uint8Array(bytes));

/**
 * Mints ids that sort as they were minted, also within a millisecond and when the clock is set back.
 */
export class Ids {
  /** @type {(bytes: number) => Uint8Array} */
  #random;
  #last = 0;
  #count = 0;

  /** @param {(bytes: number) => Uint8Array} [random] */
  constructor(random = randomBytes) {
    this.#random = random;
  }

  /**
   * @param {number} now Milliseconds since the Unix epoch, as the server has it.
   * @returns {string}
   */
  mint(now) {
    if (now > this.#last) {
      [this.#last, this.#count] = [now, 0];
    } else if (++this.#count > 0xfff) {
      [this.#last, this.#count] = [this.#last + 1, 0];
    }
    const bytes = this.#random(8);
    bytes[0] = 0x80 | ((bytes[0] ?? 0) & 0x3f);
    const time = this.#last.toString(16).padStart(12, '0');
    const count = this.#count.toString(16).padStart(3, '0');
    const rest = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
    return `${time.slice(0, 8)}-${time.slice(8)}-7${count}-${rest.slice(0, 4)}-${rest.slice(4)}`;
  }
}

/**
 * When an id was minted, by the clock that it was minted by.
 * @param {string} id
 */
export const mintedAt = (id) => Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
