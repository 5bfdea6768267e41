//! Without the feature `metrics` nothing is counted.

use std::time::Duration;

#[inline]
pub(crate) fn session_created() {}

#[inline]
pub(crate) fn sessions_served(_more: i32) {}

#[inline]
pub(crate) fn session_ended(
    _reason: &'static str,
    _error: Option<&'static str>,
    _session: impl FnOnce() -> (Duration, Option<String>),
) {
}

#[inline]
pub(crate) fn request_refused(_kind: &'static str) {}

#[inline]
pub(crate) fn stale_served() {}

pub(crate) struct WatchedStream(());

impl WatchedStream {
    #[inline]
    pub(crate) fn new() -> Self {
        Self(())
    }
}

pub(crate) struct StoreCall(());

impl StoreCall {
    #[inline]
    pub(crate) fn begin(_verb: &'static str) -> Self {
        Self(())
    }

    #[inline]
    pub(crate) fn end(self, _error: Option<&'static str>) {}
}
