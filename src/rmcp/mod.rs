//! rmcp as the inner service: sessions restored on nodes that have never seen them, and event ids that open nothing else.
//!
//! `service` is the tower service around rmcp's; `restore` and `places` see to it that a session is restored once, whatever
//! number of its requests arrive at once; `manager` stands around rmcp's session manager and `events` names its events.
//! `store` is for services that are put together otherwise. Imports `store`, `session`, `protocol`, and of `lifecycle` the
//! bounded store.

pub use self::{
    service::{RmcpResponseFuture, RmcpService},
    store::RmcpSessionStore,
};

mod events;
mod manager;
mod notes;
mod places;
mod refusal;
mod restore;
mod service;
mod store;
