//! `delete`: what is ended stays ended.

use std::time::Duration;

use super::case::{Case, LONG, RACERS, at_once, session, terms};
use crate::store::{EndReason, SessionStore};

/// Of many deletes of one session at once exactly one hears that it was live, and so does one for each other
/// reason to end it.
pub async fn of_many_deletes_one_is_true<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    assert!(
        !case.delete(&session(&case.nobody())).await,
        "never created"
    );
    for reason in [EndReason::Deleted, EndReason::Revoked, EndReason::InnerGone] {
        let session = case.born(&case.owner("a"), &terms()).await;
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

/// Whatever touches or claims a session while it is deleted: afterwards it is absent.
pub async fn nothing_revives_a_session_while_it_is_deleted<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    for _ in 0..16 {
        let session = case.born(&case.nobody(), &terms()).await;
        let claimant = case.owner("a");
        let answers = at_once((0..8).map(|racer| {
            let (store, session, claimant) = (store.clone(), session.clone(), claimant.clone());
            async move {
                let id = session.id();
                match racer {
                    0 => {
                        return store
                            .delete(id, EndReason::Deleted)
                            .await
                            .expect("delete answers");
                    }
                    1 => drop(store.touch_now(id, session.owner(), LONG)),
                    // A store that cannot claim says so.
                    2 => drop(store.claim(id, &claimant, LONG).await),
                    _ => drop(
                        store
                            .touch(id, session.owner(), LONG)
                            .await
                            .expect("touch answers"),
                    ),
                }
                false
            }
        }))
        .await;
        assert!(answers[0], "the delete finds the session live");
        assert!(!case.is_live(&session).await, "load after the delete");
        for owner in [session.owner(), &claimant] {
            let touched = case.touch_as(owner, &session, LONG).await;
            assert!(touched.is_none(), "touch after the delete");
        }
        assert!(!case.delete(&session).await, "a second delete");
    }
}
