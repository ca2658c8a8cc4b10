// The shapes of the protocol (docs/protocol.md, /v1/openapi.json), as far as this client reads them.
// There is no code here.

/**
 * A place in a room's log, as nodes write it: `<epoch>:<seq>`.
 * @typedef {string} Cursor
 */

/**
 * @typedef {{ symbol: string, users: string[] }} Reaction
 * @typedef {{ seq: number, at: string, text: string }} Edit
 */

/**
 * What happened in a room. Pages have it with what became of it since (`edited_at`, `edits`,
 * `reactions`, `reply_count`); live it comes as it happened.
 * @typedef {object} Event
 * @property {number} seq
 * @property {string} at
 * @property {string} sender
 * @property {string} kind
 * @property {string} client_msg_id
 * @property {string} text
 * @property {number} [target] The message that is answered, edited, redacted or reacted to.
 * @property {string} [subject] Who something was done to.
 * @property {string} [role]
 * @property {boolean} [redacted]
 * @property {boolean} [withdrawn]
 * @property {string} [until]
 * @property {string[]} [mentions] Whom its text mentions.
 * @property {string[]} [first_mentions] Not the server's: of a message that was edited while it was here, whom it
 *   mentioned as it was first said.
 * @property {string} [original_at]
 * @property {string} [original_sender]
 * @property {string} [edited_at]
 * @property {Edit[]} [edits]
 * @property {Reaction[]} [reactions]
 * @property {number} [reply_count]
 * @property {number} [last_reply]
 */

/**
 * A page of a room's log.
 * @typedef {object} Page
 * @property {string} epoch
 * @property {number} first_seq The oldest event that is kept.
 * @property {number} head
 * @property {boolean} recovered
 * @property {Event[]} events In ascending order, without a gap.
 */

/**
 * @typedef {object} Room
 * @property {string} room
 * @property {string} title
 * @property {'public' | 'private' | 'direct' | 'group'} kind
 * @property {string} topic
 * @property {number} head
 * @property {number} first_seq
 * @property {string} epoch
 * @property {number} participant_count
 * @property {boolean} archived
 * @property {Participant[]} [participants]
 */

/**
 * @typedef {object} Participant
 * @property {string} user
 * @property {string} role
 * @property {string} [until]
 * @property {boolean} [invited]
 * @property {number} read Up to which seq they have read.
 */

/**
 * What somebody has not read in a room; `more`: there is more than was counted.
 * @typedef {{ messages: number, mentions: number, more: boolean }} Unread
 */

/**
 * How present somebody is; `last_seen` if they are not, and it is known.
 * @typedef {{ user: string, status: 'online' | 'away' | 'offline', last_seen?: string }} Person
 */

/**
 * A room of the user's own.
 * @typedef {Room & { own: Participant, unread: Unread }} OwnRoom
 */

/**
 * @typedef {object} User
 * @property {string} user
 * @property {string} display_name
 */

/**
 * Why something failed (docs/errors.md).
 * @typedef {object} Failure
 * @property {string} code
 * @property {string} message
 * @property {boolean} temporary
 * @property {boolean} may_have_applied
 * @property {number} [retry_after_ms]
 * @property {number} [server_time_ms]
 */

/**
 * @typedef {{ seq: number, epoch: string, at: string, duplicate: boolean, client_msg_id: string }} Ack
 */

/**
 * A frame from a node; `type` says which fields there are.
 * @typedef {object} Frame
 * @property {string} type
 * @property {number} [ref]
 * @property {string} [room]
 * @property {number} [seq]
 * @property {string} [epoch]
 * @property {string} [at]
 * @property {boolean} [duplicate]
 * @property {string} [client_msg_id]
 * @property {number} [head]
 * @property {number} [first_seq]
 * @property {boolean} [recovered]
 * @property {Event} [event]
 * @property {Failure} [error]
 * @property {number} [present]
 * @property {Person[]} [people]
 * @property {string[]} [users]
 * @property {{ user: string, seq: number }[]} [marks]
 * @property {string} [user]
 * @property {number} [node]
 * @property {number} [server_time_ms]
 * @property {{ follows: number, in_flight: number, frame_bytes: number, text_bytes: number }} [limits]
 */

/**
 * The time, and what waits for it: the browser's, or a test's.
 * @typedef {object} Timers
 * @property {() => number} now Milliseconds since the Unix epoch, by this machine's clock.
 * @property {(work: () => void, ms: number) => unknown} after
 * @property {(timer: any) => void} cancel
 */

export {};
