//! Which session goes for another when a limit is reached.

use std::time::Duration;

use super::{
    case::{Case, LONG, SHORT, session, terms, unique},
    limits::{PAUSE, evict, evicted, limit},
};
use crate::{
    session::{Issuer, Owner, Scope, Session, SessionRecord},
    store::{AtLimit, Created, Limit, SessionStore, Terms},
};

/// At a limit the session that was longest untouched goes for the newcomer, and no other.
pub async fn the_longest_untouched_is_evicted<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let limited = Terms {
        total: limit(3),
        at_limit: evict(PAUSE),
        ..terms()
    };
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(case.created(&case.anonymous(), &limited).await);
    }
    // Touched in another order than they were created.
    let [first, second, third] = [1, 2, 0].map(|i| sessions[i].clone());
    for session in [&first, &second, &third] {
        assert!(case.touch(session, BRIEF).await.is_some());
        case.time.wait(PAUSE).await;
    }
    case.time.wait(PAUSE).await;
    for (victim, others) in [(&first, [&second, &third]), (&second, [&third, &third])] {
        let newcomer = session(&case.anonymous());
        let created = case.create(&newcomer, &limited).await;
        assert_eq!(
            evicted(&created),
            Some(*victim.reference()),
            "the one longest untouched goes: {created:?}"
        );
        assert!(!case.is_live(victim).await, "one evicted is absent");
        assert!(case.touch(victim, LONG).await.is_none(), "and stays so");
        assert!(case.is_live(&newcomer).await, "the newcomer is in");
        case.touch(&newcomer, LONG).await;
        for other in others {
            assert!(case.is_live(other).await, "nobody else goes");
        }
    }
}

/// A session without any request since its creation goes before those that have been used, however old they are.
pub async fn an_unused_session_is_evicted_first<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let limited = Terms {
        total: limit(3),
        at_limit: evict(PAUSE),
        ..terms()
    };
    let used = [
        case.created(&case.anonymous(), &limited).await,
        case.created(&case.anonymous(), &limited).await,
    ];
    for session in &used {
        case.touch(session, BRIEF).await;
    }
    case.time.wait(PAUSE).await;
    let unused = case.created(&case.anonymous(), &limited).await;
    case.time.wait(PAUSE * 2).await;
    let created = case.create(&session(&case.owner("b")), &limited).await;
    assert_eq!(
        evicted(&created),
        Some(*unused.reference()),
        "the unused one goes first: {created:?}"
    );
    for session in &used {
        assert!(case.is_live(session).await, "those in use stay");
    }
}

/// Of several sessions without any request since their creation the oldest goes first.
pub async fn the_oldest_unused_is_evicted<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let limited = Terms {
        total: limit(3),
        per_principal: limit(3),
        at_limit: evict(PAUSE),
        ..terms()
    };
    for owner in [case.anonymous(), case.owner("a")] {
        let owner = Owner {
            scope: Scope::new(unique("scope")),
            ..owner
        };
        let mut unused = Vec::new();
        for _ in 0..3 {
            unused.push(case.created(&owner, &limited).await);
            case.time.wait(PAUSE / 4).await;
        }
        case.time.wait(PAUSE * 2).await;
        for oldest in &unused {
            let created = case.create(&session(&owner), &limited).await;
            assert_eq!(
                evicted(&created),
                Some(*oldest.reference()),
                "the oldest goes first: {created:?}"
            );
        }
    }
}

/// [`AtLimit::Evict`] has a time for sessions without any request since their creation and another for those that had
/// one, and neither is taken for the other.
///
/// [`AtLimit::Evict`]: crate::store::AtLimit::Evict
pub async fn the_unused_have_a_time_of_their_own<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    for (unused_time, untouched, the_unused_goes) in [(PAUSE, LONG, true), (LONG, PAUSE, false)] {
        let limited = Terms {
            total: limit(2),
            at_limit: AtLimit::Evict {
                unused: unused_time,
                untouched,
            },
            ..terms()
        };
        let owner = Owner {
            scope: Scope::new(unique("scope")),
            principal: None,
        };
        let unused = case.created(&owner, &limited).await;
        let used = case.created(&owner, &limited).await;
        case.touch(&used, BRIEF).await;
        case.time.wait(PAUSE * 2).await;
        let (victim, other) = match the_unused_goes {
            true => (&unused, &used),
            false => (&used, &unused),
        };
        let created = case.create(&session(&owner), &limited).await;
        assert_eq!(
            evicted(&created),
            Some(*victim.reference()),
            "the one whose time is up: {created:?}"
        );
        let created = case.create(&session(&owner), &limited).await;
        // Unless the newcomer's own time is up.
        if !the_unused_goes {
            assert_eq!(created, Created::Full(Limit::Total), "nobody else may go");
        }
        assert!(case.is_live(other).await, "the other's time is not up");
    }
}

