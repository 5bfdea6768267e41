//! `delete`: what is ended stays ended.

use std::time::Duration;

use super::case::{Case, LONG, RACERS, at_once, session, terms};
use crate::{
    session::{Owner, Scope, Session},
    store::{EndReason, SessionFilter, SessionStore, StoreErrorKind},
};

/// Of many deletes of one session at once exactly one hears that it was live, and so does one for each other
/// reason to end it.
pub async fn of_many_deletes_one_is_true<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    assert!(
        !case.delete(&session(&case.anonymous())).await,
        "never created"
    );
    for reason in [EndReason::Deleted, EndReason::Revoked, EndReason::InnerGone] {
        let session = case.created(&case.owner("a"), &terms()).await;
        let answers = at_once((0..RACERS).map(|_| {
            let (store, id) = (store.clone(), session.id().clone());
            async move { store.delete(&id, reason).await.expect("delete answers") }
        }))
        .await;
        let ended = answers.into_iter().filter(|ended| *ended).count();
        assert_eq!(ended, 1, "of many deletes exactly one is true");
        assert!(!case.is_live(&session).await, "a deleted session is absent");
        assert!(!case.delete(&session).await, "a second delete");
    }
}

/// [`delete_idle`](SessionStore::delete_idle) deletes what has no more than so much time left, is heard as a delete is, and
/// spares everything else. Not asked of a store that cannot.
pub async fn what_is_touched_is_not_deleted_as_idle<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let session = case.created(&case.owner("a"), &terms()).await;
    let delete_idle = async |left| {
        let deleted = store
            .delete_idle(session.id(), left, EndReason::Evicted)
            .await;
        match deleted {
            Err(error) if error.kind() == StoreErrorKind::Unsupported => None,
            answer => Some(answer.expect("delete_idle answers")),
        }
    };
    assert!(case.touch(&session, LONG).await.is_some());
    let Some(deleted) = delete_idle(LONG / 2).await else {
        return;
    };
    assert!(!deleted, "it was touched just now");
    assert_eq!(delete_idle(Duration::ZERO).await, Some(false));
    assert!(case.is_live(&session).await, "it is spared");
    assert_eq!(
        delete_idle(Duration::MAX).await,
        Some(true),
        "all have less"
    );
    assert!(!case.is_live(&session).await, "a deleted session is absent");
    assert!(case.touch(&session, LONG).await.is_none(), "and stays so");
    assert_eq!(delete_idle(LONG * 2).await, Some(false), "it is gone");
    assert_eq!(delete_idle(Duration::MAX).await, Some(false), "it is gone");
}

/// Whatever touches or claims a session while it is ended, by whichever verb: afterwards it is absent.
pub async fn nothing_revives_a_session_while_it_is_ended<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    for round in 0..ROUNDS {
        // Each round has its own scope, which one round in three ends as a whole.
        let [anonymous, claimant] = [case.anonymous(), case.owner("a")].map(|owner| Owner {
            scope: Scope::new(format!("{}-{round}", case.scope)),
            ..owner
        });
        let session = case.created(&anonymous, &terms()).await;
        let answers = at_once((0..8).map(|racer| {
            let (store, session, claimant) = (store.clone(), session.clone(), claimant.clone());
            async move {
                let (id, owner) = (session.id(), session.owner());
                match racer {
                    0 => return end(&store, &session, round).await,
                    1 => drop(store.touch_now(id, owner, LONG)),
                    // A store that cannot claim says so.
                    2 => drop(store.claim(id, &claimant, LONG).await),
                    _ => drop(store.touch(id, owner, LONG).await.expect("touch answers")),
                }
                false
            }
        }))
        .await;
        assert!(answers[0], "the session is live when it is ended");
        assert!(!case.is_live(&session).await, "load after the end");
        for owner in [session.owner(), &claimant] {
            let touched = case.touch_as(owner, &session, LONG).await;
            assert!(touched.is_none(), "touch after the end");
        }
        assert!(!case.delete(&session).await, "a second end");
    }
}

/// Ends a session by one verb or another.
async fn end<S: SessionStore>(store: &S, session: &Session, round: usize) -> bool {
    let scope = &session.owner().scope;
    match (round % 3, store.directory()) {
        (1, Some(directory)) => directory
            .end(scope, session.reference(), EndReason::Revoked)
            .await
            .expect("end answers"),
        (2, Some(directory)) => {
            let everyone = SessionFilter::Scope(scope.clone());
            let ended = directory.end_all(&everyone, EndReason::Revoked).await;
            ended.expect("end_all answers") == 1
        }
        _ => store
            .delete(session.id(), EndReason::Deleted)
            .await
            .expect("delete answers"),
    }
}

const ROUNDS: usize = 18;
