//! One connection: many streams over one socket.
//!
//! Both ends run a reader and a writer. A side that hears nothing for [`SILENCE_MAX`] drops the
//! connection, and pings once a second so that the other does hear something.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::frame::{DATA, END, Frame, FrameReader, OPEN, PING, put_frame, read_frame};
use crate::shard::transport::{Closed, FrameSink, STREAM_FRAMES, Stream};

/// Frames waiting for a connection's writer.
const QUEUE_FRAMES: usize = 1024;
/// What the writer gathers before a write, in bytes.
const WRITE_BYTES: usize = 256 * 1024;
/// A connection on which nothing is heard for this long is dead.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Each side pings this often.
const PING_EVERY: Duration = Duration::from_secs(1);

/// A live connection. Dropping the last handle does not close it: its loops own the socket.
pub(super) struct Connection {
    frames: mpsc::Sender<Frame>,
    /// Ends of streams: at most one a stream, so the number of streams bounds it.
    ends: mpsc::UnboundedSender<u32>,
    streams: Mutex<HashMap<u32, mpsc::Sender<Bytes>>>,
    next_stream: AtomicU32,
}

impl Connection {
    /// Opens a stream with its first frame; closed already when the queue is full.
    pub fn open(self: &Arc<Self>, first: Bytes) -> Stream {
        let id = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let stream = self.add_stream(id);
        match self.frames.try_send(Frame { kind: OPEN, stream: id, body: first }) {
            Ok(()) => stream,
            Err(_) => {
                self.remove_stream(id);
                Stream::closed()
            }
        }
    }

    fn add_stream(self: &Arc<Self>, id: u32) -> Stream {
        let (tx, rx) = mpsc::channel(STREAM_FRAMES);
        self.streams.lock().expect("no holder of the lock panics").insert(id, tx);
        Stream { tx: Box::new(Sink { connection: self.clone(), stream: id }), rx }
    }

    fn remove_stream(&self, id: u32) {
        self.streams.lock().expect("no holder of the lock panics").remove(&id);
    }

    fn stream(&self, id: u32) -> Option<mpsc::Sender<Bytes>> {
        self.streams.lock().expect("no holder of the lock panics").get(&id).cloned()
    }
}

struct Sink {
    connection: Arc<Connection>,
    stream: u32,
}

impl FrameSink for Sink {
    fn send(&self, body: Bytes) -> BoxFuture<'_, Result<(), Closed>> {
        let frame = Frame { kind: DATA, stream: self.stream, body };
        // The common case needs no waiting, and so no boxed state machine.
        match self.connection.frames.try_send(frame) {
            Ok(()) => Box::pin(std::future::ready(Ok(()))),
            Err(mpsc::error::TrySendError::Closed(_)) => Box::pin(std::future::ready(Err(Closed))),
            Err(mpsc::error::TrySendError::Full(frame)) => {
                Box::pin(
                    async move { self.connection.frames.send(frame).await.map_err(|_| Closed) },
                )
            }
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // The writer sends ends only when its frame queue is empty, so an end follows its frames.
        if self.connection.ends.send(self.stream).is_err() {
            // The connection is gone, and the peer knows by that.
        }
    }
}

/// A connection over a socket's writing half, and the future that writes what is sent on it.
pub(super) fn connection(
    writer: WriteHalf<TcpStream>,
    stop: CancellationToken,
) -> (Arc<Connection>, impl Future<Output = ()>) {
    let (frames, frames_rx) = mpsc::channel(QUEUE_FRAMES);
    let (ends, ends_rx) = mpsc::unbounded_channel();
    let connection = Arc::new(Connection {
        frames,
        ends,
        streams: Mutex::default(),
        next_stream: AtomicU32::new(1),
    });
    (connection, write_loop(writer, frames_rx, ends_rx, stop))
}

