//! `change`: named values of sessions. Not asked of a store that cannot.

use std::time::Duration;

use super::{
    case::{Case, LONG, RACERS, SHORT, at_once, granted, session, terms, terms_of_idle},
    feed::{PATIENCE, listen, next},
};
use crate::{
    session::{Change, Owner, Session, Values},
    store::{Created, EndReason, FeedEvent, Found, SessionStore, StoreErrorKind},
};

/// Values are kept from the creation on, read by every verb that finds the session, and changed by name.
pub async fn values_are_kept_and_changed<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    if !can_change(&case).await {
        return;
    }
    let owner = case.owner("a");
    let mut record = session(&owner).record();
    record.values = values(&[("", ""), ("a\0", "é\"\n"), ("tenant", "acme")]);
    let with = Session::new(session(&owner).id().clone(), record);
    let created = case.create(&with, &terms()).await;
    assert!(matches!(created, Created::New { .. }), "{created:?}");
    let check = async |expected: &Values, what: &str| {
        let loaded = case.load(&with).await.expect("live");
        assert!(loaded.session.values() == *expected, "load {what}");
        let touched = case.touch(&with, LONG).await.expect("live");
        assert!(touched.session.values() == *expected, "touch {what}");
        // Of touches at once some need not be written.
        let touched = case.touch(&with, LONG).await.expect("live");
        assert!(touched.session.values() == *expected, "touch again {what}");
    };
    check(&with.values(), "after the creation").await;
    let change = Change::new()
        .set("tenant", "other")
        .set("locale", "de")
        .remove("");
    let found = change_of(store, &with, &owner, &change).await;
    let expected = values(&[("a\0", "é\"\n"), ("locale", "de"), ("tenant", "other")]);
    let found = found.expect("a live session is changed");
    assert!(found.session.values() == expected, "the change answers it");
    assert_eq!(found.session.owner(), &owner, "and nothing else is other");
    check(&expected, "after a change").await;
    // Once more, it changes nothing.
    let found = change_of(store, &with, &owner, &change).await;
    assert!(found.is_some_and(|found| found.session.values() == expected));
    let none = expected
        .iter()
        .fold(Change::new(), |change, (name, _)| change.remove(name));
    assert!(change_of(store, &with, &owner, &none).await.is_some());
    check(&Values::default(), "after all were removed").await;
    assert!(change_of(store, &with, &owner, &change).await.is_some());
    assert!(case.delete(&with).await, "it is ended");
    // Another one of its id has nothing of it.
    let bare = Session::new(with.id().clone(), session(&owner).record());
    let again = case.create(&bare, &terms()).await;
    assert!(matches!(again, Created::New { .. }), "{again:?}");
    check(&Values::default(), "after another creation").await;
}

/// A change that is too much, or made for other values, changes nothing at all.
pub async fn a_change_is_whole_or_not_at_all<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    if !can_change(&case).await {
        return;
    }
    let owner = case.owner("a");
    let session = case.created(&owner, &terms()).await;
    let full = "x".repeat(Values::MAX_BYTES - 1);
    let most = Change::new().set("a", full);
    assert!(change_of(store, &session, &owner, &most).await.is_some());
    let too_much = Change::new()
        .set("b", "")
        .set("a", "y".repeat(Values::MAX_BYTES - 1));
    let too_many = (0..=Values::MAX_NAMES).fold(Change::new().remove("a"), |change, nth| {
        change.set(nth.to_string(), "")
    });
    for change in [too_much, too_many] {
        let error = store.change(session.id(), &owner, &change).await;
        let error = error.expect_err("there is a limit");
        assert_eq!(error.kind(), StoreErrorKind::TooLarge, "{error:?}");
    }
    let unmet = Change::new()
        .set("b", "")
        .remove("a")
        .only_while("c", Some(""));
    let found = change_of(store, &session, &owner, &unmet).await;
    let found = found.expect("it is live").session.values();
    assert!(most.holds(&found) && found.len() == 1, "nothing is changed");
    let loaded = case.load(&session).await.expect("live").session.values();
    assert!(loaded == found, "nothing is changed");
    let met = Change::new()
        .remove("a")
        .set("b", "1")
        .only_while("b", None);
    let found = change_of(store, &session, &owner, &met).await;
    assert!(found.is_some_and(|found| met.holds(&found.session.values())));
}

/// To another owner, in another scope and of a session that is gone there is nothing to change, and nothing comes to be.
pub async fn a_change_is_its_owners<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    if !can_change(&case).await {
        return;
    }
    let owner = case.owner("a");
    let elsewhere = Owner {
        scope: crate::session::Scope::new(super::case::unique("elsewhere")),
        ..owner.clone()
    };
    let live = case.created(&owner, &terms()).await;
    let change = Change::new().set("a", "1");
    for stranger in [case.owner("b"), case.anonymous(), elsewhere] {
        let changed = change_of(store, &live, &stranger, &change).await;
        assert!(changed.is_none(), "a stranger's change: {stranger:?}");
    }
    let kept = case.load(&live).await.expect("live").session.values();
    assert!(kept.is_empty(), "a stranger changes nothing");
    let ended = case.created(&owner, &terms()).await;
    assert!(case.delete(&ended).await);
    for gone in [ended, session(&owner)] {
        let changed = change_of(store, &gone, &owner, &change).await;
        assert!(changed.is_none(), "a change of what is gone");
        assert!(!case.is_live(&gone).await, "a change is no creation");
    }
}

