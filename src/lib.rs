//! A Tower layer that answers 404 for dead MCP sessions before your MCP service runs.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[expect(dead_code, reason = "the layer that parses headers comes next")]
mod id;
mod owner;
#[expect(dead_code, reason = "the layer that ends sessions comes next")]
mod session;
pub mod store;

pub use self::{
    id::{InvalidSessionId, InvalidSessionRef, SessionId, SessionRef},
    owner::{Owner, Principal, Scope},
    session::{ClientInfo, Issuer, Session, SessionRecord},
    store::{BoxSessionStore, SessionStore},
};
