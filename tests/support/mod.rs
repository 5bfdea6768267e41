//! What the tests of several files share, one idea a file.
#![allow(dead_code)] // No test needs all of it.

pub(crate) mod answers;
#[cfg(feature = "conformance")]
pub(crate) mod contract;
pub(crate) mod layer;
pub(crate) mod log;
pub(crate) mod requests;
pub(crate) mod rmcp_server;
pub(crate) mod sessions;
pub(crate) mod sockets;
pub(crate) mod store;
pub(crate) mod time;
pub(crate) mod wire;
pub(crate) mod witness;