/// For somebody else's no principal's session goes, nor for the principal's own at the limit on all sessions: used or
/// not, and however long untouched.
pub async fn no_principal_goes_for_another<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let limited = Terms {
        total: limit(4),
        at_limit: evict(PAUSE),
        ..terms()
    };
    let (a, b) = (case.owner("a"), case.owner("b"));
    let mut theirs = Vec::new();
    for owner in [&a, &a, &b] {
        theirs.push(case.created(owner, &limited).await);
    }
    case.touch(&theirs[0], BRIEF).await;
    case.time.wait(PAUSE).await;
    let anonymous = case.created(&case.anonymous(), &limited).await;
    case.touch(&anonymous, BRIEF).await;
    case.time.wait(PAUSE * 2).await;
    let created = case.create(&session(&a), &limited).await;
    assert_eq!(
        evicted(&created),
        Some(*anonymous.reference()),
        "the anonymous one goes, though touched last: {created:?}"
    );
    case.time.wait(PAUSE * 2).await;
    for owner in [&a, &b, &case.owner("c"), &case.anonymous()] {
        let created = case.create(&session(owner), &limited).await;
        assert_eq!(created, Created::Full(Limit::Total), "for {owner:?}");
    }
    for session in &theirs {
        assert!(case.is_live(session).await, "a principal's session stays");
    }
}

/// At a principal's limit one of its own goes, although others' are longer untouched, and although the scope is
/// full as well.
pub async fn a_principal_evicts_its_own<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    for total in [None, limit(4)] {
        let (a, b) = (unique("a"), unique("b"));
        let scope = Scope::new(unique("scope"));
        let [a, b] = [a, b].map(|name| Owner {
            scope: scope.clone(),
            ..case.owner(&name)
        });
        let anonymous = Owner {
            scope: scope.clone(),
            principal: None,
        };
        let limited = Terms {
            total,
            per_principal: limit(2),
            at_limit: evict(PAUSE),
            ..terms()
        };
        let others = [
            case.created(&b, &limited).await,
            case.created(&anonymous, &limited).await,
        ];
        let own = [
            case.created(&a, &limited).await,
            case.created(&a, &limited).await,
        ];
        for session in others.iter().chain(&own) {
            case.touch(session, BRIEF).await;
            case.time.wait(PAUSE / 4).await;
        }
        case.time.wait(PAUSE * 2).await;
        let created = case.create(&session(&a), &limited).await;
        assert_eq!(
            evicted(&created),
            Some(*own[0].reference()),
            "the principal's own goes: {created:?}"
        );
        for other in &others {
            assert!(case.is_live(other).await, "others stay");
        }
        assert!(case.is_live(&own[1]).await, "only one goes");
    }
}

/// A session touched within [`AtLimit::Evict`]'s `untouched` is never ended for another: if there is no other, the
/// newcomer is refused.
///
/// [`AtLimit::Evict`]: crate::store::AtLimit::Evict
pub async fn one_in_use_is_not_evicted<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let owner = case.owner("a");
    for (limited, full) in [
        (
            Terms {
                total: limit(2),
                ..terms()
            },
            Limit::Total,
        ),
        (
            Terms {
                per_principal: limit(2),
                ..terms()
            },
            Limit::PerPrincipal,
        ),
    ] {
        let limited = Terms {
            at_limit: evict(LONG),
            ..limited
        };
        let owner = Owner {
            scope: Scope::new(unique("scope")),
            principal: match full {
                Limit::Total => None,
                Limit::PerPrincipal => owner.principal.clone(),
            },
        };
        let unused = case.created(&owner, &limited).await;
        let used = case.created(&owner, &limited).await;
        case.touch(&used, LONG).await;
        let newcomer = session(&owner);
        let created = case.create(&newcomer, &limited).await;
        assert_eq!(created, Created::Full(full), "none may go");
        assert!(!case.is_live(&newcomer).await, "one refused is not live");
        for session in [&unused, &used] {
            assert!(case.is_live(session).await, "one in use stays");
        }
    }
}

/// A touch counts as one, although it found so much time left that it was not written: a session that was touched
/// within [`AtLimit::Evict`]'s `untouched` stays, however long ago the touch before that was.
///
/// [`AtLimit::Evict`]: crate::store::AtLimit::Evict
pub async fn every_touch_keeps_from_eviction<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let limited = Terms {
        total: limit(1),
        at_limit: evict(SHORT),
        ..terms()
    };
    let used = case.created(&case.anonymous(), &limited).await;
    assert!(case.touch(&used, LONG).await.is_some());
    case.time.wait(SHORT * 3 / 2).await;
    let (touched, touch) = case.timed(case.touch(&used, LONG)).await;
    assert!(touched.is_some());
    let created = case.create(&session(&case.owner("b")), &limited).await;
    if case.time.surely_within(touch, SHORT) {
        assert_eq!(
            created,
            Created::Full(Limit::Total),
            "it was touched just now"
        );
        assert!(case.is_live(&used).await, "one in use stays");
    }
}

/// A creation with an id that is live evicts none, although the scope is full.
pub async fn a_create_that_exists_evicts_none<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let limited = Terms {
        total: limit(2),
        per_principal: limit(2),
        at_limit: evict(Duration::ZERO),
        ..terms()
    };
    let owner = case.owner("a");
    let sessions = [
        case.created(&owner, &limited).await,
        case.created(&owner, &limited).await,
    ];
    for session in &sessions {
        let record = SessionRecord::new(owner.clone(), Issuer::Inner);
        let again = Session::new(session.id().clone(), record);
        assert_eq!(case.create(&again, &limited).await, Created::Exists);
    }
    for session in &sessions {
        let found = case.load(session).await.expect("nobody is evicted");
        assert_eq!(found.session.record(), session.record());
    }
}

/// An idle time of which a sixteenth, by which a store may take a touch for later than it was, is short beside
/// [`PAUSE`]. The sessions live for longer, by the terms of their creation.
const BRIEF: Duration = SHORT;
