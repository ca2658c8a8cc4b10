//! The servers a client knows, each with a channel that connects when it is first used.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::client::ClientOptions;
use crate::error::Error;

/// A list of servers, and the one in use. Never empty.
#[derive(Debug)]
pub(super) struct Servers {
    channels: Vec<Channel>,
    current: AtomicUsize,
}

impl Servers {
    /// Takes the servers of the options.
    pub(super) fn new(options: &ClientOptions) -> Result<Servers, Error> {
        if options.servers.is_empty() {
            return Err(Error::invalid("no server is given; use http://host:port"));
        }
        let channels =
            options.servers.iter().map(|server| open(server)).collect::<Result<Vec<_>, _>>()?;
        Ok(Servers { channels, current: AtomicUsize::new(0) })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.channels.len()
    }

    /// The server in use.
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// The channel of a server.
    pub(super) fn channel(&self, server: usize) -> Channel {
        self.channels[server % self.channels.len()].clone()
    }

    /// Moves on from a server that failed, unless another call has done so already.
    pub(super) fn leave(&self, failed: usize) {
        let next = (failed + 1) % self.channels.len();
        let _ = self.current.compare_exchange(failed, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn open(server: &str) -> Result<Channel, Error> {
    let invalid = |why: &str| Error::invalid(format!("server {server:?}: {why}"));
    let url = match server.split_once("://") {
        None => format!("http://{server}"),
        Some(("http", _)) => server.to_string(),
        Some(_) => return Err(invalid("only http:// is spoken; use http://host:port")),
    };
    let uri: tonic::codegen::http::Uri =
        url.parse().map_err(|_| invalid("not an address; use http://host:port"))?;
    if uri.port_u16().is_none() {
        return Err(invalid("the port is missing; use http://host:port"));
    }
    let endpoint = Endpoint::from(uri)
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024);
    Ok(endpoint.connect_lazy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_checked_before_anything_is_sent() {
        for good in ["http://127.0.0.1:7400", "127.0.0.1:7400", "http://[::1]:7400/"] {
            open(good).unwrap();
        }
        for bad in ["", "http://", "127.0.0.1", "https://a:1", "http://a b:1", "http://a:99999"] {
            assert!(open(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn concurrent_failures_of_one_server_move_on_once() {
        let options = ClientOptions {
            servers: vec!["a:1".into(), "b:1".into(), "c:1".into()],
            ..ClientOptions::default()
        };
        let servers = Servers::new(&options).unwrap();
        servers.leave(0);
        servers.leave(0);
        assert_eq!(servers.current(), 1);
        servers.leave(1);
        servers.leave(2);
        assert_eq!(servers.current(), 0);
    }
}
