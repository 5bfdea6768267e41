//! Whom a session belongs to: a guarded service and, inside it, a principal.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Whom a session belongs to. Fixed when the session is created and compared, both ways, on every request.
///
/// Without a principal it is anonymous: such a session is not a logged-in user's, nor the other way round.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The guarded service, so that several can share a store.
    pub scope: Scope,
    /// Who the caller is, as the application's authentication says.
    pub principal: Option<Principal>,
}

/// The name of a guarded service. Sessions of one scope do not exist in another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scope(Arc<str>);

impl Scope {
    /// Names a scope.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Scope {
    fn default() -> Self {
        Self::new("mcp")
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who a caller is, in a form that stays the same when tokens are refreshed.
///
/// Use issuer and subject. Not the token, which changes every hour and would end the session with it;
/// not the client id alone, which everybody who uses that client shares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Principal(Arc<str>);

impl Principal {
    /// A principal whose name is unique as it is: there is one issuer, or the name includes it.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// A subject as one issuer knows it, encoded as a JSON array, so that no two pairs look alike.
    #[must_use]
    pub fn issued(issuer: &str, subject: &str) -> Self {
        Self::new(serde_json::json!([issuer, subject]).to_string())
    }

    /// The name under which the store keeps this principal.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pairs_never_look_alike() {
        let pairs = [
            ("a", "b,c"),
            ("a,b", "c"),
            ("a\",\"b", "c"),
            ("", "a"),
            ("a", ""),
        ];
        for one in pairs {
            for other in pairs {
                assert_eq!(
                    Principal::issued(one.0, one.1) == Principal::issued(other.0, other.1),
                    one == other
                );
            }
        }
    }
}
