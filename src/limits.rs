//! Every limit on what a client may send and what a node keeps, in one place.
//!
//! Limits that an operator may lower are in `config.rs`; these are their ceilings.

/// A slug's length in bytes.
pub const SLUG_BYTES_MAX: usize = 64;
/// A room id's length in bytes: `dm:` and two slugs.
pub const ROOM_ID_BYTES_MAX: usize = 3 + SLUG_BYTES_MAX + 1 + SLUG_BYTES_MAX;
/// An epoch's length in bytes.
pub const EPOCH_BYTES_MAX: usize = 32;
/// A message's text, in bytes of UTF-8.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// A room's title or topic, in bytes.
pub const TITLE_BYTES_MAX: usize = 256;
/// A user's display name, in bytes.
pub const DISPLAY_NAME_BYTES_MAX: usize = 128;
/// A reaction's symbol, in bytes.
pub const SYMBOL_BYTES_MAX: usize = 32;
/// Different symbols on one message.
pub const SYMBOLS_PER_MESSAGE_MAX: usize = 64;
/// Users who reacted with one symbol to one message.
pub const USERS_PER_SYMBOL_MAX: usize = 256;
/// Edits of one message.
pub const EDITS_PER_MESSAGE_MAX: usize = 100;
/// Replies to one message.
pub const REPLIES_MAX: usize = 10_000;
/// Users whom one text mentions.
pub const MENTIONS_MAX: usize = 50;
/// Events of one room that are looked through to count what somebody has not read.
pub const UNREAD_EVENTS_MAX: u64 = 1000;
/// Pinned messages of one room.
pub const PINS_PER_ROOM_MAX: usize = 50;
/// Why somebody was removed, muted or banned, in bytes.
pub const REASON_BYTES_MAX: usize = 256;
/// The longest mute or ban that is not for good, in milliseconds: ten years.
pub const RESTRICTION_MS_MAX: u64 = 3653 * 24 * 3600 * 1000;
/// The shortest and the longest time for which a room may keep its events, in milliseconds.
pub const RETENTION_AGE_MS_MIN: u64 = 1000;
/// See [`RETENTION_AGE_MS_MIN`]: a hundred years.
pub const RETENTION_AGE_MS_MAX: u64 = 36_525 * 24 * 3600 * 1000;
/// The fewest events that a room may be told to keep.
pub const RETENTION_EVENTS_MIN: u64 = 1;
/// Events that one command drops from a room, at most: `apply` must not take long.
pub const TRIM_EVENTS_MAX: u64 = 4096;
/// What rooms are searched for, in bytes.
pub const SEARCH_BYTES_MAX: usize = 128;
/// A token's label, in bytes.
pub const LABEL_BYTES_MAX: usize = 64;
/// Tokens of one user.
pub const TOKENS_PER_USER_MAX: usize = 32;
/// A user's status, in bytes.
pub const STATUS_BYTES_MAX: usize = 256;
/// A password, in bytes of UTF-8.
pub const PASSWORD_BYTES_MAX: usize = 256;
/// A password, in characters.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// A password's hash, as a PHC string, in bytes.
pub const PASSWORD_HASH_BYTES_MAX: usize = 256;
/// Sessions of one user; the one that was not used for the longest time makes room for another.
pub const SESSIONS_PER_USER_MAX: usize = 32;
/// What a client says it is, as far as it is kept, in bytes.
pub const USER_AGENT_BYTES_MAX: usize = 128;
/// An issuer of OpenID Connect, in bytes.
pub const ISSUER_BYTES_MAX: usize = 512;
/// What an issuer calls somebody (OpenID Connect Core 1.0, section 2), in bytes.
pub const SUBJECT_BYTES_MAX: usize = 255;
/// An IP address as text, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 48;
/// The longest that a token, a session or an invite can be valid for, in milliseconds: ten years.
pub const TTL_MS_MAX: u64 = 10 * 366 * 24 * 3600 * 1000;
/// Invites of one administrator.
pub const INVITES_PER_USER_MAX: usize = 32;
/// How many one invite lets in.
pub const INVITE_USES_MAX: u32 = 100;
/// An import source's name, in bytes.
pub const SOURCE_BYTES_MAX: usize = 256;
/// Lines in one import command.
pub const IMPORT_LINES_MAX: usize = 1000;
/// Texts of one import command together, in bytes.
pub const IMPORT_BYTES_MAX: usize = 768 * 1024;
/// Events, rooms or users on one page.
pub const PAGE_ITEMS_MAX: usize = 1000;
/// Items on a page when the client does not say.
pub const PAGE_ITEMS_DEFAULT: usize = 100;
/// Bodies on one page together, in bytes; a page holds at least one event.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Participants shown with a room.
pub const PARTICIPANTS_SHOWN_MAX: usize = 1000;
/// The longest long poll, in milliseconds.
pub const WAIT_MS_MAX: u64 = 60_000;
/// How long a request id is remembered, in milliseconds of log time.
pub const DEDUP_HORIZON_MS: u64 = 7 * 24 * 3600 * 1000;
/// How far ahead of log time a request id's own time may be, in milliseconds.
pub const CLOCK_SKEW_MS_MAX: u64 = 5 * 60 * 1000;
/// Entries of the log by which a replica may trail its leader and still be called caught up: a learner
/// may vote then, a node is ready, a replica counts when a quorum is asked for.
pub const CAUGHT_UP_LAG_MAX: u64 = 64;
/// Commands in one Raft log entry.
pub const BATCH_COMMANDS_MAX: usize = 1024;
/// Commands in one Raft log entry, in bytes.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// An HTTP request's body, in bytes.
pub const BODY_BYTES_MAX: usize = 1024 * 1024 + 64 * 1024;
/// A row of the base, in bytes: longer sled values go to blob files, which do not survive power
/// cuts (design: storage).
pub const ROW_BYTES_MAX: usize = 4096;

const _: () = assert!(IMPORT_BYTES_MAX < BATCH_BYTES_MAX && TEXT_BYTES_MAX < IMPORT_BYTES_MAX);
