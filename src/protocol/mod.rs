//! What the Model Context Protocol says of sessions: ids, eras, headers, messages, guarded paths, refusals.
//!
//! Pure functions of what a request or an answer holds: no store, no clock, no task. Imports no other room.

mod era;
mod headers;
mod id;
pub(crate) mod message;
pub(crate) mod paths;
pub(crate) mod rejection;
pub(crate) mod request;

pub(crate) use self::{
    era::Era,
    headers::{AnswerHead, Head, LAST_EVENT_ID, Lines, PROTOCOL_VERSION, SESSION_ID},
};
pub use self::{
    id::{InvalidSessionId, InvalidSessionRef, SessionId, SessionRef},
    message::ClientInfo,
    rejection::{Rejection, RejectionKind},
};
