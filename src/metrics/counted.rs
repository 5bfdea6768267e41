//! What is counted.

use std::{
    sync::{LazyLock, Once, OnceLock},
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram, Unit};
use tokio::time::Instant;

/// How long sessions lived, in seconds, as this node saw it: a histogram, recorded when one ends that this node served.
///
/// The name and the attributes are [OpenTelemetry's](https://opentelemetry.io/docs/specs/semconv/gen-ai/mcp/):
/// `mcp.protocol.version` as the client last named it (`other` if it is none that this crate knows), `network.transport`
/// (`tcp`), `network.protocol.name` (`http`), and for a session that the inner service lost `error.type`.
pub const SESSION_DURATION: &str = "mcp.server.session.duration";

/// Bounds of buckets for [`SESSION_DURATION`]: those that OpenTelemetry recommends, and above them up to a day, because
/// sessions last for hours.
pub const SESSION_DURATION_BUCKETS: [f64; 19] = [
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0,
    10_800.0, 28_800.0, 86_400.0,
];

/// Sessions that this node serves and that live, as far as it knows: a gauge.
pub const SESSIONS_LIVE: &str = "mcp_session_layer.sessions.live";

/// Sessions created on this node: a counter.
pub const SESSIONS_CREATED: &str = "mcp_session_layer.sessions.created";

/// Ended sessions that this node had served: a counter by `reason`, as [`EndReason::as_str`] names it.
///
/// [`EndReason::as_str`]: crate::store::EndReason::as_str
pub const SESSIONS_ENDED: &str = "mcp_session_layer.sessions.ended";

/// Refused requests: a counter by `kind`, as [`RejectionKind::as_str`] names it.
///
/// [`RejectionKind::as_str`]: crate::RejectionKind::as_str
pub const REFUSALS: &str = "mcp_session_layer.refusals";

/// Event streams that are open and end with their session: a gauge.
pub const STREAMS_WATCHED: &str = "mcp_session_layer.streams.watched";

/// How long requests and the keeper of sessions waited for the store, in seconds, retries included: a histogram by `verb`,
/// which is the method of [`SessionStore`](crate::SessionStore), and for those that failed `error.type`. Its count is the
/// number of calls. What a store answers from memory is not called, so not counted.
pub const STORE_CALL_DURATION: &str = "mcp_session_layer.store.call.duration";

/// Bounds of buckets for [`STORE_CALL_DURATION`], up to the three seconds that a call has by default and beyond.
pub const STORE_CALL_DURATION_BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 3.0, 10.0,
];

/// Answers that a [`CachedStore`](crate::CachedStore) gave without its primary, which was away: a counter.
pub const STALE_SERVES: &str = "mcp_session_layer.cache.stale_serves";

pub(crate) fn session_created() {
    static CREATED: LazyLock<Counter> = LazyLock::new(|| {
        describe();
        metrics::counter!(SESSIONS_CREATED)
    });
    CREATED.increment(1);
}

/// This node serves so many more sessions, or fewer.
pub(crate) fn sessions_served(more: i32) {
    static LIVE: LazyLock<Gauge> = LazyLock::new(|| {
        describe();
        metrics::gauge!(SESSIONS_LIVE)
    });
    LIVE.increment(more);
}

/// A session that this node served has ended. `error` says why, if it is an error; `session` how old it was, and of which
/// version of the protocol.
pub(crate) fn session_ended(
    reason: &'static str,
    error: Option<&'static str>,
    session: impl FnOnce() -> (Duration, Option<String>),
) {
    describe();
    metrics::counter!(SESSIONS_ENDED, "reason" => reason).increment(1);
    let (age, version) = session();
    let version = version.as_deref().map(known_version);
    let version = version.map(|version| ("mcp.protocol.version", version));
    let error = error.map(|error| ("error.type", error));
    let mut labels = vec![
        ("network.transport", "tcp"),
        ("network.protocol.name", "http"),
    ];
    labels.extend(version.into_iter().chain(error));
    metrics::histogram!(SESSION_DURATION, &labels).record(age);
}

pub(crate) fn request_refused(kind: &'static str) {
    static KINDS: Family<Counter> = Family::new();
    let register = || metrics::counter!(REFUSALS, "kind" => kind);
    KINDS.with(kind, register, |refusals| refusals.increment(1));
}

pub(crate) fn stale_served() {
    static STALE: LazyLock<Counter> = LazyLock::new(|| {
        describe();
        metrics::counter!(STALE_SERVES)
    });
    STALE.increment(1);
}

/// A stream that is watched until this is dropped.
pub(crate) struct WatchedStream(());

