//! What the tests of the SQL stores share: sessions to keep, and an ear for what `sqlx` and the stores log.

pub(crate) mod deadline;

use std::{
    fmt::Write as _,
    sync::{Mutex, OnceLock},
    time::Duration,
};

use mcp_session_layer::{
    Issuer, Owner, Principal, Scope, Session, SessionId, SessionRecord, SessionStore,
    store::{AtLimit, Terms},
};
use tracing_subscriber::{Layer, layer::Context, prelude::*, registry::Registry};

pub(crate) const LONG: Duration = Duration::from_secs(120);

/// A name that no other test has.
pub(crate) fn unique() -> String {
    format!("t{}", SessionId::issue().expose().replace('-', ""))
}

pub(crate) fn owner(name: &str) -> Owner {
    Owner {
        scope: Scope::default(),
        principal: Some(Principal::new(name)),
    }
}

pub(crate) fn session() -> Session {
    let record = SessionRecord::new(owner("a"), Issuer::Layer);
    Session::new(SessionId::issue(), record)
}

pub(crate) fn terms() -> Terms {
    terms_of(LONG)
}

pub(crate) fn terms_of(idle: Duration) -> Terms {
    Terms {
        idle,
        initial_idle: idle,
        life: None,
        total: None,
        per_principal: None,
        at_limit: AtLimit::Refuse,
        started_ago: Duration::ZERO,
    }
}

/// Everything that was logged so far and contains this.
pub(crate) fn logged(part: &str) -> Vec<String> {
    let log = log().lock().unwrap();
    log.iter()
        .filter(|line| line.contains(part))
        .cloned()
        .collect()
}

/// Begins to keep what is logged, by all threads, for a driver may have its own.
pub(crate) fn listen_to_the_log() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let kept = tracing_subscriber::filter::Targets::new()
            .with_target("sqlx::query", tracing::Level::DEBUG)
            .with_target("mcp_session_layer", tracing::Level::TRACE);
        let subscriber = Registry::default().with(Ear.with_filter(kept));
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
}

struct Ear;

impl<S: tracing::Subscriber> Layer<S> for Ear {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut line = format!("{} ", event.metadata().level());
        event.record(
            &mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
                _ = write!(line, "{field}={value:?} ");
            },
        );
        log().lock().unwrap().push(line);
    }
}

fn log() -> &'static Mutex<Vec<String>> {
    static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());
    &LOG
}

/// A touch is written if it is the first, asks for more than is left, is near the end of life, or is a claim. Otherwise
/// nothing is. The version of a session's row tells.
pub(crate) async fn only_touches_that_are_due_are_written(
    store: &impl SessionStore,
    version: impl AsyncFn(&Session) -> String,
) {
    let writes = async |session: &Session, idle: Duration| {
        let before = version(session).await;
        let touched = store.touch(session.id(), session.owner(), idle).await;
        assert!(touched.unwrap().is_some(), "it is live");
        before != version(session).await
    };
    let new = session();
    store.create(&new, &terms()).await.unwrap();
    assert!(writes(&new, LONG / 2).await, "the first, whatever is left");
    // As long as it lives by the terms of its creation.
    assert!(!writes(&new, LONG / 2).await, "more than that is left");
    assert!(writes(&new, LONG).await, "less than that is left");
    for _ in 0..5 {
        assert!(!writes(&new, LONG).await, "that is left");
    }
    tokio::time::sleep(LONG / 2 / 1000).await;
    assert!(!writes(&new, LONG).await, "that is still left");
    assert!(writes(&new, LONG * 2).await, "less than that is left");

    let mut anonymous = session().record();
    anonymous.owner.principal = None;
    let anonymous = Session::new(SessionId::issue(), anonymous);
    store.create(&anonymous, &terms()).await.unwrap();
    assert!(writes(&anonymous, LONG).await);
    assert!(!writes(&anonymous, LONG).await);
    let before = version(&anonymous).await;
    let claimed = store.claim(anonymous.id(), &owner("a"), LONG).await;
    assert!(claimed.unwrap().is_some());
    assert_ne!(before, version(&anonymous).await, "a claim");

    let mortal = session();
    let terms = Terms {
        life: Some(LONG),
        ..terms()
    };
    store.create(&mortal, &terms).await.unwrap();
    for _ in 0..3 {
        assert!(writes(&mortal, LONG).await, "near the end of life");
    }

    // Where a touch lasts for so short that the next one is due at once.
    let brief = session();
    store.create(&brief, &terms_of(LONG)).await.unwrap();
    let idle = Duration::from_secs(1);
    assert!(writes(&brief, idle).await, "the first");
    tokio::time::sleep(idle / 16 + Duration::from_millis(20)).await;
    assert!(writes(&brief, idle).await, "a sixteenth later");
}

/// The contract, behind a cache that remembers nothing.
#[cfg(feature = "conformance")]
pub(crate) async fn keeps_the_contract_behind_a_cache(store: impl SessionStore + Clone) {
    use mcp_session_layer::{CachedStore, conformance};

    let cached = std::sync::Arc::new(CachedStore::new(store, Duration::ZERO));
    // The cache takes an answer for as old as its question, which on a busy machine is more than these allow.
    let exact = [
        "a_touch_extends",
        "times_are_true",
        "a_claim_extends_as_a_touch_does",
    ];
    for case in conformance::CASES {
        if !exact.contains(case) {
            conformance::one(case, &cached, tokio::time::sleep).await;
        }
    }
}
