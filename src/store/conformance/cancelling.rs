//! Verbs dropped halfway: they took effect whole or not at all.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use super::case::{Case, LONG, session, terms};
use crate::{
    session::{Owner, Scope, Session},
    store::{Created, EndReason, SessionStore, Terms},
};

/// A creation that is dropped halfway leaves a whole session or none, and takes room only if it is live.
pub async fn a_cancelled_create_is_whole_or_not_at_all<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    for polls in 1..=MOST_POLLS {
        let owner = Owner {
            scope: Scope::new(super::case::unique("scope")),
            ..case.owner("a")
        };
        let alone = Terms {
            total: 1.try_into().ok(),
            ..terms()
        };
        let dropped = session(&owner);
        let answer = up_to(polls, store.create(&dropped, &alone)).await;
        settled(&case, &dropped).await;
        let found = case.load(&dropped).await;
        if let Some(found) = &found {
            assert_eq!(found.session.record(), dropped.record(), "a whole session");
            let touched = case.touch(&dropped, LONG).await;
            assert!(touched.is_some(), "a live session is its owner's");
        }
        let created = case.create(&session(&owner), &alone).await;
        assert_eq!(
            matches!(created, Created::New { .. }),
            found.is_none(),
            "it takes room if and only if it is live: {created:?}"
        );
        case.delete(&dropped).await;
        assert!(!case.is_live(&dropped).await, "a delete settles it");
        let again = case.create(&dropped, &terms()).await;
        assert!(
            matches!(again, Created::New { .. }),
            "its id is free: {again:?}"
        );
        if answer.is_some() {
            return;
        }
    }
}

/// A touch that is dropped halfway leaves the session as it was, or extended.
pub async fn a_cancelled_touch_harms_nothing<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    for polls in 1..=MOST_POLLS {
        let session = case.created(&case.owner("a"), &terms()).await;
        let touch = store.touch(session.id(), session.owner(), LONG * 2);
        let answer = up_to(polls, touch).await;
        case.time.wait(SETTLED).await;
        let found = case.load(&session).await.expect("it stays live");
        assert_eq!(found.session.record(), session.record(), "nothing is lost");
        let touched = case.touch(&session, LONG).await;
        assert!(touched.is_some(), "it can be touched again");
        assert!(case.delete(&session).await, "it can be ended");
        assert!(!case.is_live(&session).await, "and has ended");
        if answer.is_some() {
            return;
        }
    }
}

/// A delete that is dropped halfway leaves a whole session or none, and takes the room with it.
pub async fn a_cancelled_delete_is_whole_or_not_at_all<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    for polls in 1..=MOST_POLLS {
        let owner = Owner {
            scope: Scope::new(super::case::unique("scope")),
            ..case.owner("a")
        };
        let alone = Terms {
            per_principal: 1.try_into().ok(),
            ..terms()
        };
        let dropped = case.created(&owner, &alone).await;
        let answer = up_to(polls, store.delete(dropped.id(), EndReason::Deleted)).await;
        let live = settled(&case, &dropped).await;
        if live {
            let touched = case.touch(&dropped, LONG).await;
            assert!(touched.is_some(), "what is live is its owner's");
        }
        let created = case.create(&session(&owner), &alone).await;
        assert_eq!(
            matches!(created, Created::New { .. }),
            !live,
            "it takes room if and only if it is live: {created:?}"
        );
        assert_eq!(case.delete(&dropped).await, live, "a second delete");
        assert!(!case.is_live(&dropped).await, "it has ended");
        if answer.is_some() {
            return;
        }
    }
}

/// Whether a session is live when what was sent before a drop has arrived.
async fn settled<S: SessionStore + Clone, W: AsyncFn(Duration)>(
    case: &Case<'_, S, W>,
    session: &Session,
) -> bool {
    let mut live = case.is_live(session).await;
    loop {
        case.time.wait(SETTLED).await;
        let was = std::mem::replace(&mut live, case.is_live(session).await);
        if was == live {
            return live;
        }
    }
}

/// The answer of a call that is dropped after it was polled this often without one.
async fn up_to<T>(polls: usize, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    let mut polled = 0;
    poll_fn(|cx| {
        polled += 1;
        match call.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if polled == polls => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A call that needs more polls than this has been dropped in enough places.
const MOST_POLLS: usize = 8;

/// How long nothing may change until what was sent before a drop counts as arrived.
const SETTLED: Duration = Duration::from_millis(200);
