//! What a request asks of sessions, from its method and headers alone.
//!
//! No body, no store, no clock: the same head always gives the same answer, so the whole table is
//! tested below without a server. The layer's `call` is one `match` on it.

use http::{HeaderValue, Method};

use super::{Era, Head, Lines, RejectionKind, id::is_well_formed};

/// What the layer has to do with a request.
///
/// Holds no more than a borrow: an arm that does not use the value is free to change the headers it
/// came from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum RequestKind<'r> {
    /// Goes inward without its session id header, which is absent, empty, or on a preflight.
    Pass,
    /// Of a revision without sessions: goes inward without session id and `Last-Event-ID`,
    /// whatever they hold.
    PassModern,
    /// A legacy POST without an id where sessions are required: its body says whether a session is
    /// to be created.
    MaybeInitialize,
    /// A legacy POST without an id where sessions are not required: goes inward unread, without its
    /// session id header. An id in its answer makes a session.
    PassMaybeInitialize,
    /// Goes inward if the store holds this id live for the caller. The id is well-formed.
    Session(&'r HeaderValue),
    /// As [`Session`](Self::Session), and asks for the session's end.
    Delete(&'r HeaderValue),
    /// Claims this protocol version, which an inner service of legacy revisions does not speak.
    RefuseVersion(&'r HeaderValue),
    /// Is refused for what its head says.
    Refuse(RejectionKind),
}

impl<'r> RequestKind<'r> {
    /// Judges a request on a guarded path.
    #[inline]
    pub(crate) fn of(method: &Method, head: &Head<'r>, rules: Rules) -> Self {
        // A CORS preflight carries no session and must reach whoever answers it.
        if method == Method::OPTIONS {
            return Self::Pass;
        }
        // Two versions could be read as one era here and as the other one inside.
        let version = match head.version {
            Lines::None => None,
            Lines::One(version) => Some(version),
            Lines::Many => return Self::Refuse(RejectionKind::DuplicateVersionHeader),
        };
        let era = Era::of(version);
        match (era, rules.revisions, version) {
            (Era::Modern | Era::Unknown, Revisions::LegacyOnly, Some(version)) => {
                return Self::RefuseVersion(version);
            }
            // "ignore it" (2026-07-28, Earlier Streamable HTTP Revisions): neither looked up nor
            // counted.
            (Era::Modern, ..) => return Self::PassModern,
            _ => {}
        }
        let id = match head.id {
            Lines::None => None,
            Lines::One(id) => Some(id).filter(|id| !is_blank(id)),
            Lines::Many => return Self::Refuse(RejectionKind::DuplicateSessionHeader),
        };
        match id {
            Some(id) if !is_well_formed(id.as_bytes()) => Self::Refuse(RejectionKind::Malformed),
            Some(id) if method == Method::DELETE => Self::Delete(id),
            Some(id) => Self::Session(id),
            // The inner service owes it a 400 with the versions that it speaks.
            None if era == Era::Unknown => Self::Pass,
            None => match (method == Method::POST, rules.session) {
                (true, SessionNeed::Required) => Self::MaybeInitialize,
                (true, SessionNeed::Optional) => Self::PassMaybeInitialize,
                // "SHOULD respond to requests without an MCP-Session-Id header (other than
                // initialization) with HTTP 400" (2025-11-25, transports, Session Management).
                (false, SessionNeed::Required) => Self::Refuse(RejectionKind::MissingSession),
                (false, SessionNeed::Optional) => Self::Pass,
            },
        }
    }
}

/// The settings that decide here.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) revisions: Revisions,
    pub(crate) session: SessionNeed,
}

/// Which revisions the inner service speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Revisions {
    /// Legacy ones and those without sessions, or it answers for itself to what it does not speak.
    #[default]
    All,
    /// None but those with sessions, and it does not say so itself.
    LegacyOnly,
}

/// Whether a legacy request may come without a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SessionNeed {
    /// Only the request that opens one may.
    #[default]
    Required,
    /// Any may.
    Optional,
}

/// Nothing but what HTTP trims from a value (RFC 9110, 5.5): as good as absent.
fn is_blank(value: &HeaderValue) -> bool {
    value
        .as_bytes()
        .iter()
        .all(|byte| matches!(byte, b' ' | b'\t'))
}

#[cfg(test)]
mod tests;
