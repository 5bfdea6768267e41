//! Why sessions end.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndReason {
    /// Its client sent a DELETE.
    Deleted,
    /// It was ended through [`Sessions`](crate::Sessions).
    Revoked,
    /// It was idle for too long.
    Idle,
    /// It reached the end of its life.
    Lifetime,
    /// A new session took its place at a limit.
    Evicted,
    /// The inner service no longer knew it.
    InnerGone,
    /// The answer with its id did not reach the client.
    Undelivered,
}

impl EndReason {
    /// A short name that stays the same from version to version, for labels, rows and messages between nodes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Revoked => "revoked",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Evicted => "evicted",
            Self::InnerGone => "inner_gone",
            Self::Undelivered => "undelivered",
        }
    }

    /// The reason of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Deleted,
            Self::Revoked,
            Self::Idle,
            Self::Lifetime,
            Self::Evicted,
            Self::InnerGone,
            Self::Undelivered,
        ]
        .into_iter()
        .find(|reason| reason.as_str() == name)
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_one_name() {
        for name in [
            "deleted",
            "revoked",
            "idle",
            "lifetime",
            "evicted",
            "inner_gone",
        ] {
            let reason = EndReason::from_name(name).unwrap();
            assert_eq!(reason.as_str(), name);
            assert_eq!(reason.to_string(), name);
            let json = format!("{name:?}");
            assert_eq!(serde_json::to_string(&reason).unwrap(), json);
            assert_eq!(serde_json::from_str::<EndReason>(&json).unwrap(), reason);
        }
        assert_eq!(EndReason::from_name("Deleted"), None);
    }
}
