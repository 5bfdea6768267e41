//! What the Model Context Protocol says of sessions: ids, headers, messages, refusals. Pure; imports no other room.

mod id;

pub(crate) mod message;
pub(crate) mod paths;
pub(crate) mod rejection;
pub(crate) mod request;

pub(crate) use self::id::is_well_formed;
pub use self::{
    id::{InvalidSessionId, InvalidSessionRef, SessionId, SessionRef},
    message::ClientInfo,
    rejection::{Rejection, RejectionKind},
};
