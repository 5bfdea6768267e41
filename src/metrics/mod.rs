//! Numbers for whatever recorder the [`metrics`](https://docs.rs/metrics) facade has (feature `metrics`).
//!
//! Install a recorder before the first request: what is recorded most is looked up in it once. No metric has a label
//! that a client chooses, and none names a session or a principal. A request on a live session that is answered from
//! memory counts nothing, so it costs what it costs without the feature. What each metric means, and how to have it
//! scraped, is in [`docs/observability.md`](https://docs.rs/crate/mcp-session-layer/latest/source/docs/observability.md).

// Ground: it imports nothing, so that every room may count here.

#[cfg(feature = "metrics")]
mod counted;
#[cfg(not(feature = "metrics"))]
mod off;

#[cfg(feature = "metrics")]
pub use self::counted::{
    REFUSALS, SESSION_DURATION, SESSION_DURATION_BUCKETS, SESSIONS_CREATED, SESSIONS_ENDED,
    SESSIONS_LIVE, STALE_SERVES, STORE_CALL_DURATION, STORE_CALL_DURATION_BUCKETS, STREAMS_WATCHED,
};
#[cfg(feature = "metrics")]
pub(crate) use self::counted::{
    StoreCall, WatchedStream, request_refused, session_created, session_ended, sessions_served,
    stale_served,
};
#[cfg(not(feature = "metrics"))]
pub(crate) use self::off::{
    StoreCall, WatchedStream, request_refused, session_created, session_ended, sessions_served,
    stale_served,
};
