//! Why sessions end.

use std::fmt;

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
}

impl EndReason {
    /// A short name, for labels, rows and messages between nodes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Revoked => "revoked",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Evicted => "evicted",
            Self::InnerGone => "inner_gone",
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
