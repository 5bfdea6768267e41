//! Streams as a client reads them.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout};

use crate::support::time::HOUR;

/// Reads a stream to its clean end and answers how long it took and what came.
pub(crate) async fn read_to_end(body: Body) -> (Duration, Bytes) {
    let start = Instant::now();
    let read = timeout(24 * HOUR, body.collect()).await.expect("ends");
    let read = read.expect("ends cleanly");
    (start.elapsed(), read.to_bytes())
}

pub(crate) async fn ends_within(limit: Duration, body: Body) -> Bytes {
    let ended = timeout(limit, read_to_end(body)).await;
    ended.expect("the stream ends in time").1
}

/// Whether a stream stays open for that long and says nothing.
pub(crate) async fn stays_silent(body: &mut Body, time: Duration) -> bool {
    timeout(time, body.frame()).await.is_err()
}