async fn write_loop(
    mut writer: WriteHalf<TcpStream>,
    mut frames: mpsc::Receiver<Frame>,
    mut ends: mpsc::UnboundedReceiver<u32>,
    stop: CancellationToken,
) {
    let mut out = BytesMut::with_capacity(WRITE_BYTES);
    let mut stopped = pin!(stop.cancelled());
    let mut ping = pin!(tokio::time::sleep(PING_EVERY));
    loop {
        tokio::select! {
            biased;
            () = stopped.as_mut() => break,
            frame = frames.recv() => match frame {
                Some(frame) => put_frame(&mut out, frame.kind, frame.stream, &frame.body),
                None => break,
            },
            end = ends.recv() => match end {
                Some(stream) => put_frame(&mut out, END, stream, &[]),
                None => break,
            },
            () = ping.as_mut() => {
                put_frame(&mut out, PING, 0, &[]);
                ping.as_mut().reset(Instant::now() + PING_EVERY);
            }
        }
        while out.len() < WRITE_BYTES {
            if let Ok(frame) = frames.try_recv() {
                put_frame(&mut out, frame.kind, frame.stream, &frame.body);
            } else if let Ok(stream) = ends.try_recv() {
                put_frame(&mut out, END, stream, &[]);
            } else {
                break;
            }
        }
        let written = tokio::select! {
            () = stopped.as_mut() => break,
            written = writer.write_all(&out) => written,
        };
        if written.is_err() {
            break;
        }
        out.clear();
        if out.capacity() > 4 * WRITE_BYTES {
            out = BytesMut::with_capacity(WRITE_BYTES);
        }
    }
    stop.cancel();
    // The peer learns of it by the end of the connection, whether or not this succeeds.
    if writer.shutdown().await.is_err() {
        tracing::trace!("the peer had closed the connection already");
    }
}

/// Hands frames to their streams until the connection ends; `on_open` takes streams that the other
/// side opens.
pub(super) async fn read_loop(
    mut reader: FrameReader,
    connection: Arc<Connection>,
    stop: CancellationToken,
    on_open: impl Fn(Bytes, Stream),
) -> io::Result<()> {
    let mut stopped = pin!(stop.cancelled());
    let mut silence = pin!(tokio::time::sleep(SILENCE_MAX));
    let result = loop {
        let frame = {
            // Not from the last frame on: that one's stream may have been slow to take it.
            let began = Instant::now();
            let mut reading = pin!(read_frame(&mut reader));
            loop {
                tokio::select! {
                    () = stopped.as_mut() => break None,
                    frame = reading.as_mut() => break Some(frame),
                    () = silence.as_mut() => match began + SILENCE_MAX {
                        // One timer for all frames: it goes off early, and is set anew.
                        until if until > Instant::now() => silence.as_mut().reset(until),
                        _ => break Some(Err(io::ErrorKind::TimedOut.into())),
                    },
                }
            }
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => break Err(error),
            None => break Ok(()),
        };
        match frame.kind {
            OPEN => {
                let stream = connection.add_stream(frame.stream);
                on_open(frame.body, stream);
            }
            DATA => {
                if let Some(stream) = connection.stream(frame.stream)
                    && stream.send(frame.body).await.is_err()
                {
                    connection.remove_stream(frame.stream);
                }
            }
            END => connection.remove_stream(frame.stream),
            PING => {}
            _ => break Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    };
    stop.cancel();
    connection.streams.lock().expect("no holder of the lock panics").clear();
    result
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::frame::frames;
    use super::*;

    /// Frames of one stream that its reader takes only after a while: the last ones wait with the
    /// connection's reader, and the peer is heard all the same.
    async fn a_slow_stream_gets_its_frames() {
        const COUNT: usize = STREAM_FRAMES + 3;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (reader, writer) = tokio::io::split(listener.accept().await.unwrap().0);
        let stop = CancellationToken::new();
        let (connection, writing) = connection(writer, stop.clone());
        let (opened, mut opening) = mpsc::channel(1);
        let on_open = move |_, stream| assert!(opened.try_send(stream).is_ok());
        tokio::spawn(writing);
        tokio::spawn(read_loop(frames(reader), connection, stop.clone(), on_open));
        let mut out = BytesMut::new();
        put_frame(&mut out, OPEN, 1, b"");
        (0..COUNT).for_each(|_| put_frame(&mut out, DATA, 1, b"data"));
        peer.write_all(&out).await.unwrap();
        let mut stream = opening.recv().await.unwrap();
        tokio::time::sleep(SILENCE_MAX + Duration::from_millis(200)).await;
        for n in 0..COUNT {
            assert!(stream.recv().await.is_ok(), "frame {n} is lost with the connection");
        }
        assert!(!stop.is_cancelled());
        stop.cancel();
    }

    /// Several, as a wrong one would end only when the timer is looked at before the socket.
    #[tokio::test]
    async fn a_stream_that_is_slow_is_not_a_silent_peer() {
        let all = (0..12).map(|_| a_slow_stream_gets_its_frames());
        futures_util::future::join_all(all).await;
    }
}
