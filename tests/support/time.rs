//! Time passing, and things being under way meanwhile.

use std::{future::Future, time::Duration};

use tokio::{task::yield_now, time::sleep};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);

/// Lets everything in the background run that does not wait for time to pass.
pub(crate) async fn settled() {
    sleep(Duration::from_millis(1)).await;
}

/// Polls a call once, so that it is in flight.
pub(crate) async fn set_off<F: Future + Unpin>(call: &mut F) {
    assert!(futures_util::poll!(call).is_pending());
    yield_now().await;
}

/// Waits for what happens on other threads.
pub(crate) async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}
