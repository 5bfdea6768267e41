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
    /// Evict another, the first of these that there is, or refuse the new session:
    ///
    /// 1. one without any request since its creation, the oldest first;
    /// 2. the one longest untouched.
    ///
    /// At [`Limit::PerPrincipal`] it is one of the principal's own. At [`Limit::Total`] it is an anonymous one: a
    /// principal's session is never ended for somebody else's. A store with many sessions may choose from a sample.
    Evict {
        /// How long ago a session without any request must have been created. Long enough for a client to send one.
        unused: Duration,
        /// How long untouched any other session must be. Longer than the layer's interval of touches, so that no
        /// session in use is ever evicted.
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
