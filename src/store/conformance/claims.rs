//! `claim`: the login of a client that was anonymous. Not asked of a store that cannot.

use std::time::Duration;

use super::{
    case::{Case, LONG, RACERS, SHORT, at_once, granted, session, terms, terms_of_idle, unique},
    feed::{PATIENCE, listen, next},
    time::ROUNDING,
};
use crate::{
    session::{Owner, Scope, Session},
    store::{Created, FeedEvent, Found, Limit, SessionFilter, SessionStore, StoreErrorKind, Terms},
};

/// A claim makes an anonymous session this owner's, once: from then on it answers to the new owner only.
pub async fn a_claim_gives_an_anonymous_session_an_owner<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    if !can_claim(&case).await {
        return;
    }
    let owner = case.owner("a");
    for touched_before in [false, true] {
        let session = case.created(&case.anonymous(), &terms()).await;
        if touched_before {
            case.touch(&session, LONG).await;
        }
        for _ in 0..2 {
            let found = claim(&case, &session, &owner).await;
            let found = found.expect("a claim of an anonymous session, and of one's own");
            assert_eq!(found.session.id(), session.id());
            assert_eq!(
                found.session.owner(),
                &owner,
                "the claim answers the new owner"
            );
        }
        let loaded = case.load(&session).await.expect("it stays live");
        let mut record = session.record();
        record.owner = owner.clone();
        assert_eq!(
            loaded.session.record(),
            record,
            "only the owner has changed"
        );
        assert!(
            case.touch_as(&owner, &session, LONG).await.is_some(),
            "it answers to the new owner"
        );
        assert!(
            case.touch_as(&case.anonymous(), &session, LONG)
                .await
                .is_none(),
            "it answers to nobody no longer"
        );
        assert!(
            claim(&case, &session, &case.anonymous()).await.is_none(),
            "it does not go back to nobody"
        );
        assert!(case.delete(&session).await);
    }
    let session = case.created(&case.anonymous(), &terms()).await;
    assert!(
        claim(&case, &session, &case.anonymous()).await.is_some(),
        "anonymous may claim an anonymous session"
    );
    assert!(
        case.touch(&session, LONG).await.is_some(),
        "and stays anonymous"
    );
}

/// A claim finds neither what is absent nor what is somebody else's or in another scope, and changes nothing
/// there.
pub async fn a_claim_takes_nothing_from_anybody<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    if !can_claim(&case).await {
        return;
    }
    let elsewhere = Owner {
        scope: Scope::new(unique("elsewhere")),
        principal: None,
    };
    let ended = case.created(&case.anonymous(), &terms()).await;
    assert!(case.delete(&ended).await);
    for (session, what) in [
        (
            case.created(&case.owner("b"), &terms()).await,
            "somebody else's",
        ),
        (
            case.created(&case.owner(""), &terms()).await,
            "the empty name's",
        ),
        (case.created(&elsewhere, &terms()).await, "another scope's"),
        (ended, "ended"),
    ] {
        let before = case.load(&session).await;
        for owner in [case.owner("a"), case.anonymous()] {
            let claimed = claim(&case, &session, &owner).await;
            assert!(claimed.is_none(), "a claim of {what}");
        }
        let after = case.load(&session).await;
        let record = |found: Option<Found>| found.map(|found| found.session.record());
        assert_eq!(
            record(after),
            record(before),
            "a claim changes nothing of {what}"
        );
    }
}

/// Of many claims of one session by different principals at once exactly one wins.
pub async fn of_many_claims_one_wins<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    if !can_claim(&case).await {
        return;
    }
    for _ in 0..ROUNDS {
        let session = case.created(&case.anonymous(), &terms()).await;
        let answers = at_once((0..RACERS).map(|racer| {
            let (store, session) = (store.clone(), session.clone());
            let (owner, anonymous) = (case.owner(&racer.to_string()), case.anonymous());
            async move {
                // Touches of the owner that it had race with the claims.
                let before = store.touch(session.id(), &anonymous, LONG).await;
                before.expect("touch answers");
                let claimed = store.claim(session.id(), &owner, LONG).await;
                let after = store.touch(session.id(), &anonymous, LONG).await;
                let after = after.expect("touch answers");
                assert!(after.is_none(), "once claimed, it is not anonymous");
                (owner, claimed.expect("claim answers").is_some())
            }
        }))
        .await;
        let winners: Vec<_> = answers.into_iter().filter(|(_, won)| *won).collect();
        assert_eq!(winners.len(), 1, "exactly one of many claims wins");
        let kept = case.load(&session).await.expect("it stays live");
        assert_eq!(kept.session.owner(), &winners[0].0, "the winner's it is");
    }
}

