//! Waiting for a database that is not ready yet.

use std::{fmt::Display, future::Future, time::Duration};

use tokio::time::{Instant, sleep};

/// Tries until it works: after 0.25 s, 0.5 s, 1 s, 2 s and then every 4 s, for half a minute. Says so on stderr.
pub(crate) async fn patiently<T, E: Display, A: Future<Output = Result<T, E>>>(
    what: &str,
    mut attempt: impl FnMut() -> A,
) -> anyhow::Result<T> {
    let until = Instant::now() + PATIENCE;
    let mut wait = Duration::from_millis(250);
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        anyhow::ensure!(
            Instant::now() + wait < until,
            "could not {what} in {} s: {error}",
            PATIENCE.as_secs()
        );
        eprintln!("could not {what}: {error}; trying again in {wait:?}");
        sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(4));
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
