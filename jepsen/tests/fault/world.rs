//! Machines for nodes: a network namespace each, joined by a bridge, and a disk each.
//!
//! A namespace lives as long as a process in it, which ends when its standard input does: nothing
//! is left when the test is killed, but for the mounts.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use folkmoot_jepsen::fault::{Target, list};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::common;
use crate::common::cluster::{Options, Place, TestCluster, succeed};

/// Says it when one of these faults does not work here. The test is over then.
pub fn works(faults: &[&str]) -> bool {
    for fault in faults {
        if let Err(missing) = (list::find(fault).unwrap().probe)() {
            common::say!("SKIPPED: {fault}: {missing}");
            return false;
        }
    }
    true
}

/// A network namespace.
struct Namespace(Child);

impl Namespace {
    fn new() -> Namespace {
        let mut command = Command::new("unshare");
        let child = command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let namespace = Namespace(child.spawn().unwrap());
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        common::wait_for("a namespace", Duration::from_secs(20), || {
            match std::fs::read_link(namespace.path()).ok() {
                Some(theirs) if theirs != ours => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        namespace.ip("link set lo up");
        namespace
    }

    fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }

    fn wrapper(&self) -> Vec<String> {
        vec!["nsenter".into(), format!("--net={}", self.path().display())]
    }

    fn ip(&self, words: &str) {
        let wrapper = self.wrapper();
        let mut command = Command::new(&wrapper[0]);
        succeed(command.arg(&wrapper[1]).arg("ip").args(words.split(' ')));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A file system in a file.
struct Disk {
    mount: PathBuf,
}

impl Disk {
    fn new(mount: PathBuf, mib: u64) -> Disk {
        let image = mount.with_extension("img");
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        succeed(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        std::fs::create_dir(&mount).unwrap();
        succeed(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount));
        Disk { mount }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever a failed test has left.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.mount).stderr(Stdio::null()).status();
        let _ = Command::new("umount").arg("-l").arg(&self.mount).status();
    }
}

/// A cluster, each node on a machine of its own. The fields are dropped in this order.
pub struct World {
    pub cluster: TestCluster,
    _disks: Vec<Disk>,
    _network: Vec<Namespace>,
    _directory: tempfile::TempDir,
}

impl World {
    /// So many nodes on disks of so many MiB. This thread, and those that it starts, moves to where
    /// the nodes can be reached.
    pub fn start(nodes: usize, mib: u64, mut options: Options) -> World {
        let directory = tempfile::tempdir().unwrap();
        let switch = Namespace::new();
        switch.ip("link add br0 type bridge");
        switch.ip("addr add 10.77.0.100/24 dev br0");
        switch.ip("link set br0 up");
        let mut network = vec![];
        let mut disks = vec![];
        for i in 0..nodes {
            let machine = Namespace::new();
            let ip = Ipv4Addr::new(10, 77, 0, i as u8 + 1);
            let (here, there) = (switch.0.id(), machine.0.id());
            let veth = format!("link add p{i} netns {here} type veth peer name eth0 netns {there}");
            switch.ip(&veth);
            switch.ip(&format!("link set p{i} master br0 up"));
            machine.ip(&format!("addr add {ip}/24 dev eth0"));
            machine.ip("link set eth0 up");
            let disk = Disk::new(directory.path().join(format!("n{i}")), mib);
            let data_dir = disk.mount.join("data");
            options.places.push(Place { ip: IpAddr::V4(ip), data_dir, wrapper: machine.wrapper() });
            network.push(machine);
            disks.push(disk);
        }
        let file = File::open(switch.path()).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        network.push(switch);
        let cluster = TestCluster::start_with(nodes, options);
        World { cluster, _disks: disks, _network: network, _directory: directory }
    }

    pub fn target(&self, i: usize) -> Target {
        Target::of_pid(self.cluster.pid(i)).unwrap()
    }

    /// What a tool says in a node's network namespace.
    pub fn inside(&self, i: usize, words: &[&str]) -> String {
        let wrapper = self._network[i].wrapper();
        let mut command = Command::new(&wrapper[0]);
        String::from_utf8(succeed(command.arg(&wrapper[1]).args(words))).unwrap()
    }
}

/// Rooms, over all shards.
pub fn rooms(cluster: &TestCluster) -> Vec<String> {
    let rooms: Vec<_> = (0..12).map(|i| format!("room-{i}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    rooms
}
