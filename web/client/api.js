// REST, as far as there is no frame for it. A browser's cookie says who is calling.

import { pause } from './backoff.js';

/** @import { Failure, OwnRoom, Page, Room, User } from './types.js' */

/** A request that was refused, or did not get through. */
export class ApiError extends Error {
  /** @param {number} status 0 when there was no answer. @param {Failure} failure */
  constructor(status, failure) {
    super(failure.message);
    this.status = status;
    this.failure = failure;
  }
}

/** How often a read is tried while the reason why it failed is a passing one. */
const ATTEMPTS = 5;

/** @param {string} message @returns {Failure} */
const unreachable = (message) => ({ code: 'unavailable', message, temporary: true, may_have_applied: true });

/**
 * @param {'GET' | 'POST'} method
 * @param {string} path
 * @param {object} [body]
 * @returns {Promise<any>} The answer's body; `null` when there is none.
 */
const once = async (method, path, body) => {
  const headers = { 'content-type': 'application/json' };
  const sent = body && { headers, body: JSON.stringify(body) };
  let response, text;
  try {
    response = await fetch(path, { method, credentials: 'same-origin', cache: 'no-store', ...sent });
    text = await response.text();
  } catch {
    throw new ApiError(0, unreachable('The server cannot be reached.'));
  }
  /** @type {any} */
  let json = null;
  try {
    json = text === '' ? null : JSON.parse(text);
  } catch {
    throw new ApiError(response.status, unreachable('The answer is not one of this server.'));
  }
  if (response.ok) return json;
  const failure = json?.error ?? { ...unreachable(response.statusText), temporary: response.status >= 500 };
  throw new ApiError(response.status, failure);
};

/**
 * Reads, patiently: what fails for a passing reason is tried again.
 * @param {string} path
 */
const get = async (path) => {
  for (let failures = 0; ; failures++) {
    try {
      return await once('GET', path);
    } catch (error) {
      if (!(error instanceof ApiError) || !error.failure.temporary || failures + 1 >= ATTEMPTS) throw error;
      const ms = Math.max(error.failure.retry_after_ms ?? 0, pause(failures, Math.random) / 2);
      await new Promise((resolve) => setTimeout(resolve, ms));
    }
  }
};

/** @param {string} room */
const below = (room) => `/v1/rooms/${encodeURIComponent(room)}`;

/** @returns {Promise<User>} */
export const me = () => get('/v1/me');

/** Somebody's profile. @param {string} user @returns {Promise<User>} */
export const user = (user) => get(`/v1/users/${encodeURIComponent(user)}`);

/** @param {string} user @param {string} password @returns {Promise<User>} */
export const login = (user, password) => once('POST', '/v1/login', { user, password, cookie: true });

/**
 * @param {{ user: string, password: string, display_name?: string, invite?: string }} account
 * @returns {Promise<User>}
 */
export const register = (account) => once('POST', '/v1/register', { ...account, cookie: true });

export const logout = () => once('POST', '/v1/logout');

/**
 * Every room that the caller may see, up to a thousand.
 * @returns {Promise<Room[]>}
 */
export const rooms = async () => {
  const { rooms } = await get('/v1/rooms?limit=1000');
  return rooms;
};

/**
 * The rooms that the user is in or invited to.
 * @returns {Promise<OwnRoom[]>}
 */
export const ownRooms = async () => {
  /** @type {OwnRoom[]} */
  const all = [];
  for (let after = ''; ; ) {
    const { rooms, next } = await get(`/v1/me/rooms?limit=1000${after}`);
    all.push(...rooms);
    if (next === null) return all;
    after = `&after=${encodeURIComponent(next)}`;
  }
};

/** A room with who is in it. @param {string} room @returns {Promise<Room>} */
export const room = (room) => get(below(room));

/**
 * @param {{ room: string, title: string, kind: string, request_id: string }} wish
 * @returns {Promise<Room>}
 */
export const createRoom = (wish) => once('POST', '/v1/rooms', wish);

/** @param {string} room @param {string} requestId */
export const join = (room, requestId) => once('POST', `${below(room)}/join`, { request_id: requestId });

/** @param {string} room @param {string} requestId */
export const leave = (room, requestId) => once('POST', `${below(room)}/leave`, { request_id: requestId });

/**
 * The events before a cursor, the newest of them.
 * @param {string} room
 * @param {string} before
 * @param {number} limit
 * @returns {Promise<Page>}
 */
export const older = (room, before, limit) =>
  get(`${below(room)}/events?before=${encodeURIComponent(before)}&limit=${limit}`);
