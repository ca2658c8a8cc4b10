//! Frames and handshakes: round trips, pinned bytes, and rubbish.

use futures_util::FutureExt;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

type Parts = (u8, u32, Vec<u8>);

/// Every frame in some bytes, and how they end.
fn read_all(bytes: &[u8]) -> (Vec<Parts>, io::ErrorKind) {
    let (mut reader, mut found) = (frames(bytes), Vec::new());
    loop {
        match read_frame(&mut reader).now_or_never().expect("memory is always ready") {
            Ok(frame) => found.push((frame.kind, frame.stream, frame.body.to_vec())),
            Err(error) => return (found, error.kind()),
        }
    }
}

fn put_all(frames: &[Parts]) -> BytesMut {
    let mut out = BytesMut::new();
    for (kind, stream, body) in frames {
        put_frame(&mut out, *kind, *stream, body);
    }
    out
}

fn any_frames() -> impl Strategy<Value = Vec<Parts>> {
    vec((any::<u8>(), any::<u32>(), vec(any::<u8>(), 0..2000)), 0..6)
}

fn handshake() -> impl Strategy<Value = Handshake> {
    (any::<(u32, u32)>(), any::<(u64, u64)>(), any::<String>()).prop_map(
        |((protocol, lane), (from, to), cluster_id)| Handshake {
            protocol,
            lane,
            from,
            to,
            cluster_id,
        },
    )
}

proptest! {
    #[test]
    fn frames_round_trip(frames in any_frames()) {
        prop_assert_eq!(read_all(&put_all(&frames)), (frames, io::ErrorKind::UnexpectedEof));
    }

    #[test]
    fn a_cut_leaves_the_frames_before_it(frames in any_frames(), cut in any::<Index>()) {
        let mut bytes = put_all(&frames);
        bytes.truncate(cut.index(bytes.len() + 1));
        let (found, _) = read_all(&bytes);
        prop_assert!(frames.starts_with(&found));
        let left = bytes.len() - put_all(&found).len();
        prop_assert!(frames.get(found.len()).is_none_or(|(_, _, body)| left < 9 + body.len()));
    }

    #[test]
    fn handshakes_round_trip(handshake in handshake()) {
        prop_assert_eq!(Handshake::decode(handshake.encode().into()).unwrap(), handshake);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..64), len in 0..20u32) {
        read_all(&bytes);
        // A likely length, so that what follows it is looked at.
        read_all(&[&len.to_be_bytes()[..], &bytes].concat());
        if let Ok(handshake) = Handshake::decode(bytes.clone().into()) {
            prop_assert_eq!(handshake.encode(), bytes);
        }
    }
}

#[test]
fn the_bytes_are_pinned() {
    let frame = put_all(&[(DATA, 258, b"body".to_vec())]);
    assert_eq!(&frame[..], b"\x00\x00\x00\x09\x02\x00\x00\x01\x02body");
    let handshake =
        Handshake { protocol: 1, lane: 2, from: 3, to: 258, cluster_id: "c1".to_owned() };
    assert_eq!(
        handshake.encode(),
        b"\x00\x00\x00\x01\x00\x00\x00\x02\
          \x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x01\x02c1"
    );
}

#[test]
fn frames_that_are_too_short_or_too_long_are_refused() {
    for len in [0, 4, FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
        let bytes = [&len.to_be_bytes()[..], &[0; 9]].concat();
        assert_eq!(read_all(&bytes), (vec![], io::ErrorKind::InvalidData), "{len}");
    }
    for bytes in [&[0; 23][..], &[&[0; 24][..], b"\xff"].concat()] {
        let error = Handshake::decode(Bytes::copy_from_slice(bytes)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
