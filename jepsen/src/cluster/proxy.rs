//! Links between nodes that can be cut without root: whoever wants to reach a node's peer port is
//! sent through this program, which holds back what a cut link carries. As with lost packets that
//! TCP sends again, it arrives once the link is whole.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::cluster::node::Node;

/// Links that are cut: from a node, to a node.
type Cut = BTreeSet<(usize, usize)>;

/// The links between all nodes.
#[derive(Debug)]
pub struct Proxy {
    cut: watch::Sender<Cut>,
}

impl Proxy {
    /// Listens at each node's peer address, and passes on to where the node listens.
    ///
    /// # Errors
    ///
    /// When an address is taken.
    pub fn start(nodes: &[Arc<Node>]) -> Result<Proxy, String> {
        let (cut, watching) = watch::channel(Cut::new());
        let mut listeners = vec![];
        for node in nodes {
            listeners.push(listen(node.peer)?);
        }
        let nodes: Arc<[Arc<Node>]> = nodes.into();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        // It ends when the proxy is dropped.
        std::thread::spawn(move || runtime.block_on(serve(listeners, nodes, watching)));
        Ok(Proxy { cut })
    }

    /// Cuts these links, and makes all others whole.
    pub fn set(&self, links: Cut) {
        self.cut.send_replace(links);
    }
}

/// Listens at a node's peer address.
fn listen(address: SocketAddr) -> Result<std::net::TcpListener, String> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|error| format!("{address}: {error}: something else listens there; try again"))
}

async fn serve(
    listeners: Vec<std::net::TcpListener>,
    nodes: Arc<[Arc<Node>]>,
    mut cut: watch::Receiver<Cut>,
) {
    for (to, listener) in listeners.into_iter().enumerate() {
        let Ok(listener) = TcpListener::from_std(listener) else { return };
        tokio::spawn(accept(listener, to, nodes.clone(), cut.clone()));
    }
    while cut.changed().await.is_ok() {}
}

async fn accept(
    listener: TcpListener,
    to: usize,
    nodes: Arc<[Arc<Node>]>,
    cut: watch::Receiver<Cut>,
) {
    loop {
        let Ok((inbound, peer)) = listener.accept().await else { continue };
        if nodes[to].running().is_none() {
            // Whoever dials a node that is not there does so all the time; nothing is left of it.
            let _ = inbound.set_zero_linger();
            continue;
        }
        let (nodes, cut) = (nodes.clone(), cut.clone());
        tokio::spawn(async move {
            let (known, address) = (nodes.clone(), nodes[to].peer_listen);
            // It reads much: what other links carry must not wait for it.
            let from = tokio::task::spawn_blocking(move || owner(&known, peer)).await;
            // Who has ended meanwhile has no link.
            if let Ok(Some(from)) = from {
                link(inbound, address, (from, to), cut).await;
            }
        });
    }
}

/// The node whose end of a connection has this address.
fn owner(nodes: &[Arc<Node>], address: SocketAddr) -> Option<usize> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let local = in_table(address)?;
    let inode = table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        (fields.next()? == local).then(|| fields.nth(7))?
    })?;
    let socket = format!("socket:[{inode}]");
    nodes.iter().position(|node| {
        let Some(running) = node.running() else { return false };
        let Ok(files) = fs::read_dir(format!("/proc/{}/fd", running.pid)) else { return false };
        files.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == socket.as_str())
        })
    })
}

/// An address as `/proc/net/tcp` has it: the bytes of an IPv4 address as one number of the machine's.
fn in_table(address: SocketAddr) -> Option<String> {
    match address.ip() {
        IpAddr::V4(ip) => {
            Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port()))
        }
        IpAddr::V6(_) => None,
    }
}

async fn link(
    inbound: TcpStream,
    address: SocketAddr,
    (from, to): (usize, usize),
    cut: watch::Receiver<Cut>,
) {
    // A node that does not listen refuses, and so is the other's connection ended.
    let Ok(outbound) = TcpStream::connect(address).await else { return };
    let _ = (inbound.set_nodelay(true), outbound.set_nodelay(true));
    let (in_read, in_write) = inbound.into_split();
    let (out_read, out_write) = outbound.into_split();
    tokio::join!(
        pump(in_read, out_write, (from, to), cut.clone()),
        pump(out_read, in_write, (to, from), cut)
    );
}

/// Passes on what comes, while the link is whole.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    link: (usize, usize),
    mut cut: watch::Receiver<Cut>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if cut.wait_for(|cut| !cut.contains(&link)).await.is_err() {
            return;
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            // Dropping the half ends this direction.
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_taken_is_named() {
        let held = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
        let address = held.local_addr().unwrap();
        let said = listen(address).unwrap_err();
        assert!(said.contains(&address.to_string()) && said.contains("something else"), "{said}");
        drop(held);
        listen(address).unwrap();
    }

    #[test]
    fn a_connection_is_found_in_the_table_by_its_whole_address() {
        let listener = std::net::TcpListener::bind("127.0.0.3:0").unwrap();
        let here = in_table(listener.local_addr().unwrap()).unwrap();
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        assert!(table.split_whitespace().any(|field| field == here), "{here}: {table}");
    }
}