impl WatchedStream {
    pub(crate) fn new() -> Self {
        Self::gauge().increment(1);
        Self(())
    }

    fn gauge() -> &'static Gauge {
        static WATCHED: LazyLock<Gauge> = LazyLock::new(|| {
            describe();
            metrics::gauge!(STREAMS_WATCHED)
        });
        &WATCHED
    }
}

impl Drop for WatchedStream {
    fn drop(&mut self) {
        Self::gauge().decrement(1);
    }
}

/// A call to the store, recorded when this is dropped.
pub(crate) struct StoreCall {
    verb: &'static str,
    begun: Instant,
    error: Option<&'static str>,
}

impl StoreCall {
    pub(crate) fn begin(verb: &'static str) -> Self {
        Self {
            verb,
            begun: Instant::now(),
            // Unless it is answered.
            error: Some("cancelled"),
        }
    }

    /// It was answered, or has failed for this reason.
    pub(crate) fn end(mut self, error: Option<&'static str>) {
        self.error = error;
    }
}

impl Drop for StoreCall {
    fn drop(&mut self) {
        static VERBS: Family<Histogram> = Family::new();
        let Self { verb, begun, error } = *self;
        let took = begun.elapsed();
        match error {
            None => {
                let register = || metrics::histogram!(STORE_CALL_DURATION, "verb" => verb);
                VERBS.with(verb, register, |calls| calls.record(took));
            }
            Some(error) => {
                describe();
                let labels = [("verb", verb), ("error.type", error)];
                metrics::histogram!(STORE_CALL_DURATION, &labels).record(took);
            }
        }
    }
}

/// Handles by the value of a label, each looked up in the recorder once.
struct Family<H>([OnceLock<(&'static str, H)>; MOST_VALUES]);

impl<H> Family<H> {
    const fn new() -> Self {
        Self([const { OnceLock::new() }; MOST_VALUES])
    }

    fn with(&self, value: &'static str, register: impl Fn() -> H, record: impl FnOnce(&H)) {
        let register = || {
            describe();
            (value, register())
        };
        // In the order of first use, so those that are used most come soon.
        for cell in &self.0 {
            let (known, handle) = cell.get_or_init(register);
            if *known == value {
                return record(handle);
            }
        }
        record(&register().1);
    }
}

/// Revisions of the protocol. Whatever else a client asks for must not become a label.
fn known_version(version: &str) -> &'static str {
    let known = [
        "2024-11-05",
        "2025-03-26",
        "2025-06-18",
        "2025-11-25",
        "2026-07-28",
    ];
    let known = known.into_iter().find(|known| *known == version);
    known.unwrap_or("other")
}

fn describe() {
    static DESCRIBED: Once = Once::new();
    DESCRIBED.call_once(|| {
        metrics::describe_histogram!(
            SESSION_DURATION,
            Unit::Seconds,
            "The duration of the MCP session as observed on the MCP server."
        );
        metrics::describe_gauge!(
            SESSIONS_LIVE,
            Unit::Count,
            "Live sessions that this node serves."
        );
        metrics::describe_counter!(
            SESSIONS_CREATED,
            Unit::Count,
            "Sessions created on this node."
        );
        metrics::describe_counter!(
            SESSIONS_ENDED,
            Unit::Count,
            "Ended sessions that this node had served."
        );
        metrics::describe_counter!(
            REFUSALS,
            Unit::Count,
            "Requests that the session layer refused."
        );
        metrics::describe_gauge!(
            STREAMS_WATCHED,
            Unit::Count,
            "Open event streams that end with their session."
        );
        metrics::describe_histogram!(
            STORE_CALL_DURATION,
            Unit::Seconds,
            "How long a call to the session store took, retries included."
        );
        metrics::describe_counter!(
            STALE_SERVES,
            Unit::Count,
            "Answers that the cache gave while the session store was away."
        );
    });
}

/// More than any label here has.
const MOST_VALUES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_registered_once_and_used_again() {
        let family: Family<String> = Family::new();
        for value in ["a", "b", "a", "b"] {
            family.with(
                value,
                || format!("handle of {value}"),
                |handle| {
                    assert_eq!(*handle, format!("handle of {value}"));
                },
            );
        }
        assert_eq!(
            family.0.iter().filter(|cell| cell.get().is_some()).count(),
            2
        );
        family.with("a", || panic!("it is known"), |_| {});
    }

    #[test]
    fn what_a_client_makes_up_is_no_label() {
        assert_eq!(known_version("2025-11-25"), "2025-11-25");
        assert_eq!(known_version("2025-11-25 "), "other");
        assert_eq!(known_version("9999-01-01"), "other");
    }
}
