//! Whom a session answers to.

use std::time::Duration;

use super::{
    case::{Case, LONG, SHORT, granted, terms, terms_of_idle, unique},
    time::ROUNDING,
};
use crate::{
    session::{Owner, Principal, Scope},
    store::{Now, SessionStore},
};

/// A touch finds a session only for its own owner: nobody is not the empty name, and no two names and no two
/// scopes are alike.
pub async fn the_owner_is_compared_both_ways<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    for owners in [of_one_scope(&case.scope), of_many_scopes(&case.scope)] {
        let mut sessions = Vec::new();
        for owner in &owners {
            sessions.push(case.created(owner, &terms()).await);
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
}

/// A stranger's touch changes nothing: neither a session in use nor a new session gets any more time from it.
pub async fn a_strangers_touch_changes_nothing<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let terms = terms_of_idle(SHORT);
    let mut created = Vec::new();
    for owner in [case.owner("a"), case.anonymous()] {
        let (session, creation) = case.timed(case.created(&owner, &terms)).await;
        created.push((
            session,
            creation,
            SHORT,
            "a new session touched by a stranger",
        ));
        let session = case.created(&owner, &terms).await;
        let (_, touch) = case.timed(case.touch(&session, SHORT)).await;
        let most = granted(SHORT);
        created.push((session, touch, most, "a session touched by a stranger"));
    }
    for (session, span, most, what) in &created {
        let strangers = [case.owner("b"), case.owner("a"), case.anonymous()];
        for stranger in strangers.iter().filter(|owner| *owner != session.owner()) {
            let touched = case.touch_as(stranger, session, LONG).await;
            assert!(touched.is_none(), "{what} is not found by it");
            let now = store.touch_now(session.id(), stranger, LONG);
            assert!(!matches!(now, Now::Live(_)), "{what} is not found by it");
        }
        if let Some(found) = case.load(session).await {
            assert_eq!(found.session.record(), session.record(), "{what}");
            assert!(
                found.idle_left <= *most + ROUNDING,
                "{what} gets no time: {found:?}"
            );
        } else {
            let within = case.time.surely_within(*span, SHORT);
            assert!(!within, "{what} stays live");
        }
    }
    for (session, span, most, what) in &created {
        case.is_absent_from(session, *span, *most, what).await;
    }
}

/// Owners that some comparison would take for one another.
fn of_one_scope(scope: &Scope) -> Vec<Owner> {
    let names = [
        "", " ", "alice", "Alice", "alice ", "ALICE\0", "al_ce", "al%", "NULL", "null", "e\u{301}",
        "\u{E9}",
    ];
    let names = names.into_iter().map(Some).chain([None]);
    names.map(|name| owner(scope.clone(), name)).collect()
}

/// Owners in scopes that some comparison would take for one another.
fn of_many_scopes(scope: &Scope) -> Vec<Owner> {
    let another = unique("another");
    let scopes = [
        scope.to_string(),
        scope.as_str().to_uppercase(),
        format!("{scope} "),
        format!("{scope}:alice"),
        another,
    ];
    let scopes = scopes.map(Scope::new);
    let each =
        |scope: &Scope| [None, Some(""), Some("alice")].map(|name| owner(scope.clone(), name));
    scopes.iter().flat_map(each).collect()
}

fn owner(scope: Scope, name: Option<&str>) -> Owner {
    Owner {
        scope,
        principal: name.map(Principal::new),
    }
}
