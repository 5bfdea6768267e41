//! What the log says of a refused request.

use http::request::Parts;

use crate::protocol::{Era, Head, RejectionKind, SessionId};

/// Tells why a request was refused, and by its reference on which session. The reference costs a digest, so this is called
/// only if somebody listens.
#[cold]
pub(super) fn refusal(kind: RejectionKind, parts: &mut Parts) {
    let head = Head::read(&mut parts.headers);
    let id = head.id.one().map(SessionId::from_header);
    let reference = id.and_then(Result::ok).map(|id| id.reference());
    tracing::debug!(
        reason = kind.as_str(),
        session = reference.as_ref().map(tracing::field::display),
        method = %parts.method,
        era = Era::of(head.version.one()).as_str(),
        "refused a request"
    );
}
