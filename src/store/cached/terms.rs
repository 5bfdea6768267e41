//! What the primary is told of times, which are longer to it by what is answered here alone.

use std::time::Duration;

use super::CachedStore;
use crate::store::{AtLimit, Terms};

impl<S> CachedStore<S> {
    /// What the primary is told, so that a session stays for `idle` after the last of the touches that this answers alone.
    pub(super) fn idle_for_primary(&self, idle: Duration) -> Duration {
        idle.saturating_add(self.max_staleness)
    }

    /// To the primary a session in use may look untouched for `max_staleness` longer than it is.
    pub(super) fn terms_for_primary(&self, terms: &Terms) -> Terms {
        let at_limit = match terms.at_limit {
            AtLimit::Refuse => AtLimit::Refuse,
            AtLimit::Evict { unused, untouched } => AtLimit::Evict {
                unused: unused.saturating_add(self.max_staleness),
                untouched: untouched.saturating_add(self.max_staleness),
            },
        };
        Terms {
            at_limit,
            ..terms.clone()
        }
    }
}
