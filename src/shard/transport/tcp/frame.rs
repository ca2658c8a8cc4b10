//! Frames and the handshake, as bytes on a connection.
//!
//! A frame is `length u32 | kind u8 | stream u32 | body`, big-endian, the length counting what
//! follows it.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use crate::shard::transport::FRAME_BYTES_MAX;

/// Opens a stream; its body is the first frame.
pub(super) const OPEN: u8 = 1;
/// A frame of an open stream.
pub(super) const DATA: u8 = 2;
/// The sender sends no more on this stream.
pub(super) const END: u8 = 3;
/// The connection is alive.
pub(super) const PING: u8 = 4;
/// The handshake, either way; an answer with a body is a refusal.
pub(super) const HELLO: u8 = 5;

pub(super) struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub body: Bytes,
}

pub(super) type FrameReader<R = ReadHalf<TcpStream>> = FramedRead<R, LengthDelimitedCodec>;

pub(super) fn frames<R: AsyncRead>(reader: R) -> FrameReader<R> {
    LengthDelimitedCodec::builder().max_frame_length(FRAME_BYTES_MAX).new_read(reader)
}

pub(super) async fn read_frame<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
) -> io::Result<Frame> {
    let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut bytes = reader.next().await.ok_or_else(ended)??.freeze();
    if bytes.len() < 5 {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let kind = bytes.get_u8();
    let stream = bytes.get_u32();
    Ok(Frame { kind, stream, body: bytes })
}

pub(super) fn put_frame(out: &mut BytesMut, kind: u8, stream: u32, body: &[u8]) {
    out.reserve(9 + body.len());
    out.put_u32((5 + body.len()) as u32);
    out.put_u8(kind);
    out.put_u32(stream);
    out.put_slice(body);
}

pub(super) async fn write_frame(
    writer: &mut WriteHalf<TcpStream>,
    kind: u8,
    stream: u32,
    body: &[u8],
) -> io::Result<()> {
    let mut out = BytesMut::new();
    put_frame(&mut out, kind, stream, body);
    writer.write_all(&out).await
}

/// What a dialler says first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Handshake {
    pub protocol: u32,
    pub lane: u32,
    pub from: u64,
    pub to: u64,
    pub cluster_id: String,
}

impl Handshake {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.put_u32(self.protocol);
        out.put_u32(self.lane);
        out.put_u64(self.from);
        out.put_u64(self.to);
        out.put_slice(self.cluster_id.as_bytes());
        out
    }

    pub fn decode(mut bytes: Bytes) -> io::Result<Handshake> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        if bytes.len() < 24 {
            return Err(invalid());
        }
        let (protocol, lane) = (bytes.get_u32(), bytes.get_u32());
        let (from, to) = (bytes.get_u64(), bytes.get_u64());
        let cluster_id = String::from_utf8(bytes.to_vec()).map_err(|_| invalid())?;
        Ok(Handshake { protocol, lane, from, to, cluster_id })
    }
}

#[cfg(test)]
mod tests;
