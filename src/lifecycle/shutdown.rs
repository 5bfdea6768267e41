//! Leaving: no new sessions, then no new streams, then nothing that is still waited for.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::Alive;
use crate::{session::StreamKind, sync::atomic::Ordering::Relaxed};

impl Alive {
    /// Creates no session from now on.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Relaxed);
    }

    /// Ends GET streams, and refuses them from now on.
    fn close(&self) {
        self.registry.tracker.close();
        self.end_streams(|kind| kind == StreamKind::Standing);
    }

    /// Ends what is still open, streams and answers that have not begun, and whatever begins to wait from now on.
    fn cut_off(&self) {
        self.registry.tracker.cut_off();
        self.end_streams(|_| true);
    }

    /// On all sessions, which go on.
    fn end_streams(&self, which: impl Fn(StreamKind) -> bool) {
        for session in self.registry.sessions() {
            session.end_streams(&which);
        }
    }

    /// Whether a request is being answered, a stream is open, or something goes on whose client has hung up.
    fn is_busy(&self) -> bool {
        self.registry.tracker.in_flight() > 0 || self.background.is_busy()
    }
}

/// Returns when nothing is in flight any more, after `grace` at the latest.
pub(crate) async fn shut_down(alive: &Arc<Alive>, grace: Duration) {
    alive.drain();
    alive.close();
    let deadline = Instant::now() + grace;
    while alive.is_busy() && Instant::now() < deadline {
        sleep(LOOK_EVERY.min(grace)).await;
    }
    if Instant::now() >= deadline {
        return alive.cut_off();
    }
    // Whatever still comes has the rest of the time.
    let alive = Arc::clone(alive);
    tokio::spawn(async move {
        sleep_until(deadline).await;
        alive.cut_off();
    });
}

const LOOK_EVERY: Duration = Duration::from_millis(50);
