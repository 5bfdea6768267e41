//! How often sessions may be created.

use std::{fmt, hash::Hash, num::NonZeroU32, num::NonZeroUsize, sync::Arc, time::Duration};

use governor::{
    NotUntil, Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed, keyed::HashMapStateStore},
};
use http::request::Parts;
use tokio::time::Instant;

use super::notices::Cap;
use crate::{
    session::{Owner, Principal},
    sync::Mutex,
};

/// So many a second in the long run, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreationRate {
    per_second: NonZeroU32,
    burst: NonZeroU32,
}

impl CreationRate {
    /// So many a second, and as many at once.
    #[must_use]
    pub const fn per_second(sessions: NonZeroU32) -> Self {
        Self {
            per_second: sessions,
            burst: sessions,
        }
    }

    /// So many at once, after a time without any.
    #[must_use]
    pub const fn with_burst(self, sessions: NonZeroU32) -> Self {
        Self {
            burst: sessions,
            ..self
        }
    }

    fn quota(self) -> Quota {
        Quota::per_second(self.per_second).allow_burst(self.burst)
    }
}

/// How often sessions may be created, before that costs anything: beyond these rates an `initialize` is answered with 429
/// and `Retry-After`, and neither the store nor the inner service hears of it.
///
/// The defaults are far above what honest clients do, so that only a flood meets them. 100,000 sessions that are idle for
/// an hour before they end are 28 new ones a second.
///
/// | callers | a second | at once |
/// | --- | --- | --- |
/// | all anonymous ones together | 100 | 10,000, as when a server restarts and all clients come back |
/// | each principal | 20 | 1,000, as of a gateway that uses one principal for its users |
///
/// Each node counts for itself. No more than 65,536 principals or callers are told apart at a time; the others share one
/// rate.
#[derive(Clone)]
pub struct CreationRates {
    anonymous: Option<Arc<Shared>>,
    of_principal: Option<Arc<Keyed<Principal>>>,
    of_caller: Option<(CallerOf, Arc<Keyed<String>>)>,
}

type CallerOf = Arc<dyn Fn(&Parts) -> Option<String> + Send + Sync>;

impl CreationRates {
    /// No rate is limited.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            anonymous: None,
            of_principal: None,
            of_caller: None,
        }
    }

    /// Of all anonymous callers together.
    #[must_use]
    pub fn anonymous(mut self, rate: CreationRate) -> Self {
        self.anonymous = Some(Arc::new(shared(rate)));
        self
    }

    /// Of each principal.
    #[must_use]
    pub fn per_principal(mut self, rate: CreationRate) -> Self {
        self.of_principal = Some(Arc::new(Keyed::new(rate)));
        self
    }

    /// Of each anonymous caller, as this function of the request tells them apart, so that one of them does not use up
    /// the rate of all. `None`: only the rate of all anonymous callers counts. Default: callers are not told apart.
    #[must_use]
    pub fn per_caller(
        mut self,
        rate: CreationRate,
        caller: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.of_caller = Some((Arc::new(caller), Arc::new(Keyed::new(rate))));
        self
    }

    /// As [`per_caller`](Self::per_caller), by the address that the outermost of so many trusted proxies saw: the one so
    /// far from the right in `X-Forwarded-For`. An IPv6 address counts as its /64.
    ///
    /// Name the exact number: an address further to the left is whatever the client wrote.
    #[must_use]
    pub fn per_address(self, rate: CreationRate, proxies: NonZeroUsize) -> Self {
        self.per_caller(rate, move |parts| forwarded_for(parts, proxies))
    }

    /// Takes one creation of this owner out of its rates.
    ///
    /// # Errors
    ///
    /// Which rate is reached, and how long until the next creation.
    pub(super) fn take(&self, parts: &Parts, owner: &Owner) -> Result<(), (Cap, Duration)> {
        if let Some(principal) = &owner.principal {
            return match &self.of_principal {
                Some(rate) => rate
                    .take(principal)
                    .map_err(|wait| (Cap::PrincipalRate, wait)),
                None => Ok(()),
            };
        }
        if let Some((caller, rate)) = &self.of_caller
            && let Some(caller) = caller(parts)
        {
            rate.take(&caller).map_err(|wait| (Cap::CallerRate, wait))?;
        }
        match &self.anonymous {
            Some(rate) => taken(rate.check()).map_err(|wait| (Cap::AnonymousRate, wait)),
            None => Ok(()),
        }
    }
}

impl Default for CreationRates {
    fn default() -> Self {
        Self::unlimited()
            .anonymous(ANONYMOUS)
            .per_principal(OF_PRINCIPAL)
    }
}

impl fmt::Debug for CreationRates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreationRates").finish_non_exhaustive()
    }
}

/// The address that the outermost of the trusted proxies saw.
fn forwarded_for(parts: &Parts, proxies: NonZeroUsize) -> Option<String> {
    let lines = parts.headers.get_all("x-forwarded-for").iter().rev();
    let mut hops = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.rsplit(','));
    let hop = hops.nth(proxies.get() - 1)?.trim();
    Some(match hop.parse().ok()? {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => address.to_string(),
            None => format!("{:x?}", &address.segments()[..4]),
        },
    })
}

type Shared = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<std::time::Instant>>;

