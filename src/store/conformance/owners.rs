//! Whom a session answers to.

use std::time::Duration;

use super::case::{Case, LONG, SHORT, terms, terms_of_idle, unique};
use crate::{
    owner::{Owner, Principal, Scope},
    store::{Now, SessionStore},
};

/// A touch finds a session only for its own owner: nobody is not the empty name, and no two names and no two
/// scopes are alike.
pub async fn the_owner_is_compared_both_ways<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let owners = owners(&case.scope);
    let mut sessions = Vec::new();
    for owner in &owners {
        sessions.push(case.born(owner, &terms()).await);
    }
    for session in &sessions {
        for owner in &owners {
            let touched = case.touch_as(owner, session, LONG).await;
            assert_eq!(
                touched.is_some(),
                owner == session.owner(),
                "a touch by {owner:?} of a session of {:?}",
                session.owner()
            );
        }
    }
}

/// A stranger's touch changes nothing: neither a session in use nor a newborn gets any more time from it.
pub async fn a_strangers_touch_changes_nothing<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let terms = terms_of_idle(SHORT);
    let mut born = Vec::new();
    for owner in [case.owner("a"), case.nobody()] {
        let (session, birth) = case.timed(case.born(&owner, &terms)).await;
        born.push((session, birth, "a newborn touched by a stranger"));
        let session = case.born(&owner, &terms).await;
        let (_, touch) = case.timed(case.touch(&session, SHORT)).await;
        born.push((session, touch, "a session touched by a stranger"));
    }
    for (session, span, what) in &born {
        let strangers = [case.owner("b"), case.owner("a"), case.nobody()];
        for stranger in strangers.iter().filter(|owner| *owner != session.owner()) {
            let touched = case.touch_as(stranger, session, LONG).await;
            assert!(touched.is_none(), "{what} is not found by it");
            let now = store.touch_now(session.id(), stranger, LONG);
            assert!(!matches!(now, Now::Live(_)), "{what} is not found by it");
        }
        if let Some(found) = case.load(session).await {
            assert_eq!(found.session.record(), session.record(), "{what}");
            assert!(found.idle_left <= SHORT, "{what} gets no time: {found:?}");
        } else {
            let within = case.time.surely_within(*span, SHORT);
            assert!(!within, "{what} stays live");
        }
    }
    for (session, span, what) in &born {
        case.is_absent_from(session, *span, SHORT, what).await;
    }
}

/// Owners that some comparison would take for one another.
fn owners(scope: &Scope) -> Vec<Owner> {
    let mut owners = Vec::new();
    for scope in [
        scope.clone(),
        Scope::new(unique("another")),
        Scope::new(scope.as_str().to_uppercase()),
        Scope::new(format!("{scope} ")),
        Scope::new(format!("{scope}:alice")),
    ] {
        owners.push(Owner {
            scope: scope.clone(),
            principal: None,
        });
        for name in [
            "",
            " ",
            "alice",
            "Alice",
            "alice ",
            "ALICE\0",
            "al_ce",
            "al%",
            "NULL",
            "null",
            "e\u{301}",
            "\u{E9}",
            "alice:alice",
        ] {
            owners.push(Owner {
                scope: scope.clone(),
                principal: Some(Principal::new(name)),
            });
        }
    }
    owners
}
