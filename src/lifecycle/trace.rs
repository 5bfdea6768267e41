//! What the log says of a refused request.

use http::request::Parts;

use super::{Settings, signed_ids};
use crate::protocol::{Era, Head, RejectionKind, SessionId};

/// Tells why a request was refused, and by its reference on which session, if it said so. The reference costs a digest, so
/// this is called only if somebody listens.
#[cold]
pub(super) fn refusal(kind: RejectionKind, parts: &mut Parts, settings: &Settings) {
    let is_tagged = settings.signed_ids.is_some() && !signed_ids::is_verified(parts);
    let head = Head::read(&mut parts.headers);
    let id = head.id.one().map(|id| match is_tagged {
        true => signed_ids::without_tag(id.as_bytes()),
        false => id.as_bytes(),
    });
    let id = id.and_then(|id| str::from_utf8(id).ok()?.parse::<SessionId>().ok());
    let reference = id.map(|id| id.reference());
    tracing::debug!(
        reason = kind.as_str(),
        session = reference.as_ref().map(tracing::field::display),
        method = %parts.method,
        era = Era::of(head.version.one()).as_str(),
        "refused a request"
    );
}
