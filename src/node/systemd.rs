//! What a node tells systemd, or any supervisor that speaks its protocol (`sd_notify(3)`): that it
//! serves, how it stands, that it still makes progress, and that it stops.
//!
//! The protocol is one datagram of `NAME=value` lines to a socket that `NOTIFY_SOCKET` names: a few
//! lines of `std`, so no crate. Without that variable nothing is said. A datagram that cannot be
//! sent changes nothing but for a warning: the supervisor then acts as it would without us.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future;
use tokio::time::{Instant, timeout};

use crate::router::Router;

/// How often the node's standing is looked at.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// A status is one line for a person.
const STATUS_BYTES_MAX: usize = 512;

/// The way to the supervisor, if there is one.
#[derive(Debug, Clone)]
pub struct Supervisor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// The process is ended when it is silent for this long.
    watchdog: Option<Duration>,
    ready: AtomicBool,
    stopping: AtomicBool,
}

impl Supervisor {
    /// Nobody to be told.
    pub fn none() -> Supervisor {
        Supervisor::new(None, None)
    }

    /// The one that the environment names: `NOTIFY_SOCKET`, and `WATCHDOG_USEC` in microseconds,
    /// which is for another process where `WATCHDOG_PID` is not `pid`.
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Supervisor {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Supervisor::none();
        };
        let opened = address(&name).and_then(|address| Ok((UnixDatagram::unbound()?, address)));
        let socket = match opened {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(?name, %error, "NOTIFY_SOCKET cannot be used; systemd hears nothing");
                None
            }
        };
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let ours = variable("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(pid.into());
        let watchdog = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0);
        Supervisor::new(socket, watchdog.map(Duration::from_micros))
    }

    fn new(socket: Option<(UnixDatagram, SocketAddr)>, watchdog: Option<Duration>) -> Supervisor {
        let inner = Inner { socket, watchdog, ready: false.into(), stopping: false.into() };
        Supervisor(Arc::new(inner))
    }

    /// Says that the node serves; once, however often it is called.
    pub fn ready(&self) {
        if !self.0.ready.swap(true, Ordering::Relaxed) {
            self.say("READY=1");
        }
    }

    /// Says that the node stops; once.
    pub fn stopping(&self) {
        if !self.0.stopping.swap(true, Ordering::Relaxed) {
            self.say("STOPPING=1\nSTATUS=stopping: clients and leaderships go elsewhere");
        }
    }

    fn say(&self, state: &str) {
        let Some((socket, address)) = &self.0.socket else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            tracing::warn!(%error, "cannot tell systemd");
        }
    }

    /// Says how the node stands whenever that changes, and that it makes progress for as long as
    /// every group answers. Runs until it is dropped.
    pub async fn watch(self, router: Arc<Router>) {
        if self.0.socket.is_none() {
            return;
        }
        let pause = self.0.watchdog.map_or(STATUS_EVERY, |limit| STATUS_EVERY.min(limit / 4));
        let (mut told, mut pinged) = (String::new(), None::<Instant>);
        loop {
            let status = status(&router);
            if status != told && !self.0.stopping.load(Ordering::Relaxed) {
                self.say(&format!("STATUS={status}"));
                told = status;
            }
            if let Some(limit) = self.0.watchdog
                && pinged.is_none_or(|last| last.elapsed() + pause > limit / 2)
            {
                match timeout(limit / 2, progress(&router)).await {
                    Ok(()) => {
                        self.say("WATCHDOG=1");
                        pinged = Some(Instant::now());
                    }
                    Err(_) => tracing::error!("a group does not answer; systemd may end this node"),
                }
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// One line, whatever a reason quotes.
fn status(router: &Router) -> String {
    let reason = router.readiness().reason;
    let line = reason.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut bytes = 0;
    line.take_while(|c| {
        bytes += c.len_utf8();
        bytes <= STATUS_BYTES_MAX
    })
    .collect()
}

/// Returns once every group's core has taken a turn since this was called: the runtime schedules,
/// and none of them hangs. One that failed answers as well: the node stops by itself then.
///
/// A disk that is full may hold up a core, and ending the process makes no room.
async fn progress(router: &Router) {
    if router.check_space().is_ok() {
        let shards = router.host().all();
        future::join_all(shards.iter().map(|shard| shard.turn())).await;
    }
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name),
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor @name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(
        pairs: &[(&'static str, &'static str)],
    ) -> impl Fn(&str) -> Option<OsString> + use<> {
        let pairs = pairs.to_vec();
        move |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into())
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let count = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    #[test]
    fn ready_and_stopping_are_said_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let at = path.clone().into_os_string();
        let supervisor =
            Supervisor::from_environment(|n| (n == "NOTIFY_SOCKET").then(|| at.clone()), 1);
        supervisor.ready();
        supervisor.clone().ready();
        assert_eq!(heard(&socket), "READY=1");
        supervisor.stopping();
        supervisor.stopping();
        assert!(heard(&socket).starts_with("STOPPING=1\n"));
        assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(socket);
        std::fs::remove_file(&path).unwrap();
        supervisor.say("STATUS=nobody listens"); // changes nothing
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_socket_is_reached() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("folkmoot-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let at = OsString::from(format!("@{name}"));
        Supervisor::from_environment(|n| (n == "NOTIFY_SOCKET").then(|| at.clone()), 1).ready();
        assert_eq!(heard(&socket), "READY=1");
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let watchdog = |pairs: &[(&'static str, &'static str)]| {
            Supervisor::from_environment(environment(pairs), 7).0.watchdog
        };
        let at = ("NOTIFY_SOCKET", "/nowhere/notify");
        let time = ("WATCHDOG_USEC", "3000000");
        let three = Some(Duration::from_secs(3));
        assert_eq!(watchdog(&[at, time]), three);
        assert_eq!(watchdog(&[at, time, ("WATCHDOG_PID", "7")]), three);
        assert_eq!(watchdog(&[at, time, ("WATCHDOG_PID", "8")]), None);
        assert_eq!(watchdog(&[at, time, ("WATCHDOG_PID", "x")]), None);
        assert_eq!(watchdog(&[at, ("WATCHDOG_USEC", "soon")]), None);
        assert_eq!(watchdog(&[time]), None);
    }

    #[test]
    fn what_is_no_address_is_not_used() {
        for name in ["", "relative", "vsock:2:1"] {
            let pairs: [(&'static str, &'static str); 1] = [("NOTIFY_SOCKET", name)];
            let supervisor = Supervisor::from_environment(environment(&pairs), 1);
            assert!(supervisor.0.socket.is_none(), "{name}");
            supervisor.ready();
        }
    }
}
