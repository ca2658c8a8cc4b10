//! Newtypes for everything that has an identity, and their validation at the edge.
//!
//! A value of one of these types is valid: parsing is the only way in. All are cheap to clone.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::limits;

/// Why a string is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The string is not a slug.
    #[error("{0:?} is not a slug: 1 to 64 of a-z 0-9 . _ -, the first a letter or digit")]
    Slug(String),
    /// The string begins like a direct room's id, but is not one.
    #[error("{0:?} is not a direct room's id: dm:<a>:<b>, two different users in order")]
    Direct(String),
    /// The bytes are not a UUIDv7.
    #[error("a request id must be a UUIDv7")]
    RequestId,
    /// The string is not `<epoch>:<seq>`.
    #[error("{0:?} is not a cursor: <epoch>:<seq>")]
    Cursor(String),
}

/// What every join token begins with: what lets a new node join a cluster.
pub const JOIN_TOKEN_PREFIX: &str = "fmjoin_";

/// A node of the cluster. Given by the meta group, from 1; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u64);

/// A shard: one Raft group. 0 is the meta group; data shards count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The group that holds the cluster map.
    pub const META: ShardId = ShardId(0);
}

/// One of the 1,024 parts of the keyspace; the cluster map says which shard has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// Position of an event in its room: dense, from 1. 0 means "before the first".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// The position after this one.
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

macro_rules! display_inner {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}
display_inner!(NodeId, ShardId, Slot, Seq, RoomId, UserId, Epoch);

/// A room's id: a slug, or `dm:<a>:<b>` with a < b.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomId(Arc<str>);

/// A user's id: a slug.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

/// What the ids of [`UserId::of_subject`] begin with: behind every letter.
const SUBJECT_MARK: char = '~';
/// So much of a hash is in them that they are no longer than a slug.
const SUBJECT_ID_BYTES: usize = 31;