/// Of many changes at once, of as many names, none is lost; and of those that are made for the same value one is made.
pub async fn of_many_changes_none_is_lost<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    if !can_change(&case).await {
        return;
    }
    let owner = case.owner("a");
    for _ in 0..ROUNDS {
        let session = case.created(&owner, &terms()).await;
        let racers = Values::MAX_NAMES.min(RACERS) - 1;
        let answers = at_once((0..racers).map(|racer| {
            let (store, session, owner) = (store.clone(), session.clone(), owner.clone());
            async move {
                let own = Change::new().set(racer.to_string(), "");
                let changed = change_of(&store, &session, &owner, &own).await;
                assert!(changed.is_some_and(|found| own.holds(&found.session.values())));
                let shared = Change::new()
                    .set("winner", racer.to_string())
                    .only_while("winner", None);
                let found = change_of(&store, &session, &owner, &shared).await;
                shared.holds(&found.expect("live").session.values())
            }
        }))
        .await;
        let winners = answers.into_iter().filter(|won| *won).count();
        assert_eq!(winners, 1, "of many for the same value one is made");
        let kept = case.load(&session).await.expect("live").session.values();
        assert_eq!(kept.len(), racers + 1, "no change is lost");
    }
}

/// A change is no use of a session: it extends nothing.
pub async fn a_change_extends_nothing<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    if !can_change(&case).await {
        return;
    }
    let owner = case.owner("a");
    let session = case.created(&owner, &terms_of_idle(SHORT)).await;
    let (_, touch) = case.timed(case.touch(&session, SHORT)).await;
    for nth in 0..4 {
        case.time.wait(SHORT / 8).await;
        let change = Change::new().set("nth", nth.to_string());
        change_of(store, &session, &owner, &change).await;
    }
    case.is_live_until(&session, touch, SHORT, "a session that is changed")
        .await;
    case.is_absent_from(&session, touch, granted(SHORT), "a session that is changed")
        .await;
    let late = Change::new().set("nth", "");
    let changed = change_of(store, &session, &owner, &late).await;
    assert!(changed.is_none(), "what is over is not changed");
    assert!(!case.is_live(&session).await, "nor revived");
}

/// Where there is a feed, a change is heard on it; one that changes nothing is not.
pub async fn a_change_is_heard<S: SessionStore + Clone>(store: &S, wait: impl AsyncFn(Duration)) {
    let case = Case::new(store, wait).await;
    if !can_change(&case).await {
        return;
    }
    let Some(mut feed) = listen(&case).await else {
        return;
    };
    let owner = case.owner("a");
    let session = case.created(&owner, &terms()).await;
    let change = Change::new().set("a", "1");
    for _ in 0..2 {
        assert!(change_of(store, &session, &owner, &change).await.is_some());
    }
    let ended = store.delete(session.id(), EndReason::Deleted).await;
    assert!(ended.expect("delete answers"));
    let (mut heard, mut gap) = (0, false);
    loop {
        match next(&case, &mut feed, PATIENCE).await {
            Some(FeedEvent::Changed { reference }) if reference == *session.reference() => {
                heard += 1;
            }
            Some(FeedEvent::Ended { reference, .. }) if reference == *session.reference() => break,
            Some(FeedEvent::Gap) => gap = true,
            Some(_) => {}
            None => panic!("an end is not heard"),
        }
    }
    assert!(
        heard == 1 || gap,
        "a change is heard once, not {heard} times"
    );
}

fn values(values: &[(&str, &str)]) -> Values {
    Values::of(values.iter().copied()).expect("they are few")
}

async fn change_of(
    store: &impl SessionStore,
    session: &Session,
    owner: &Owner,
    change: &Change,
) -> Option<Found> {
    let changed = store.change(session.id(), owner, change).await;
    changed.expect("change answers")
}

/// Whether the store has the verb at all.
async fn can_change<S: SessionStore + Clone, W: AsyncFn(Duration)>(case: &Case<'_, S, W>) -> bool {
    let owner = case.owner("a");
    let never = session(&owner);
    match case.store.change(never.id(), &owner, &Change::new()).await {
        Ok(None) => true,
        Ok(Some(found)) => panic!("a change of a session that never was: {found:?}"),
        Err(error) if error.kind() == StoreErrorKind::Unsupported => false,
        Err(error) => panic!("change answers: {error:?}"),
    }
}

const ROUNDS: usize = 4;
