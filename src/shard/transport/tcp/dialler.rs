//! Keeps one lane to one peer connected, for as long as the peer is known.

use std::io;
use std::sync::{Arc, RwLock, Weak};

use tokio::io::WriteHalf;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, connection, read_loop};
use super::frame::{FrameReader, HELLO, Handshake, frames, read_frame, write_frame};
use super::{DIAL_TIMEOUT, Local, PROTOCOL, REDIAL, Tcp};
use crate::id::NodeId;
use crate::shard::transport::Lane;

/// A lane's connection, when there is one.
#[derive(Default)]
pub(super) struct LaneSlot(RwLock<Option<Arc<Connection>>>);

impl LaneSlot {
    pub fn get(&self) -> Option<Arc<Connection>> {
        self.0.read().expect("no holder of the lock panics").clone()
    }

    fn set(&self, connection: Option<Arc<Connection>>) {
        *self.0.write().expect("no holder of the lock panics") = connection;
    }
}

/// Keeps one lane to one peer connected.
pub(super) struct Dialler {
    pub tcp: Weak<Tcp>,
    pub id: NodeId,
    pub lane: Lane,
    pub address: String,
    pub slot: Arc<LaneSlot>,
    /// Told when any lane to the peer is connected: the others need not wait then.
    pub connected: Arc<Notify>,
    pub stop: CancellationToken,
}

impl Dialler {
    pub async fn run(self) {
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            let Some(local) = self.tcp.upgrade().and_then(|tcp| tcp.local()) else { return };
            let dialled = tokio::select! {
                () = self.stop.cancelled() => return,
                dialled = tokio::time::timeout(DIAL_TIMEOUT, self.dial(&local)) => dialled,
            };
            match dialled.map_err(io::Error::from).flatten() {
                Ok((reader, writer)) => {
                    failures = 0;
                    self.run_connection(reader, writer).await;
                }
                Err(error) => {
                    if failures == 0 && self.lane == Lane::Control {
                        tracing::info!(peer = %self.id, address = self.address, %error,
                            "peer is not reachable; dialling on");
                    }
                    failures += 1;
                }
            }
            let wait = REDIAL[(failures).min(REDIAL.len() - 1)];
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.connected.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn dial(&self, local: &Local) -> io::Result<(FrameReader, WriteHalf<TcpStream>)> {
        let socket = TcpStream::connect(&self.address).await?;
        socket.set_nodelay(true)?;
        let (reader, mut writer) = tokio::io::split(socket);
        let mut reader = frames(reader);
        let hello = Handshake {
            protocol: PROTOCOL,
            lane: self.lane as u32,
            from: local.node_id.0,
            to: self.id.0,
            cluster_id: local.cluster_id.clone(),
        };
        write_frame(&mut writer, HELLO, 0, &hello.encode()).await?;
        let answer = read_frame(&mut reader).await?;
        if answer.kind != HELLO || !answer.body.is_empty() {
            let refusal = String::from_utf8_lossy(&answer.body).into_owned();
            return Err(io::Error::other(refusal));
        }
        Ok((reader, writer))
    }

    async fn run_connection(&self, reader: FrameReader, writer: WriteHalf<TcpStream>) {
        let stop = self.stop.child_token();
        let (connection, pump) = connection(writer, stop.clone());
        self.slot.set(Some(connection.clone()));
        self.connected.notify_waiters();
        if self.lane == Lane::Control {
            tracing::info!(peer = %self.id, address = self.address, "connected to peer");
        }
        // The other side opens no streams on a connection that it did not dial.
        let slot = &self.slot;
        let reading = async {
            let result = read_loop(reader, connection, stop, |_, _| {}).await;
            slot.set(None);
            result
        };
        let (result, ()) = tokio::join!(reading, pump);
        if let Err(error) = result
            && self.lane == Lane::Control
        {
            tracing::info!(peer = %self.id, %error, "lost the connection to a peer");
        }
    }
}
