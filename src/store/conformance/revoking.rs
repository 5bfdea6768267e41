//! `directory`: ends all that are meant, also those that are being created. Not asked of a store that has none.

use std::time::Duration;

use super::case::{Case, LONG, RACERS, SHORT, at_once, session, terms, unique};
use crate::{
    session::{Owner, Principal, Scope},
    store::{AtLimit, Created, EndReason, SessionFilter, SessionStore, Terms},
};

/// [`Directory::end_all`] ends the sessions that are meant, says how many were live, and leaves the others.
///
/// [`Directory::end_all`]: crate::store::Directory::end_all
pub async fn end_all_ends_those_and_no_others<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let Some(directory) = store.directory() else {
        return;
    };
    let elsewhere = Owner {
        scope: Scope::new(unique("elsewhere")),
        ..case.owner("a")
    };
    let owners = [case.owner("a"), case.owner(""), case.anonymous(), elsewhere];
    let mut sessions = Vec::new();
    for _ in 0..3 {
        for owner in &owners {
            sessions.push(case.created(owner, &terms()).await);
        }
    }
    case.delete(&sessions[0]).await;
    let mut meant = vec![];
    for (filter, expected) in [
        (SessionFilter::Owner(owners[0].clone()), 2),
        (SessionFilter::Owner(owners[0].clone()), 0),
        (SessionFilter::Owner(owners[2].clone()), 3),
        (SessionFilter::Scope(case.scope.clone()), 3),
        (SessionFilter::Scope(case.scope.clone()), 0),
    ] {
        let ended = directory.end_all(&filter, EndReason::Revoked).await;
        assert_eq!(ended.expect("end_all answers"), expected, "{filter:?}");
        meant.push(filter);
        for session in &sessions[1..] {
            let ended = meant.iter().any(|filter| filter.includes(session.owner()));
            let live = case.is_live(session).await;
            assert_eq!(live, !ended, "after {meant:?}: {:?}", session.owner());
        }
    }
}

/// Creations that began before [`Directory::end_all`] and are recorded at the same moment are either ended by it and
/// counted, or revoked. None is live afterwards.
///
/// [`Directory::end_all`]: crate::store::Directory::end_all
pub async fn no_create_slips_past_end_all<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    if store.directory().is_none() {
        return;
    }
    for round in 0..ROUNDS {
        let owner = Owner {
            scope: Scope::new(unique("scope")),
            ..case.owner("a")
        };
        let filter = match round % 2 {
            0 => SessionFilter::Owner(owner.clone()),
            _ => SessionFilter::Scope(owner.scope.clone()),
        };
        let answers = at_once((0..RACERS).map(|racer| {
            let (store, filter, newcomer) = (store.clone(), filter.clone(), session(&owner));
            let terms = Terms {
                started_ago: LONG / 2,
                ..terms()
            };
            async move {
                if racer == RACERS / 2 {
                    let directory = store.directory().expect("it had one before");
                    let ended = directory.end_all(&filter, EndReason::Revoked).await;
                    return (newcomer, None, ended.expect("end_all answers"));
                }
                let created = store.create(&newcomer, &terms).await;
                (newcomer, Some(created.expect("create answers")), 0)
            }
        }))
        .await;
        let ended: u64 = answers.iter().map(|(.., ended)| ended).sum();
        let mut new = 0;
        for (session, created, _) in &answers {
            let live = case.is_live(session).await;
            assert!(!live, "a creation slipped past the end of all: {created:?}");
            match created {
                Some(Created::New { .. }) => new += 1,
                None | Some(Created::Revoked) => {}
                other => panic!("a creation before the end of all: {other:?}"),
            }
        }
        assert_eq!(ended, new, "what was new is what was ended");
    }
}

/// A creation that began before [`Directory::end_all`] of its owner or scope and is recorded after it answers
/// [`Created::Revoked`]. One that began later, or that was not meant, is new.
///
/// [`Directory::end_all`]: crate::store::Directory::end_all
pub async fn a_create_that_began_before_end_all_is_revoked<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let Some(directory) = store.directory() else {
        return;
    };
    let owner = case.owner("a");
    let scope = Scope::new(unique("elsewhere"));
    let [elsewhere, anonymous_elsewhere] = [Some("a"), None].map(|name| Owner {
        scope: scope.clone(),
        principal: name.map(Principal::new),
    });
    let bystanders = [case.owner("b"), case.owner(""), case.anonymous()];
    let meant = [&owner, &elsewhere, &anonymous_elsewhere];

    let calls = async {
        for filter in [
            SessionFilter::Owner(owner.clone()),
            SessionFilter::Scope(scope.clone()),
        ] {
            let ended = directory.end_all(&filter, EndReason::Revoked).await;
            assert_eq!(ended.expect("end_all answers"), 0, "there were none");
        }
    };
    let ((), end) = case.timed(calls).await;
    case.time.wait(SHORT / 2).await;
    let begun = async |owner: &Owner, started_ago: Duration| {
        let newcomer = session(owner);
        let created = case
            .create(
                &newcomer,
                &Terms {
                    started_ago,
                    ..terms()
                },
            )
            .await;
        let is_new = matches!(created, Created::New { .. });
        assert_eq!(case.is_live(&newcomer).await, is_new, "{created:?}");
        created
    };
    for owner in meant {
        // Far enough before that no slow call can make it after.
        for before in [LONG / 24, LONG / 4] {
            let created = begun(owner, case.time.since(end.before) + before).await;
            assert_eq!(created, Created::Revoked, "begun before, recorded after");
        }
        for after in [Duration::ZERO, SHORT / 4] {
            let created = begun(owner, after).await;
            assert!(
                matches!(created, Created::New { .. }),
                "begun after the end of all: {created:?}"
            );
        }
    }
    for owner in &bystanders {
        let created = begun(owner, LONG).await;
        assert!(
            matches!(created, Created::New { .. }),
            "not meant: {created:?}"
        );
    }
    let full = Terms {
        started_ago: LONG,
        total: 1.try_into().ok(),
        at_limit: AtLimit::Evict {
            unused: Duration::ZERO,
            untouched: Duration::ZERO,
        },
        ..terms()
    };
    let everyone = SessionFilter::Scope(case.scope.clone());
    let before = directory.count(&everyone).await.expect("count answers");
    let created = case.create(&session(&owner), &full).await;
    assert_eq!(created, Created::Revoked);
    let after = directory.count(&everyone).await.expect("count answers");
    assert_eq!(before, after, "one that is revoked evicts nobody");
    // To end one session is not to revoke its owner.
    let one = case.created(&bystanders[0], &terms()).await;
    let end = directory.end(&case.scope, one.reference(), EndReason::Revoked);
    assert!(end.await.expect("end answers"));
    let created = begun(&bystanders[0], LONG).await;
    assert!(matches!(created, Created::New { .. }), "{created:?}");
}

const ROUNDS: usize = 6;
