//! What the Model Context Protocol says of sessions: ids, eras, headers, messages, guarded paths, refusals.
//!
//! Pure functions of what a request or an answer holds: no store, no clock, no task. Imports nothing else of the crate.

mod credentials;
mod entries;
mod era;
pub(crate) mod headers;
mod id;
mod json;
pub(crate) mod message;
pub(crate) mod paths;
mod readings;
pub(crate) mod rejection;
mod reply;
pub(crate) mod request;

pub(crate) use self::{
    credentials::Credentials,
    era::Era,
    headers::{AnswerHead, Head, LAST_EVENT_ID, Lines, PROTOCOL_VERSION, SESSION_ID},
    reply::{Events, Reply, denies_session},
};
pub use self::{
    entries::InvalidPath,
    id::{InvalidSessionId, InvalidSessionRef, SessionId, SessionRef},
    message::ClientInfo,
    paths::GuardedPaths,
    rejection::{Rejection, RejectionKind},
};
