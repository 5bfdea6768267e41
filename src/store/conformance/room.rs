//! Room that is made before a session is created. A store that cannot is not asked.

use std::time::Duration;

use super::{
    case::{Case, session, terms},
    limits::{PAUSE, evict, evicted, limit},
};
use crate::{
    session::Session,
    store::{AtLimit, Created, EndReason, Limit, SessionStore, StoreErrorKind, Terms},
};

/// Room is made as [`create`](SessionStore::create) would make it: below the limit nobody goes for it, at the limit the
/// same session goes or the answer is the same, and a creation then evicts none.
pub async fn room_is_made_as_for_a_create<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let newcomer = session(&case.anonymous());
    let limited = Terms {
        total: limit(2),
        at_limit: evict(PAUSE),
        ..terms()
    };
    let Some(created) = make_room(store, &newcomer, &limited).await else {
        return;
    };
    assert!(
        matches!(
            created,
            Created::New {
                evicted: None,
                left: None | Some(2)
            }
        ),
        "there is room: {created:?}"
    );
    let oldest = case.created(&case.anonymous(), &limited).await;
    case.time.wait(PAUSE / 4).await;
    let other = case.created(&case.anonymous(), &limited).await;
    case.time.wait(PAUSE * 2).await;
    for refusing in [AtLimit::Refuse, evict(PAUSE * 100)] {
        let terms = Terms {
            at_limit: refusing,
            ..limited.clone()
        };
        let refused = make_room(store, &newcomer, &terms).await;
        assert_eq!(refused, Some(Created::Full(Limit::Total)), "none may go");
    }
    assert!(case.is_live(&oldest).await, "and none goes");
    let created = make_room(store, &newcomer, &limited).await;
    assert_eq!(
        created.as_ref().and_then(evicted),
        Some(*oldest.reference()),
        "the one that may go: {created:?}"
    );
    assert!(!case.is_live(&oldest).await, "one evicted is absent");
    let created = case.create(&newcomer, &limited).await;
    assert!(
        matches!(created, Created::New { evicted: None, .. }),
        "the room is there: {created:?}"
    );
    assert!(case.is_live(&other).await, "only one goes");
}

/// To make room inserts nothing and takes no room, and an id that is live, or an owner whose sessions were all ended
/// since, is answered as by [`create`](SessionStore::create).
pub async fn making_room_inserts_nothing<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let owner = case.owner("a");
    let newcomer = session(&owner);
    let limited = Terms {
        total: limit(2),
        per_principal: limit(1),
        ..terms()
    };
    for _ in 0..3 {
        let Some(created) = make_room(store, &newcomer, &limited).await else {
            return;
        };
        assert!(matches!(created, Created::New { .. }), "{created:?}");
        assert!(!case.is_live(&newcomer).await, "nothing is inserted");
    }
    case.created(&owner, &limited).await;
    let full = make_room(store, &newcomer, &limited).await;
    assert_eq!(full, Some(Created::Full(Limit::PerPrincipal)));
    let anonymous = case.created(&case.anonymous(), &limited).await;
    let full = make_room(store, &session(&case.owner("b")), &limited).await;
    assert_eq!(full, Some(Created::Full(Limit::Total)));
    let taken = make_room(store, &anonymous, &terms()).await;
    assert_eq!(taken, Some(Created::Exists));
    if let Some(directory) = store.directory() {
        let filter = crate::store::SessionFilter::Owner(owner.clone());
        let ended = directory.end_all(&filter, EndReason::Revoked).await;
        assert!(ended.is_ok(), "{ended:?}");
        let begun = Terms {
            started_ago: super::case::LONG,
            ..limited
        };
        let revoked = make_room(store, &newcomer, &begun).await;
        assert_eq!(revoked, Some(Created::Revoked));
    }
}

/// `None` if the store cannot.
async fn make_room(store: &impl SessionStore, session: &Session, terms: &Terms) -> Option<Created> {
    match store.make_room(session, terms).await {
        Err(error) if error.kind() == StoreErrorKind::Unsupported => None,
        answer => Some(answer.expect("make_room answers")),
    }
}
