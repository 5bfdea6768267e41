//! What every case starts from: a store, a clock, and a scope that nobody else has.

use std::{future::Future, panic::resume_unwind, sync::Arc, time::Duration};

use tokio::sync::Barrier;

use super::time::{Span, Time};
use crate::{
    protocol::SessionId,
    session::{Issuer, Owner, Principal, Scope, Session, SessionRecord},
    store::{AtLimit, Created, EndReason, Found, SessionStore, Terms},
};

pub(super) struct Case<'a, S, W> {
    pub(super) store: &'a S,
    pub(super) time: Time<W>,
    pub(super) scope: Scope,
}

impl<'a, S: SessionStore + Clone, W: AsyncFn(Duration)> Case<'a, S, W> {
    pub(super) async fn new(store: &'a S, wait: W) -> Self {
        Self {
            store,
            time: Time::new(wait).await,
            scope: Scope::new(unique("scope")),
        }
    }

    /// The owner of this name in this case's scope.
    pub(super) fn owner(&self, name: &str) -> Owner {
        Owner {
            scope: self.scope.clone(),
            principal: Some(Principal::new(name)),
        }
    }

    pub(super) fn anonymous(&self) -> Owner {
        Owner {
            scope: self.scope.clone(),
            principal: None,
        }
    }

    pub(super) async fn create(&self, session: &Session, terms: &Terms) -> Created {
        self.store
            .create(session, terms)
            .await
            .expect("create answers")
    }

    pub(super) async fn load(&self, session: &Session) -> Option<Found> {
        self.store.load(session.id()).await.expect("load answers")
    }

    pub(super) async fn is_live(&self, session: &Session) -> bool {
        self.load(session).await.is_some()
    }

    /// A touch by the owner.
    pub(super) async fn touch(&self, session: &Session, idle: Duration) -> Option<Found> {
        self.touch_as(session.owner(), session, idle).await
    }

    pub(super) async fn touch_as(
        &self,
        owner: &Owner,
        session: &Session,
        idle: Duration,
    ) -> Option<Found> {
        self.store
            .touch(session.id(), owner, idle)
            .await
            .expect("touch answers")
    }

    pub(super) async fn delete(&self, session: &Session) -> bool {
        self.store
            .delete(session.id(), EndReason::Deleted)
            .await
            .expect("delete answers")
    }

    /// A new session of this owner, created on these terms.
    pub(super) async fn created(&self, owner: &Owner, terms: &Terms) -> Session {
        let session = session(owner);
        let created = self.create(&session, terms).await;
        assert!(
            matches!(created, Created::New { .. }),
            "a session with a new id is created: {created:?}"
        );
        session
    }

    /// The answer of a call, and when it was made.
    pub(super) async fn timed<T>(&self, call: impl Future<Output = T>) -> (T, Span) {
        let before = self.time.now();
        let answer = call.await;
        let after = self.time.now();
        (answer, Span { before, after })
    }

    /// Waits until shortly before a time that began with this call is up: the session must be live.
    pub(super) async fn is_live_until(
        &self,
        session: &Session,
        span: Span,
        lasts: Duration,
        what: &str,
    ) {
        self.time.until_almost(span, lasts).await;
        let live = self.is_live(session).await;
        if self.time.surely_within(span, lasts) {
            assert!(live, "{what}: live until its time is up");
        }
    }

    /// Waits until a time that began with this call is up: the session must be absent.
    pub(super) async fn is_absent_from(
        &self,
        session: &Session,
        span: Span,
        lasts: Duration,
        what: &str,
    ) {
        self.time.until_over(span, lasts).await;
        let live = self.is_live(session).await;
        assert!(!live, "{what}: absent once its time is up");
    }
}

/// Makes this call many times at once, each in a task of its own, and returns the answers.
pub(super) async fn at_once<T, F>(calls: impl IntoIterator<Item = F>) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let calls: Vec<F> = calls.into_iter().collect();
    let start = Arc::new(Barrier::new(calls.len()));
    let tasks: Vec<_> = calls
        .into_iter()
        .map(|call| {
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                start.wait().await;
                call.await
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        match task.await {
            Ok(answer) => answers.push(answer),
            Err(error) => resume_unwind(error.into_panic()),
        }
    }
    answers
}

/// A session of this owner with a new id.
pub(super) fn session(owner: &Owner) -> Session {
    Session::new(
        SessionId::issue(),
        SessionRecord::new(owner.clone(), Issuer::Layer),
    )
}

/// Terms under which nothing happens during a case.
pub(super) fn terms() -> Terms {
    Terms {
        idle: LONG,
        initial_idle: LONG,
        life: None,
        total: None,
        per_principal: None,
        at_limit: AtLimit::Refuse,
        started_ago: Duration::ZERO,
    }
}

/// Terms under which a session lives for this long at a time.
pub(super) fn terms_of_idle(idle: Duration) -> Terms {
    Terms {
        idle,
        initial_idle: idle,
        ..terms()
    }
}

/// The longest time that a touch may leave: it may grant a sixteenth more than it was given, so that the next ones need
/// not be written.
pub(super) fn granted(idle: Duration) -> Duration {
    idle + idle / 16
}

/// A name that nobody else has.
pub(super) fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4())
}

/// Longer than a case takes, and short enough to leave a shared database soon.
pub(super) const LONG: Duration = Duration::from_secs(120);

/// A time that a case waits for: several times what a slow call takes.
pub(super) const SHORT: Duration = Duration::from_millis(700);

/// How many calls race for one thing.
pub(super) const RACERS: usize = 32;
