//! For tests of your own set-up: a store that fails as it is told to, and an MCP server and a client in one process
//! (feature `test-kit`).
//!
//! Imports `store`, `session` and `protocol`.

mod client;
mod faulty_store;
mod server;

pub use self::{
    client::McpClient,
    faulty_store::{Fault, FaultyStore, Verb},
    server::McpServer,
};
