//! What a request asks of sessions, from its method and headers alone.
//!
//! No body, no store, no clock: the same head always gives the same answer, so the whole table is
//! tested below without a server. The layer's `call` is one `match` on it.

use http::{HeaderValue, Method};

use super::{
    Era, Head, Lines, RejectionKind,
    id::{is_well_formed, is_well_formed_signed},
};

/// What the layer has to do with a request.
///
/// Holds no more than a borrow: an arm that does not use the value is free to change the headers it
/// came from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum RequestKind<'r> {
    /// Goes inward without session id and `Last-Event-ID`, whatever they hold.
    Pass,
    /// Has to be read, for its body may be a request that opens a session; and what becomes of it if
    /// it does not.
    MaybeInitialize(Otherwise),
    /// Goes inward if the store holds this id live for the caller. The id is well-formed, with a tag or without.
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
    #[inline(always)]
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
        let is_post = method == Method::POST;
        match (era, rules.revisions, version) {
            (Era::Modern | Era::Unknown, Revisions::LegacyOnly, Some(version)) => {
                return Self::RefuseVersion(version);
            }
            // Whatever the version, `initialize` asks for a session (2026-07-28, versioning).
            (Era::Modern, ..) if is_post && head.is_initialize => {
                return Self::MaybeInitialize(Otherwise::Pass);
            }
            // "ignore it" (2026-07-28, Earlier Streamable HTTP Revisions): neither looked up nor
            // counted.
            (Era::Modern, ..) => return Self::Pass,
            _ => {}
        }
        let id = match head.id {
            Lines::None => None,
            Lines::One(id) => Some(id).filter(|id| !is_blank(id)),
            Lines::Many => return Self::Refuse(RejectionKind::DuplicateSessionHeader),
        };
        match id {
            Some(id) if !rules.allow(id) => Self::Refuse(RejectionKind::Malformed),
            Some(id) if method == Method::DELETE => Self::Delete(id),
            Some(id) => Self::Session(id),
            // The inner service owes it a 400 with the versions that it speaks.
            None if era == Era::Unknown => Self::Pass,
            None => match rules.session {
                SessionNeed::Required if is_post => Self::MaybeInitialize(Otherwise::Refuse),
                SessionNeed::Optional if is_post => Self::MaybeInitialize(Otherwise::Adopt),
                SessionNeed::Optional => Self::Pass,
                SessionNeed::Required if rules.passes_get && method == Method::GET => Self::Pass,
                // "SHOULD respond to requests without an MCP-Session-Id header (other than
                // initialization) with HTTP 400" (2025-11-25, transports, Session Management).
                SessionNeed::Required => Self::Refuse(RejectionKind::MissingSession),
            },
        }
    }
}

/// What becomes of a POST without a session that was read and does not open one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Otherwise {
    /// It is refused: it needs a session.
    Refuse,
    /// It goes inward; an id in its answer makes a session.
    Adopt,
    /// It goes inward as a request of a revision without sessions.
    Pass,
}

/// The settings that decide here.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) revisions: Revisions,
    pub(crate) session: SessionNeed,
    /// Whether a GET without an id goes inward: it opens a stream of the transport of 2024-11-05.
    pub(crate) passes_get: bool,
    /// Whether ids carry a tag, which makes them longer.
    pub(crate) has_signed_ids: bool,
}

impl Rules {
    #[inline]
    fn allow(self, id: &HeaderValue) -> bool {
        let id = id.as_bytes();
        is_well_formed(id) || (self.has_signed_ids && is_well_formed_signed(id))
    }
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
