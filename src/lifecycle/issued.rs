//! Which session id an answer to `initialize` issues.

use http::HeaderMap;

use crate::protocol::{SESSION_ID, SessionId};

/// What it says.
pub(super) enum Issued {
    None,
    One(SessionId),
    IllFormed,
}

pub(super) fn issued(headers: &HeaderMap) -> Issued {
    let mut lines = headers.get_all(&SESSION_ID).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Issued::None,
        (Some(value), None) => SessionId::from_header(value).map_or(Issued::IllFormed, Issued::One),
        _ => Issued::IllFormed,
    }
}
