//! What the Model Context Protocol says of sessions: ids, headers, messages, refusals. Pure; imports no other room.

mod entries;
mod id;

pub(crate) mod message;
pub(crate) mod paths;
mod readings;
pub(crate) mod rejection;
pub(crate) mod request;

pub(crate) use self::id::is_well_formed;
pub use self::{
    entries::InvalidPath,
    id::{InvalidSessionId, InvalidSessionRef, SessionId, SessionRef},
    message::ClientInfo,
    paths::GuardedPaths,
    rejection::{Rejection, RejectionKind},
};
