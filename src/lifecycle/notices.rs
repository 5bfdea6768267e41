//! What operators are told of limits that are met: at once, and then at most each minute with the number since.

use std::time::Duration;

use tokio::time::Instant;

use crate::sync::Mutex;

/// A limit that can be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cap {
    Sessions,
    SessionsOfPrincipal,
    AnonymousRate,
    PrincipalRate,
    CallerRate,
}

/// What became of a creation at a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    Refused,
    Evicted,
}

#[derive(Default)]
pub(super) struct Notices([Mutex<Notice>; 5]);

#[derive(Default)]
struct Notice {
    refused: u64,
    evicted: u64,
    said: Option<Instant>,
}

impl Notices {
    /// Counts it, and says so if it was not said lately.
    #[cold]
    pub(super) fn note(&self, cap: Cap, met: Met) {
        let Some((refused, evicted)) = self.count(cap, met) else {
            return;
        };
        let (what, setting) = match cap {
            Cap::Sessions => ("sessions in all", "with_max_sessions"),
            Cap::SessionsOfPrincipal => (
                "sessions of one principal",
                "with_max_sessions_per_principal",
            ),
            Cap::AnonymousRate => ("anonymous creations a second", "CreationRates::anonymous"),
            Cap::PrincipalRate => (
                "creations of one principal a second",
                "CreationRates::per_principal",
            ),
            Cap::CallerRate => (
                "creations of one caller a second",
                "CreationRates::per_caller",
            ),
        };
        tracing::warn!(
            limit = what,
            refused,
            evicted,
            setting,
            "a limit on new sessions is met; if these are honest clients, raise the setting or shorten the idle timeout"
        );
    }

    /// How many were refused and evicted since it was said last, if it is time to say so.
    fn count(&self, cap: Cap, met: Met) -> Option<(u64, u64)> {
        let mut notice = self.0[cap as usize].lock();
        match met {
            Met::Refused => notice.refused += 1,
            Met::Evicted => notice.evicted += 1,
        }
        let now = Instant::now();
        if notice.said.is_some_and(|said| now < said + EVERY) {
            return None;
        }
        let counts = (notice.refused, notice.evicted);
        *notice = Notice {
            said: Some(now),
            ..Notice::default()
        };
        Some(counts)
    }
}

const EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_told_at_once_and_then_each_minute_with_the_number_since() {
        let notices = Notices::default();
        assert_eq!(notices.count(Cap::Sessions, Met::Refused), Some((1, 0)));
        for _ in 0..5 {
            assert_eq!(notices.count(Cap::Sessions, Met::Refused), None);
        }
        let another = notices.count(Cap::AnonymousRate, Met::Refused);
        assert_eq!(another, Some((1, 0)), "each limit apart");
        advance(EVERY).await;
        assert_eq!(notices.count(Cap::Sessions, Met::Evicted), Some((5, 1)));
        assert_eq!(notices.count(Cap::Sessions, Met::Evicted), None);
    }
}
