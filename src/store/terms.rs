//! On what terms a session is created, and within what limits.

use std::{num::NonZeroU64, time::Duration};

/// On what terms a session is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// How long a session may be idle.
    pub idle: Duration,
    /// How long a session that has seen no request since its creation may be idle.
    pub initial_idle: Duration,
    /// How long a session may live, however busy it is. `None`: no limit.
    pub life: Option<Duration>,
    /// How many live sessions the scope may have. `None`: no limit.
    pub total: Option<NonZeroU64>,
    /// How many live sessions one principal may have in the scope. Anonymous sessions have none. `None`: no limit.
    pub per_principal: Option<NonZeroU64>,
    /// What to do at a limit.
    pub at_limit: AtLimit,
    /// How long ago this creation began. If its owner's sessions were all revoked since then, the new session is
    /// refused too.
    ///
    /// The store counts back from when the call reaches it. So a creation that began on one node just before another
    /// revoked them all, by less than the call took to arrive, looks younger than that and may pass.
    pub started_ago: Duration,
}

/// What a store does with a new session at a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtLimit {
    /// Refuse the new session.
    Refuse,
    /// Evict another: of a sample the one longest untouched, sessions without any request since their creation first.
    /// Refuse the new session if the sample holds none that may be evicted.
    Evict {
        /// How long untouched a session must be to be evicted. Longer than the layer's interval of touches, so that
        /// no session in use ever is.
        untouched: Duration,
    },
}

/// A limit on the number of live sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// [`Terms::total`].
    Total,
    /// [`Terms::per_principal`].
    PerPrincipal,
}
