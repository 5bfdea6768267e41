//! Waiting on a clock that may be real or simulated, and judging what must be true by then.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// The caller's way to wait, and how long it has been.
///
/// A simulated clock (tokio's, paused, or one of the store's own) stands still between waits, so there a
/// session is live until the instant its time is up. On a real one something may always take a little
/// longer: the suite looks well before that instant and a little after it.
#[derive(Debug)]
pub(super) struct Time<W> {
    wait: W,
    waited: Cell<Duration>,
    simulated: bool,
}

/// A moment that durations are measured from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    instant: Instant,
    waited: Duration,
}

/// The moments before and after a call: somewhere between them the store looked at its clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) before: Moment,
    pub(super) after: Moment,
}

impl<W: AsyncFn(Duration)> Time<W> {
    pub(super) async fn new(wait: W) -> Self {
        let tick = Duration::from_millis(1);
        // The first wait brings a clock that was paused between two ticks to the next one.
        wait(tick).await;
        let start = Instant::now();
        wait(tick).await;
        Self {
            simulated: start.elapsed() <= tick,
            waited: Cell::new(Duration::ZERO),
            wait,
        }
    }

    pub(super) fn is_simulated(&self) -> bool {
        self.simulated
    }

    pub(super) fn now(&self) -> Moment {
        Moment {
            instant: Instant::now(),
            waited: self.waited.get(),
        }
    }

    /// How long ago this was. A clock of the store's own is moved by nothing but our waiting.
    pub(super) fn since(&self, moment: Moment) -> Duration {
        let waited = self.waited.get() - moment.waited;
        waited.max(moment.instant.elapsed())
    }

    pub(super) async fn wait(&self, duration: Duration) {
        (self.wait)(duration).await;
        self.waited.set(self.waited.get() + duration);
    }

    /// Waits until this long after the moment, if it is not later already.
    pub(super) async fn until(&self, moment: Moment, later: Duration) {
        let left = later.saturating_sub(self.since(moment));
        if !left.is_zero() {
            self.wait(left).await;
        }
    }

    /// Waits until shortly before a time that began with this call is up.
    pub(super) async fn until_almost(&self, span: Span, lasts: Duration) {
        let early = if self.simulated { TICK } else { EARLY };
        self.until(span.before, lasts.saturating_sub(early)).await;
    }

    /// Waits until a time that began with this call is surely up.
    pub(super) async fn until_over(&self, span: Span, lasts: Duration) {
        let late = if self.simulated { Duration::ZERO } else { LATE };
        self.until(span.after, lasts + late).await;
    }

    /// Whether a time that began with this call surely was not up yet when the last answer came. On a machine
    /// that is too slow to tell, nothing is asserted.
    pub(super) fn surely_within(&self, span: Span, lasts: Duration) -> bool {
        let rounding = if self.simulated {
            Duration::ZERO
        } else {
            ROUNDING
        };
        self.since(span.before) + rounding < lasts
    }
}

/// By how much durations that a store answers may be off: two roundings to a millisecond, and two clocks.
pub(super) const ROUNDING: Duration = Duration::from_millis(5);

const TICK: Duration = Duration::from_millis(1);
const EARLY: Duration = Duration::from_millis(250);
const LATE: Duration = Duration::from_millis(50);
