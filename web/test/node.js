// What browsers have, and an older Node.js (18, as Debian 12 has it) only by another name.

import { webcrypto } from 'node:crypto';

globalThis.crypto ??= /** @type {Crypto} */ (webcrypto);
