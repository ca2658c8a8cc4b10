//! The gateway from outside: real sockets, a backend of plain maps.
//!
//! One file for each kind of client; `fake.rs` is the backend, `server.rs` starts a gateway and
//! speaks HTTP/1.1 by hand, so that broken requests can be sent too.

mod accounts;
mod accounts_grpc;
mod admin;
mod bad_input;
mod bearer;
mod connections;
mod cookies;
mod drains;
pub(super) mod fake;
mod grpc;
mod idle;
mod minted;
mod oidc;
mod page;
mod presence;
mod provider;
mod rates;
mod rest;
mod rules;
mod server;
mod sessions;
mod streams;
mod websocket_ends;
mod websockets;