/// A claim extends as [`touch`](SessionStore::touch) does: it ends the initial idle time, and never shortens.
pub async fn a_claim_extends_as_a_touch_does<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    if !can_claim(&case).await {
        return;
    }
    let owner = case.owner("a");
    let (session, creation) = case
        .timed(case.created(&case.anonymous(), &terms_of_idle(SHORT)))
        .await;
    let found = claim(&case, &session, &owner).await;
    if case.time.surely_within(creation, SHORT) {
        let found = found.expect("a new session can be claimed");
        assert!(
            found.idle_left <= granted(LONG) + ROUNDING && found.idle_left + ROUNDING >= LONG,
            "a claim leaves the idle time that it was given: {found:?}"
        );
        case.time.until_over(creation, SHORT).await;
        let touched = store.touch(session.id(), &owner, SHORT).await;
        let found = touched
            .expect("touch answers")
            .expect("the claim extended it");
        assert!(found.idle_left > SHORT, "nothing shortens: {found:?}");
    }
}

/// A claimed session counts among its owner's: at limits, in lists, and when all of them are ended.
pub async fn a_claimed_session_counts_as_its_owners<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    if !can_claim(&case).await {
        return;
    }
    let owner = case.owner("a");
    let one_each = Terms {
        per_principal: 1.try_into().ok(),
        ..terms()
    };
    let claimed = case.created(&case.anonymous(), &terms()).await;
    assert!(claim(&case, &claimed, &owner).await.is_some());
    let created = case.create(&session(&owner), &one_each).await;
    assert_eq!(
        created,
        Created::Full(Limit::PerPrincipal),
        "a claimed session is one of its owner's"
    );
    assert!(case.delete(&claimed).await);
    case.created(&owner, &one_each).await;

    let Some(directory) = store.directory() else {
        return;
    };
    let owner = case.owner("b");
    let anonymous_ones = SessionFilter::Owner(case.anonymous());
    let owners = SessionFilter::Owner(owner.clone());
    let claimed = case.created(&case.anonymous(), &terms()).await;
    assert!(claim(&case, &claimed, &owner).await.is_some());
    for (filter, expected) in [(&anonymous_ones, 0), (&owners, 1)] {
        let count = directory.count(filter).await.expect("count answers");
        assert_eq!(count, expected, "count of {filter:?}");
        let listed = directory.list(filter, None, 9).await.expect("list answers");
        assert_eq!(listed.len() as u64, expected, "list of {filter:?}");
    }
    for (filter, expected) in [(&anonymous_ones, 0), (&owners, 1)] {
        let ended = directory.end_all(filter, crate::store::EndReason::Revoked);
        assert_eq!(ended.await.expect("end_all answers"), expected);
    }
    assert!(!case.is_live(&claimed).await, "ended with its owner's");
}

/// Where there is a feed, a claim is heard on it.
pub async fn a_claim_is_heard<S: SessionStore + Clone>(store: &S, wait: impl AsyncFn(Duration)) {
    let case = Case::new(store, wait).await;
    if !can_claim(&case).await {
        return;
    }
    let Some(mut feed) = listen(&case).await else {
        return;
    };
    let session = case.created(&case.anonymous(), &terms()).await;
    assert!(claim(&case, &session, &case.owner("a")).await.is_some());
    assert!(case.delete(&session).await);
    let mut is_heard = false;
    loop {
        match next(&case, &mut feed, PATIENCE).await {
            Some(FeedEvent::Ended { reference, .. }) if reference == *session.reference() => break,
            Some(FeedEvent::Changed { reference }) => is_heard |= reference == *session.reference(),
            Some(FeedEvent::Gap) => is_heard = true,
            Some(_) => {}
            None => panic!("an end is not heard"),
        }
    }
    assert!(is_heard, "a claim is heard");
}

async fn claim<S: SessionStore + Clone, W: AsyncFn(Duration)>(
    case: &Case<'_, S, W>,
    session: &Session,
    owner: &Owner,
) -> Option<Found> {
    let claimed = case.store.claim(session.id(), owner, LONG).await;
    claimed.expect("claim answers")
}

/// Whether the store has the verb at all.
async fn can_claim<S: SessionStore + Clone, W: AsyncFn(Duration)>(case: &Case<'_, S, W>) -> bool {
    let owner = case.owner("a");
    match case.store.claim(session(&owner).id(), &owner, LONG).await {
        Ok(None) => true,
        Ok(Some(found)) => panic!("a claim of a session that never was: {found:?}"),
        Err(error) if error.kind() == StoreErrorKind::Unsupported => false,
        Err(error) => panic!("claim answers: {error:?}"),
    }
}

const ROUNDS: usize = 4;
