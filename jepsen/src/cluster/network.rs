//! Network namespaces: one for each node, one for the clients, and one with the bridge that joins
//! them. Nothing of the machine's own network is touched.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cluster::made::{Made, Thing, run};

/// The address of the clients: the last of the network.
const CLIENTS: u8 = 250;

/// A network namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    file: Arc<File>,
}

impl Namespace {
    fn make(made: &Made, name: String) -> Result<Namespace, String> {
        made.note(Thing::Namespace(name.clone())).map_err(|error| error.to_string())?;
        ip(&["netns", "add", &name])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        let file = File::open(Path::new("/run/netns").join(&name));
        let file = file.map_err(|error| format!("namespace {name}: {error}"))?;
        Ok(Namespace { name, file: Arc::new(file) })
    }

    /// Moves the calling thread into it, for good.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn enter(&self) -> io::Result<()> {
        let kind = Some(LinkNameSpaceType::Network);
        Ok(move_into_link_name_space(self.file.as_fd(), kind)?)
    }

    /// Does something inside: on a thread of its own, so that the caller's stays where it is.
    ///
    /// # Errors
    ///
    /// When the thread cannot get in.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.enter().map(|()| act()));
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
        })
    }
}

/// The networks of a run.
#[derive(Debug)]
pub struct Network {
    /// Where the clients are.
    pub clients: Namespace,
    /// Each node's, with its address.
    pub nodes: Vec<(Namespace, IpAddr)>,
}

impl Network {
    /// Makes all of it, for so many nodes.
    ///
    /// # Errors
    ///
    /// What a tool said.
    pub fn make(made: &Made, nodes: usize) -> Result<Network, String> {
        // Names and addresses of two runs at a time must not meet; an address need not even differ.
        let tag = format!("fmj{}", std::process::id());
        let switch = Namespace::make(made, format!("{tag}-sw"))?;
        ip(&["-n", &switch.name, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &switch.name, "link", "set", "br0", "up"])?;
        let clients = plug_in(made, &switch, &format!("{tag}-cl"), CLIENTS)?;
        let mut made_nodes = vec![];
        for i in 1..=nodes {
            let number = u8::try_from(i).map_err(|error| error.to_string())?;
            let namespace = plug_in(made, &switch, &format!("{tag}-n{i}"), number)?;
            made_nodes.push((namespace, IpAddr::V4(address(number))));
        }
        Ok(Network { clients, nodes: made_nodes })
    }

    /// The address that all clients have.
    #[must_use]
    pub fn clients_address() -> IpAddr {
        IpAddr::V4(address(CLIENTS))
    }
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// Makes a namespace with an interface that is plugged into the bridge.
fn plug_in(made: &Made, switch: &Namespace, name: &str, number: u8) -> Result<Namespace, String> {
    let namespace = Namespace::make(made, name.into())?;
    let port = format!("p{number}");
    let with =
        ["link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &switch.name];
    ip(&[&["-n", name], &with[..]].concat())?;
    ip(&["-n", &switch.name, "link", "set", &port, "master", "br0", "up"])?;
    ip(&["-n", name, "addr", "add", &format!("{}/24", address(number)), "dev", "eth0"])?;
    ip(&["-n", name, "link", "set", "eth0", "up"])?;
    Ok(namespace)
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run(Command::new("ip").args(arguments))
}
