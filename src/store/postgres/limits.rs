//! Which scopes are surely below their limit, so that not every creation has to count.

use std::{
    collections::HashMap,
    num::NonZeroU64,
    time::{Duration, Instant},
};

use crate::{session::Scope, sync::Mutex};

/// What was counted last in each scope.
#[derive(Debug, Default)]
pub(super) struct RecentCounts(Mutex<HashMap<Scope, Count>>);

#[derive(Debug)]
struct Count {
    /// How many sessions were live, and how many were created here since.
    sessions: u64,
    counted: Instant,
}

impl RecentCounts {
    /// Whether one more session may be created without counting, in which case it is noted. Counting a hundred thousand
    /// sessions takes the server some twenty milliseconds.
    pub(super) fn take(&self, scope: &Scope, total: NonZeroU64, now: Instant) -> bool {
        let mut counts = self.0.lock();
        let Some(count) = counts.get_mut(scope) else {
            return false;
        };
        let has_room = count.sessions < total.get() / 10 * 9;
        let is_recent = now.saturating_duration_since(count.counted) < RECENT;
        if has_room && is_recent {
            count.sessions += 1;
        }
        has_room && is_recent
    }

    pub(super) fn counted(&self, scope: &Scope, sessions: u64, now: Instant) {
        let counted = now;
        let count = Count { sessions, counted };
        self.0.lock().insert(scope.clone(), count);
    }
}

/// How long a count that leaves a tenth of the limit is good for. Other nodes would have to fill that tenth within it.
const RECENT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_recent_count_far_from_the_limit_is_trusted() {
        let (counts, scope, total) = (
            RecentCounts::default(),
            Scope::default(),
            NonZeroU64::new(100).unwrap(),
        );
        let now = Instant::now();
        assert!(!counts.take(&scope, total, now), "never counted");
        counts.counted(&scope, 88, now);
        assert!(
            !counts.take(&Scope::new("other"), total, now),
            "another scope"
        );
        assert!(!counts.take(&scope, total, now + RECENT), "too long ago");
        assert!(counts.take(&scope, total, now), "the 89th");
        assert!(counts.take(&scope, total, now), "the 90th");
        assert!(!counts.take(&scope, total, now), "near the limit");
    }

    #[test]
    fn a_small_limit_is_always_counted() {
        let (counts, scope, now) = (RecentCounts::default(), Scope::default(), Instant::now());
        counts.counted(&scope, 0, now);
        assert!(!counts.take(&scope, NonZeroU64::new(9).unwrap(), now));
    }
}