fn is_slug(s: &str) -> bool {
    let bytes = s.as_bytes();
    matches!(bytes.first(), Some(b'a'..=b'z' | b'0'..=b'9'))
        && bytes.len() <= limits::SLUG_BYTES_MAX
        && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

impl UserId {
    /// Parses a user id.
    ///
    /// # Errors
    /// [`InvalidId::Slug`] when `s` is not a slug.
    pub fn parse(s: &str) -> Result<UserId, InvalidId> {
        if is_slug(s) { Ok(UserId(s.into())) } else { Err(InvalidId::Slug(s.into())) }
    }

    /// The id of the row that says whose an account of a provider is, by the hash of that account.
    /// No user has it: it is no slug, so that no client can name it, and it is behind all that are.
    pub fn of_subject(hash: &[u8; 32]) -> UserId {
        let digits = hash.iter().take(SUBJECT_ID_BYTES).map(|byte| format!("{byte:02x}"));
        UserId(digits.fold(String::from(SUBJECT_MARK), |id, digits| id + &digits).into())
    }

    /// Parses the id of a row, which may be one of [`UserId::of_subject`]: between nodes, and on
    /// disk.
    ///
    /// # Errors
    /// [`InvalidId::Slug`].
    pub fn parse_row(s: &str) -> Result<UserId, InvalidId> {
        let is_subject = s.strip_prefix(SUBJECT_MARK).is_some_and(|digits| {
            digits.len() == 2 * SUBJECT_ID_BYTES
                && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        if is_subject { Ok(UserId(s.into())) } else { UserId::parse(s) }
    }

    /// Whether it is one of [`UserId::of_subject`].
    pub fn is_subject(&self) -> bool {
        self.0.starts_with(SUBJECT_MARK)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl RoomId {
    /// Parses a room id of either form.
    ///
    /// # Errors
    /// [`InvalidId`] when `s` is neither a slug nor a direct room's id.
    pub fn parse(s: &str) -> Result<RoomId, InvalidId> {
        if let Some(pair) = s.strip_prefix("dm:") {
            return match pair.split_once(':') {
                Some((a, b)) if is_slug(a) && is_slug(b) && a < b => Ok(RoomId(s.into())),
                _ => Err(InvalidId::Direct(s.into())),
            };
        }
        if is_slug(s) { Ok(RoomId(s.into())) } else { Err(InvalidId::Slug(s.into())) }
    }

    /// The direct room of two different users.
    ///
    /// # Errors
    /// [`InvalidId::Direct`] when both are the same.
    pub fn direct(a: &UserId, b: &UserId) -> Result<RoomId, InvalidId> {
        let (a, b) = if a < b { (a, b) } else { (b, a) };
        RoomId::parse(&format!("dm:{a}:{b}"))
    }

    /// The two users of a direct room, in order.
    pub fn direct_users(&self) -> Option<(UserId, UserId)> {
        let (a, b) = self.0.strip_prefix("dm:")?.split_once(':')?;
        Some((UserId(a.into()), UserId(b.into())))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Slots in the cluster map.
pub const SLOTS: u16 = 1024;

impl Slot {
    fn of(kind: &[u8], id: &str) -> Slot {
        let mut hasher = blake3::Hasher::new();
        hasher.update(kind);
        hasher.update(id.as_bytes());
        let hash = hasher.finalize();
        let bytes = hash.as_bytes();
        Slot(u16::from_be_bytes([bytes[0], bytes[1]]) & (SLOTS - 1))
    }

    /// The slot of a room, whose whole state lives in that slot's shard.
    pub fn of_room(room: &RoomId) -> Slot {
        Slot::of(b"room\0", room.as_str())
    }

    /// The slot of a user.
    pub fn of_user(user: &UserId) -> Slot {
        Slot::of(b"user\0", user.as_str())
    }
}

/// Identifies one request for as long as the dedup horizon: a UUIDv7, whose time counts.
///
/// A message's request id is its `client_msg_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Uuid);

impl RequestId {
    /// Takes 16 bytes.
    ///
    /// # Errors
    /// [`InvalidId::RequestId`] when they are not a UUIDv7.
    pub fn from_slice(bytes: &[u8]) -> Result<RequestId, InvalidId> {
        let uuid = Uuid::from_slice(bytes).map_err(|_| InvalidId::RequestId)?;
        RequestId::from_uuid(uuid)
    }

    /// Takes the textual form, hyphenated or not.
    ///
    /// # Errors
    /// [`InvalidId::RequestId`] when it is not a UUIDv7.
    pub fn parse(s: &str) -> Result<RequestId, InvalidId> {
        RequestId::from_uuid(Uuid::try_parse(s).map_err(|_| InvalidId::RequestId)?)
    }

    fn from_uuid(uuid: Uuid) -> Result<RequestId, InvalidId> {
        let rfc4122 = uuid.get_variant() == uuid::Variant::RFC4122;
        if uuid.get_version_num() == 7 && rfc4122 {
            Ok(RequestId(uuid))
        } else {
            Err(InvalidId::RequestId)
        }
    }

    /// Mints an id from a time and 10 random bytes (RFC 9562 §5.7).
    pub fn mint(unix_ms: u64, random: [u8; 10]) -> RequestId {
        RequestId(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
    }

    /// The id's own time, in milliseconds since the Unix epoch.
    pub fn unix_ms(&self) -> u64 {
        let b = self.0.as_bytes();
        u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]])
    }

    /// The 16 bytes; they sort by time.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// Names one history of a room; opaque, compared for equality only. New on each restore or forced
/// recovery.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// Takes an epoch as text: 1 to 32 ASCII letters and digits.
    ///
    /// # Errors
    /// [`InvalidId::Cursor`] otherwise.
    pub fn parse(s: &str) -> Result<Epoch, InvalidId> {
        let fits = (1..=limits::EPOCH_BYTES_MAX).contains(&s.len());
        if fits && s.bytes().all(|b| b.is_ascii_alphanumeric()) {
            Ok(Epoch(s.into()))
        } else {
            Err(InvalidId::Cursor(s.into()))
        }
    }

    /// Mints an epoch from 8 random bytes.
    pub fn mint(random: [u8; 8]) -> Epoch {
        Epoch(format!("{:016x}", u64::from_be_bytes(random)).into())
    }

    /// The epoch as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A position in a room's log, as clients keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// `None` stands for whatever the room's epoch is.
    pub epoch: Option<Epoch>,
    /// The last event seen; 0 before the first.
    pub seq: Seq,
}

impl Cursor {
    /// Parses `<epoch>:<seq>`, or a bare `<seq>`.
    ///
    /// # Errors
    /// [`InvalidId::Cursor`] when `s` is neither.
    pub fn parse(s: &str) -> Result<Cursor, InvalidId> {
        let invalid = || InvalidId::Cursor(s.into());
        let (epoch, seq) = match s.split_once(':') {
            Some((epoch, seq)) => (Some(Epoch::parse(epoch).map_err(|_| invalid())?), seq),
            None => (None, s),
        };
        if seq.is_empty() || !seq.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        let seq = Seq(seq.parse().map_err(|_| invalid())?);
        Ok(Cursor { epoch, seq })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.epoch {
            Some(epoch) => write!(f, "{epoch}:{}", self.seq),
            None => write!(f, "{}", self.seq),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user() -> impl Strategy<Value = UserId> {
        "[a-z0-9][a-z0-9._-]{0,63}".prop_map(|s| UserId::parse(&s).unwrap())
    }

    fn room() -> impl Strategy<Value = RoomId> {
        let direct =
            (user(), user()).prop_filter_map("different", |(a, b)| RoomId::direct(&a, &b).ok());
        prop_oneof![user().prop_map(|user| RoomId::parse(user.as_str()).unwrap()), direct]
    }

    fn cursor() -> impl Strategy<Value = Cursor> {
        let epoch = "[0-9a-zA-Z]{1,32}".prop_map(|s| Epoch::parse(&s).unwrap());
        (proptest::option::of(epoch), any::<u64>())
            .prop_map(|(epoch, seq)| Cursor { epoch, seq: Seq(seq) })
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_as_the_same(
            room in room(), user in user(), cursor in cursor(),
        ) {
            prop_assert_eq!(RoomId::parse(&room.to_string()), Ok(room));
            prop_assert_eq!(UserId::parse(&user.to_string()), Ok(user));
            if let Some(epoch) = &cursor.epoch {
                prop_assert_eq!(&Epoch::parse(&epoch.to_string()), &Ok(epoch.clone()));
            }
            prop_assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
        }

        #[test]
        fn what_is_minted_is_valid(
            ms in 0..1u64 << 48, random in any::<[u8; 10]>(), bytes in any::<[u8; 8]>(),
        ) {
            let id = RequestId::mint(ms, random);
            prop_assert_eq!(RequestId::parse(&id.to_string()), Ok(id));
            prop_assert_eq!(RequestId::from_slice(id.as_bytes()), Ok(id));
            prop_assert_eq!(id.unix_ms(), ms);
            let epoch = Epoch::mint(bytes);
            prop_assert_eq!(Epoch::parse(epoch.as_str()), Ok(epoch));
        }

        #[test]
        fn direct_rooms_are_of_their_two_users(a in user(), b in user()) {
            match RoomId::direct(&a, &b) {
                Err(_) => prop_assert_eq!(a, b),
                Ok(room) => {
                    prop_assert_eq!(RoomId::direct(&b, &a), Ok(room.clone()));
                    prop_assert!(room.as_str().len() <= limits::ROOM_ID_BYTES_MAX);
                    let users = if a < b { (a, b) } else { (b, a) };
                    prop_assert_eq!(room.direct_users(), Some(users));
                }
            }
        }

        #[test]
        fn arbitrary_strings_give_an_error_or_what_prints_as_they_do(
            text in prop_oneof![any::<String>(), "[a-z0-9:dm.-]{0,40}", "dm:\\PC{0,20}"],
        ) {
            if let Ok(room) = RoomId::parse(&text) {
                prop_assert_eq!(room.to_string(), text.clone());
                room.direct_users();
            }
            if let Ok(user) = UserId::parse(&text) {
                prop_assert_eq!(user.to_string(), text.clone());
            }
            if let Ok(epoch) = Epoch::parse(&text) {
                prop_assert_eq!(epoch.to_string(), text.clone());
            }
            // These two have several forms.
            if let Ok(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
            }
            if let Ok(id) = RequestId::parse(&text) {
                prop_assert_eq!(RequestId::parse(&id.to_string()), Ok(id));
            }
        }
    }

    #[test]
    fn slugs_are_checked() {
        for good in ["a", "general", "0.x_y-z", &"a".repeat(64)] {
            assert_eq!(RoomId::parse(good).unwrap().as_str(), good);
            assert_eq!(UserId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "A", "-a", ".a", "a b", "ä", "a/b", "a\0", &"a".repeat(65)] {
            assert!(RoomId::parse(bad).is_err(), "{bad:?}");
            assert!(UserId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn direct_rooms_are_sorted_pairs() {
        let (a, b) = (UserId::parse("ann").unwrap(), UserId::parse("bob").unwrap());
        let room = RoomId::direct(&b, &a).unwrap();
        assert_eq!(room.as_str(), "dm:ann:bob");
        assert_eq!(room.direct_users(), Some((a.clone(), b)));
        assert!(RoomId::direct(&a, &a).is_err());
        for bad in ["dm:", "dm:a", "dm:b:a", "dm:a:a", "dm:a:b:c", "dm:A:b"] {
            assert!(RoomId::parse(bad).is_err(), "{bad}");
        }
        assert!(UserId::parse("dm:a:b").is_err());
        let row = UserId::of_subject(&[0xab; 32]);
        assert!(row.is_subject() && UserId::parse(row.as_str()).is_err());
        assert_eq!(UserId::parse_row(row.as_str()), Ok(row.clone()));
        assert!(row.as_str().len() <= limits::SLUG_BYTES_MAX);
        assert!(row > UserId::parse(&"z".repeat(limits::SLUG_BYTES_MAX)).unwrap());
        for bad in ["~", "~ab", &format!("~{}", "g".repeat(62))] {
            assert!(UserId::parse_row(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn request_ids_are_uuid_v7_and_carry_their_time() {
        let id = RequestId::mint(1_700_000_000_123, [9; 10]);
        assert_eq!(id.unix_ms(), 1_700_000_000_123);
        assert_eq!(RequestId::parse(&id.to_string()), Ok(id));
        assert_eq!(RequestId::from_slice(id.as_bytes()), Ok(id));
        assert!(RequestId::parse("00000000-0000-4000-8000-000000000000").is_err());
        assert!(RequestId::from_slice(&[0; 15]).is_err());
    }

    #[test]
    fn cursors_round_trip() {
        for s in ["0", "12", "abc123:0", "ABC:18446744073709551615"] {
            assert_eq!(Cursor::parse(s).unwrap().to_string(), s);
        }
        for bad in ["", ":", ":1", "a:", "a:-1", "a:+1", "a:1:2", "a b:1", "a:18446744073709551616"]
        {
            assert!(Cursor::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn slots_are_pinned() {
        // A change here moves every room of every cluster.
        assert_eq!(Slot::of_room(&RoomId::parse("general").unwrap()), Slot(206));
        assert_eq!(Slot::of_user(&UserId::parse("general").unwrap()), Slot(227));
    }
}
