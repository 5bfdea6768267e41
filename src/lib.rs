//! A Tower layer that answers 404 for dead MCP sessions before your MCP service runs.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod birth;
mod calls;
mod death;
mod drain;
mod extract;
mod future;
mod handle;
mod id;
mod inner;
mod keeper;
mod layer;
mod live;
mod lookup;
mod message;
mod outward;
mod owner;
mod paths;
mod peek;
mod rejection;
mod request;
mod service;
mod session;
pub mod store;
mod watch;
mod works;

pub use self::{
    extract::NoSession,
    future::ResponseFuture,
    handle::{SessionEvent, SessionEvents, Sessions},
    id::{InvalidSessionId, InvalidSessionRef, SessionId, SessionRef},
    layer::McpSessionLayer,
    owner::{Owner, Principal, Scope},
    rejection::{Rejection, RejectionKind},
    service::McpSessionService,
    session::{ClientInfo, Issuer, Session, SessionRecord},
    store::{BoxSessionStore, MemoryStore, SessionStore},
};