fn shared(rate: CreationRate) -> Shared {
    RateLimiter::direct_with_clock(rate.quota(), TokioClock)
}

/// A rate for each key, for so many keys at a time.
struct Keyed<K: Hash + Eq + Clone> {
    limiter: RateLimiter<K, HashMapStateStore<K>, TokioClock, NoOpMiddleware<std::time::Instant>>,
    /// Of all for whom there is no place.
    others: Shared,
    forgot: Mutex<Option<Instant>>,
}

impl<K: Hash + Eq + Clone> Keyed<K> {
    fn new(rate: CreationRate) -> Self {
        let keys = HashMapStateStore::default();
        Self {
            limiter: RateLimiter::new(rate.quota(), keys, TokioClock),
            others: shared(rate),
            forgot: Mutex::default(),
        }
    }

    fn take(&self, key: &K) -> Result<(), Duration> {
        if self.limiter.len() >= MAX_KEYS && !self.forget_some() {
            return taken(self.others.check());
        }
        taken(self.limiter.check_key(key))
    }

    /// Forgets those who have their whole burst again. Says whether there is a place now.
    fn forget_some(&self) -> bool {
        let mut forgot = self.forgot.lock();
        let now = Instant::now();
        if forgot.is_none_or(|at| at + FORGETS_EVERY <= now) {
            *forgot = Some(now);
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        self.limiter.len() < MAX_KEYS
    }
}

fn taken(checked: Result<(), NotUntil<std::time::Instant>>) -> Result<(), Duration> {
    checked.map_err(|not_until| not_until.wait_time_from(TokioClock.now()))
}

/// Tokio's, which stands still in tests that pause it.
#[derive(Debug, Clone, Copy, Default)]
struct TokioClock;

impl Clock for TokioClock {
    type Instant = std::time::Instant;

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

const fn rate(per_second: u32, burst: u32) -> CreationRate {
    match (NonZeroU32::new(per_second), NonZeroU32::new(burst)) {
        (Some(per_second), Some(burst)) => CreationRate { per_second, burst },
        _ => panic!("a rate is not zero"),
    }
}

const ANONYMOUS: CreationRate = rate(100, 10_000);
const OF_PRINCIPAL: CreationRate = rate(20, 1_000);

const MAX_KEYS: usize = 65_536;
const FORGETS_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn forwarded(lines: &[&str], proxies: usize) -> Option<String> {
        let mut request = Request::builder();
        for line in lines {
            request = request.header("x-forwarded-for", *line);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        forwarded_for(&parts, proxies.try_into().unwrap())
    }

    #[test]
    fn an_address_is_taken_at_the_named_depth_only() {
        let (client, proxy) = (Some("10.1.2.3".to_owned()), Some("10.9.9.9".to_owned()));
        assert_eq!(forwarded(&["10.1.2.3"], 1), client);
        assert_eq!(forwarded(&["6.6.6.6, 10.1.2.3"], 1), client);
        assert_eq!(forwarded(&["6.6.6.6,10.1.2.3 , 10.9.9.9"], 2), client);
        assert_eq!(forwarded(&["6.6.6.6", "10.1.2.3", "10.9.9.9"], 2), client);
        assert_eq!(forwarded(&["10.1.2.3, 10.9.9.9"], 1), proxy);
        for (lines, proxies) in [
            (&[] as &[_], 1),
            (&["10.1.2.3"], 2),
            (&["unknown"], 1),
            (&[""], 1),
        ] {
            assert_eq!(forwarded(lines, proxies), None, "{lines:?}");
        }
    }

    #[test]
    fn an_ipv6_address_counts_as_its_network() {
        let one = forwarded(&["2001:db8::1"], 1);
        assert!(one.is_some());
        assert_eq!(forwarded(&["2001:db8::ffff:1"], 1), one);
        assert_ne!(forwarded(&["2001:db8:0:1::1"], 1), one);
        assert_eq!(
            forwarded(&["::ffff:10.1.2.3"], 1),
            forwarded(&["10.1.2.3"], 1)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_has_a_burst_and_comes_back() {
        let keyed = Keyed::new(rate(2, 3));
        for key in ["a", "b"] {
            for _ in 0..3 {
                assert_eq!(keyed.take(&key), Ok(()));
            }
            let wait = keyed.take(&key).unwrap_err();
            assert!(wait <= Duration::from_millis(500), "{wait:?}");
            tokio::time::advance(wait).await;
            assert_eq!(keyed.take(&key), Ok(()));
            assert!(keyed.take(&key).is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_keys_are_bounded_and_what_was_forgotten_starts_anew() {
        let keyed = Keyed::new(rate(1, 1));
        for key in 0..MAX_KEYS {
            assert_eq!(keyed.take(&key), Ok(()));
        }
        assert_eq!(keyed.take(&MAX_KEYS), Ok(()), "the others' rate");
        for key in 1..1000 {
            assert!(keyed.take(&(MAX_KEYS + key)).is_err());
        }
        assert_eq!(keyed.limiter.len(), MAX_KEYS);
        tokio::time::advance(Duration::from_secs(2)).await;
        for key in 1..1000 {
            assert_eq!(keyed.take(&(MAX_KEYS + key)), Ok(()), "{key}");
        }
        assert_eq!(keyed.limiter.len(), 999);
    }
}
