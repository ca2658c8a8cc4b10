//! Everything that decodes bytes from a disk or a peer: garbage is refused, and what is taken is the same
//! after it was encoded once more.
//!
//! The first byte of an input chooses a decoder ([`DECODERS`]), the rest is for it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use folkmoot::chat::apply;
use folkmoot::chat::codec as wire;
use folkmoot::id::{Cursor, Epoch, NodeId, RequestId, RoomId, Seq, ShardId, UserId};
use folkmoot::meta;
use folkmoot::presence::Presence;
use folkmoot::proto::internal::PresenceFrame;
use folkmoot::shard::wire as raft;
use folkmoot::store::base::MemoryBase;
use folkmoot::store::block::{Packer, Run};
use folkmoot::store::log::state::{Stamp, State};
use folkmoot::store::seal::Seal;
use folkmoot::store::snapshot_sink::SnapshotSink;
use folkmoot::store::{codec, dedup_part, key};
use prost::Message;

use super::input::Input;
use super::world::{self, FixedClock, NOW_MS};

/// A decoder's name, and what is tried with it.
pub type Decoder = (&'static str, fn(&[u8]));

/// Every decoder, by the first byte of an input. New ones go to the end: the corpus counts on the places.
pub const DECODERS: &[Decoder] = &[
    ("key", keys),
    ("block", blocks),
    ("dedup part", dedup_parts),
    ("room's row", |b| same(b, |b| codec::room_from(&room(), b).ok(), codec::room_value)),
    ("participant's row", |b| {
        same(b, |b| codec::participant_from(b).ok(), codec::participant_value)
    }),
    ("notes' row", |b| same(b, |b| codec::notes_from(b).ok(), codec::notes_value)),
    ("user's row", |b| same(b, |b| codec::user_from(&user(), b).ok(), codec::user_value)),
    ("number", |b| same(b, |b| codec::number_from(b).ok(), |n| codec::number_value(*n))),
    ("blob", |b| same(b, |b| codec::blob_from(b).ok(), |b| codec::blob_value(b))),
    ("applied", |b| same(b, |b| codec::applied_from(b).ok(), codec::applied_value)),
    ("seal", |b| same(b, Seal::decode, |seal| seal.encode())),
    ("log's group", |b| same(b, |b| State::decode(b).ok(), State::encode)),
    ("log's stamp", |b| same(b, |b| Stamp::decode(b).ok(), Stamp::encode)),
    ("event", |b| same(b, |b| wire::decode_event(b).ok(), |e| wire::encode_event(e).into())),
    ("request", |b| {
        same(b, |b| wire::decode_request(&copy(b)).ok(), |r| wire::encode_request(r).into())
    }),
    ("batch", |b| {
        same(
            b,
            |b| wire::decode_batch(copy(b)).ok(),
            |batch| wire::encode_batch(batch.stamp_ms, batch.requests.clone()).into(),
        );
    }),
    ("query", |b| same(b, |b| wire::decode_query(b).ok(), |q| wire::encode_query(q).into())),
    ("answer", |b| same(b, |b| wire::decode_answer(b).ok(), |a| wire::encode_answer(a).into())),
    ("reply", |b| same(b, |b| wire::decode_reply(b).ok(), |r| wire::encode_reply(r).into())),
    ("actor", |b| same(b, |b| wire::decode_actor(b).ok(), |a| wire::encode_actor(a).into())),
    ("error", |b| same(b, |b| wire::decode_error(b).ok(), |e| wire::encode_error(e).into())),
    ("recovery", |b| {
        same(b, |b| wire::decode_recovery(&copy(b)).ok(), |r| wire::encode_recovery(r).into());
    }),
    ("cluster map", cluster_maps),
    ("entry", |b| same(b, |b| raft::decode_entry(copy(b)).ok(), |e| raft::encode_entry(e).into())),
    ("vote", |b| same(b, |b| raft::decode_vote(copy(b)).ok(), |v| raft::encode_vote(v).into())),
    ("log id", |b| {
        same(b, |b| raft::decode_log_id(copy(b)).ok(), |id| raft::encode_log_id(id).into());
    }),
    ("membership", |b| {
        same(
            b,
            |b| raft::decode_stored_membership(copy(b)).ok(),
            |m| raft::encode_stored_membership(m).into(),
        );
    }),
    ("presence", presence),
    ("snapshot", snapshot),
    ("log of chat", chat_log),
    ("log of meta", meta_log),
    ("ids", ids),
];

/// Runs one input.
pub fn run(data: &[u8]) {
    if let Some((choice, rest)) = data.split_first() {
        let (_, decoder) = DECODERS[usize::from(*choice) % DECODERS.len()];
        decoder(rest);
    }
}

/// What is taken is the same after it was encoded and decoded, and is encoded the same then.
fn same<T: PartialEq + Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Option<T>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    let Some(value) = decode(bytes) else { return };
    let encoded = encode(&value);
    let again = decode(&encoded);
    assert_eq!(again.as_ref(), Some(&value), "decoded from {encoded:02x?}");
    assert_eq!(again.map(|value| encode(&value)), Some(encoded));
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn room() -> RoomId {
    RoomId::parse("general").unwrap()
}

fn user() -> UserId {
    UserId::parse("ann").unwrap()
}

/// A key has one form only.
fn keys(bytes: &[u8]) {
    let Some((space, decoded)) = key::decode(bytes) else { return };
    assert_eq!(space.key(&decoded), bytes, "{decoded:?}");
    let suffix = key::suffix(bytes);
    if let Some(moved) = space.key_from_suffix(&suffix) {
        assert_eq!(moved, bytes);
    }
}

/// A block's events are what they were after they were packed anew.
fn blocks(bytes: &[u8]) {
    let mut input = Input(bytes);
    let first = Seq(u64::from(input.byte()) + 1);
    let Ok(run) = Run::decode(first, input.0) else { return };
    let mut repacked = Run::new(first);
    run.events(first).for_each(|(_, event)| repacked.push_encoded(event));
    let mut found = Vec::new();
    for block in Packer::default().pack(&repacked) {
        let run = Run::decode(block.first, &block.value).expect("it was packed here");
        found.extend(run.events(block.first).map(|(seq, event)| (seq, event.to_vec())));
    }
    let wanted = run.events(first).map(|(seq, event)| (seq, event.to_vec()));
    assert!(wanted.eq(found));
    let mut reader = wire::EventReader::default();
    for (_, bytes) in run.events(first) {
        let Ok(event) = reader.read(bytes) else { continue };
        let mut encoded = Vec::new();
        wire::put_event(&mut encoded, &event);
        assert_eq!(reader.read(&encoded).as_ref(), Ok(&event));
    }
}

fn dedup_parts(bytes: &[u8]) {
    let minute = u32::try_from(NOW_MS / 60_000).unwrap();
    let Ok((generation, outcomes)) = dedup_part::decode_part(minute, bytes) else { return };
    let mut found = Vec::new();
    for (_, value) in dedup_part::encode_parts(minute, generation, &outcomes) {
        let (again, part) = dedup_part::decode_part(minute, &value).expect("it was encoded here");
        assert_eq!(again, generation);
        found.extend(part);
    }
    assert_eq!(found, outcomes);
}

/// Whatever a map says, asking it is safe.
fn cluster_maps(bytes: &[u8]) {
    same(bytes, |b| meta::ClusterMap::decode(b).ok(), |map| map.encode().into());
    let Ok(map) = meta::ClusterMap::decode(bytes) else { return };
    let _ = (map.is_formed(), map.cluster_id(), map.version(), map.rebalance());
    let _ = (map.nodes().count(), map.removed().count(), map.placements().count());
    let shards: Vec<_> = map.shards().take(64).collect();
    for (shard, nodes) in shards {
        let _ = (map.placement(shard), map.replicas(shard));
        nodes.into_iter().take(8).for_each(|node| {
            let _ = (map.node(node), map.is_removed(node));
        });
    }
    let _ = (map.data_shards().count(), map.shard_of_room(&room()), map.shard_of_user(&user()));
}

/// Two peers tell something, each in some frames.
fn presence(bytes: &[u8]) {
    let presence = Presence::new(Arc::new(FixedClock));
    let mut input = Input(bytes);
    let peers = [NodeId(2), NodeId(3)].map(|peer| (peer, presence.begin_hearing(peer)));
    while !input.is_empty() {
        let (peer, stream) = peers[usize::from(input.byte() & 1)];
        let Ok(frame) = PresenceFrame::decode(input.part()) else { continue };
        presence.hear(peer, stream, &frame);
    }
    let (room, user) = (room(), user());
    let _ = (presence.seen([&user]), presence.typing_in(&room), presence.here());
    presence.take_changes();
}

/// Chunks of rows and of events, as a peer sends them.
fn snapshot(bytes: &[u8]) {
    let mut sink = SnapshotSink::new(Arc::new(MemoryBase::new()), ShardId(1)).unwrap();
    let mut input = Input(bytes);
    while !input.is_empty() {
        let is_rows = input.byte() & 1 == 0;
        let chunk = input.part();
        let taken = if is_rows { sink.put_rows(chunk) } else { sink.put_blocks(chunk) };
        if taken.is_err() {
            return;
        }
    }
    let _ = sink.finish();
}

/// Requests that are in the log are applied, whatever they are; one that is rejected has changed nothing.
fn chat_log(bytes: &[u8]) {
    static START: LazyLock<folkmoot::chat::memory::Memory> = LazyLock::new(world::start);
    let mut state = START.clone();
    let mut input = Input(bytes);
    let mut appended = Vec::new();
    for _ in 0..16 {
        if input.is_empty() {
            break;
        }
        let stamp_ms = NOW_MS + (u64::from(input.byte()) << 14);
        apply::apply_batch(&mut state, stamp_ms, &[], |_, _| (), &mut appended);
        let (before, request) = (state.clone(), copy(input.part()));
        let mut accepted = false;
        let replied = |_, reply: Result<_, _>| accepted = reply.is_ok();
        apply::apply_batch(&mut state, stamp_ms, &[request], replied, &mut appended);
        assert!(accepted || state == before, "a rejected request has changed something");
    }
}

#[derive(Default)]
struct Blobs(BTreeMap<String, Bytes>);

impl meta::Blobs for Blobs {
    fn blob(&self, name: &str) -> Option<Bytes> {
        self.0.get(name).cloned()
    }

    fn put_blob(&mut self, name: &str, blob: Bytes) {
        self.0.insert(name.to_owned(), blob);
    }
}

/// The same of the meta group.
fn meta_log(bytes: &[u8]) {
    let mut state = Blobs::default();
    let mut input = Input(bytes);
    for n in 0..16 {
        if input.is_empty() {
            break;
        }
        let request = copy(input.part());
        meta::apply_batch(&mut state, &[request], NOW_MS + n * 60_000);
    }
}

/// Ids are taken in one form, or are the same in another.
fn ids(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(room) = RoomId::parse(text) {
        assert_eq!(room.as_str(), text);
        if let Some((a, b)) = room.direct_users() {
            assert_eq!(RoomId::direct(&b, &a).as_ref(), Ok(&room));
        }
    }
    if let Ok(user) = UserId::parse_row(text) {
        assert_eq!(user.as_str(), text);
        assert_eq!(UserId::parse(text).is_err(), user.is_subject());
    }
    if let Ok(id) = RequestId::parse(text) {
        assert_eq!(RequestId::parse(&id.to_string()), Ok(id));
        assert_eq!(RequestId::from_slice(id.as_bytes()), Ok(id));
    }
    if let Ok(epoch) = Epoch::parse(text) {
        assert_eq!(epoch.as_str(), text);
    }
    if let Ok(cursor) = Cursor::parse(text) {
        assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
    }
}
