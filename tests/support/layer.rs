//! The layer under test. Its types are named here and nowhere else.

use http::request::Parts;
use mcp_session_layer::{McpSessionLayer, McpSessionService, Principal, SessionStore};
use tower::BoxError;

pub(crate) type SessionLayer = McpSessionLayer;
pub(crate) type SessionService<S> = McpSessionService<S>;

/// A layer with the defaults.
pub(crate) fn layer(store: impl SessionStore) -> SessionLayer {
    McpSessionLayer::new(store)
}

/// For `with_principal`: callers say in a header who they are (see `as_user`), anonymous ones nothing. `!` is somebody whose
/// claims cannot be read.
pub(crate) fn user_header(parts: &Parts) -> Result<Option<Principal>, BoxError> {
    match parts.headers.get("x-user").map(|user| user.to_str()) {
        Some(Ok("!")) => Err("the claims cannot be read".into()),
        Some(user) => Ok(Some(Principal::new(user?))),
        None => Ok(None),
    }
}
