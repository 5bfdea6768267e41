//! When a session's time is up, by this process's clock.

use std::{sync::OnceLock, time::Duration};

use tokio::time::Instant;

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// An instant as nanoseconds, so that it fits into an atomic.
pub(crate) type Tick = u64;

/// This instant.
pub(crate) fn now() -> Tick {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    let epoch = *EPOCH.get_or_init(|| now);
    match now.checked_duration_since(epoch) {
        Some(since) => EPOCH_TICK.saturating_add(ticks(since)),
        // A paused clock can stand before the first instant that was read.
        None => EPOCH_TICK.saturating_sub(ticks(epoch.duration_since(now))),
    }
}

/// A duration as a number of ticks; the longest there is where it is longer.
pub(crate) fn ticks(duration: Duration) -> Tick {
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(duration.subsec_nanos().into())
}

/// From one instant to a later one.
pub(crate) fn between(from: Tick, to: Tick) -> Duration {
    Duration::from_nanos(to.saturating_sub(from))
}

/// A session's times. In the memory store they decide; elsewhere they are what the store answered last, and never too
/// late.
#[derive(Debug)]
pub(crate) struct Times {
    /// The end of its time unless it is touched, at most `end_of_life`. [`OVER`] once anyone saw it over.
    until: AtomicU64,
    /// Its last touch, or [`NEVER`].
    touched: AtomicU64,
    created: AtomicU64,
    /// [`NO_END`] if its life has no limit.
    end_of_life: AtomicU64,
}

impl Times {
    /// Not started: over, until it is.
    pub(crate) fn new() -> Self {
        Self {
            until: AtomicU64::new(OVER),
            touched: AtomicU64::new(NEVER),
            created: AtomicU64::new(0),
            end_of_life: AtomicU64::new(NO_END),
        }
    }

    /// Starts them for a session that is created now.
    pub(crate) fn start(&self, now: Tick, idle: Duration, life: Option<Duration>) {
        let end = life.map_or(NO_END, |life| {
            now.saturating_add(ticks(life)).min(NO_END - 1)
        });
        self.created.store(now, Relaxed);
        self.touched.store(NEVER, Relaxed);
        self.end_of_life.store(end, Relaxed);
        self.until
            .store(now.saturating_add(ticks(idle)).min(end), Relaxed);
    }

    /// Takes over a store's word.
    pub(crate) fn note(
        &self,
        now: Tick,
        age: Duration,
        idle_left: Duration,
        life_left: Option<Duration>,
    ) {
        self.created.store(now.saturating_sub(ticks(age)), Relaxed);
        let end = life_left.map_or(NO_END, |left| {
            now.saturating_add(ticks(left)).min(NO_END - 1)
        });
        self.end_of_life.store(end, Relaxed);
        self.until
            .store(now.saturating_add(ticks(idle_left)).min(end), Relaxed);
    }

    /// How long ago it was created.
    pub(crate) fn age(&self, now: Tick) -> Duration {
        between(self.created.load(Relaxed), now)
    }

    /// When its time is over unless it is touched.
    pub(crate) fn until(&self) -> Tick {
        self.until.load(Relaxed)
    }

    pub(crate) fn end_of_life(&self) -> Tick {
        self.end_of_life.load(Relaxed)
    }

    /// Until when it lives, if it does.
    pub(crate) fn live_until(&self, now: Tick) -> Option<Tick> {
        self.extend(now, OVER)
    }

    /// Lets it live for `idle` more, if it lives.
    pub(crate) fn touch(&self, now: Tick, idle: Duration) -> Option<Tick> {
        let until = now.saturating_add(ticks(idle)).min(self.end_of_life());
        let until = self.extend(now, until)?;
        self.touched.store(now, Relaxed);
        Some(until)
    }

    /// Whoever finds its time over says so for all, in the same step. Otherwise a thread that read the clock a little
    /// earlier could still extend what this one has just called absent.
    fn extend(&self, now: Tick, to: Tick) -> Option<Tick> {
        let mut until = self.until.load(Relaxed);
        loop {
            let next = if until > now { until.max(to) } else { OVER };
            if next == until {
                break;
            }
            match self
                .until
                .compare_exchange_weak(until, next, Relaxed, Relaxed)
            {
                Ok(_) => {
                    until = next;
                    break;
                }
                Err(current) => until = current,
            }
        }
        (until > now).then_some(until)
    }

    /// Age, idle time left and life left of a session that lives until then.
    pub(crate) fn left(&self, now: Tick, until: Tick) -> (Duration, Duration, Option<Duration>) {
        let end = self.end_of_life();
        (
            self.age(now),
            between(now, until),
            (end != NO_END).then(|| between(now, end)),
        )
    }

    /// Since when nobody has touched it, and whether anybody ever has.
    pub(crate) fn untouched_since(&self) -> (bool, Tick) {
        match self.touched.load(Relaxed) {
            NEVER => (false, self.created.load(Relaxed)),
            touched => (true, touched),
        }
    }
}

/// The first instant that was read: 146 years, so that there is room on both sides and zero is free.
const EPOCH_TICK: Tick = 1 << 62;
const NO_END: Tick = Tick::MAX;
/// Before every instant.
const OVER: Tick = 0;
const NEVER: Tick = 0;
