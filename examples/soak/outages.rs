//! What happens to the Redis on the way.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::{judge::Judge, redis::Redis};

/// Three outages within this time, evenly spread. Meanwhile 503 with `Retry-After` is right, and 404 is not.
pub(crate) async fn all(
    mut redis: Redis,
    length: Duration,
    judge: &Judge,
) -> anyhow::Result<Redis> {
    let begun = Instant::now();
    let outage = LONGEST.min(length / 8);
    for (nth, what) in (1..).zip(["stopped (SIGSTOP)", "paused (CLIENT PAUSE)", "killed"]) {
        sleep_until(begun + length * nth / 4).await;
        let resident = redis.resident() >> 20;
        println!("   Redis is {what} for {outage:.1?}; it has {resident} MiB");
        judge.set_away(true);
        match nth {
            1 => {
                redis.freeze().await?;
                sleep(outage).await;
                redis.thaw().await?;
            }
            2 => {
                redis.pause(outage).await?;
                sleep(outage).await;
            }
            _ => {
                redis.kill().await?;
                sleep(outage).await;
                redis.start_again().await?;
            }
        }
        println!("   Redis is back");
        sleep(GRACE).await;
        judge.set_away(false);
    }
    Ok(redis)
}

const LONGEST: Duration = Duration::from_secs(10);
/// After so long everything has to be as before.
const GRACE: Duration = Duration::from_secs(3);
