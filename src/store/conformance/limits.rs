//! How many sessions there may be, and which goes for another.

use std::{collections::HashSet, num::NonZeroU64, time::Duration};

use super::case::{
    Case, LONG, RACERS, SHORT, at_once, granted, session, terms, terms_of_idle, unique,
};
use crate::{
    session::{Issuer, Owner, Scope, Session, SessionRecord},
    store::{AtLimit, Created, EndReason, Limit, SessionStore, Terms},
};

/// One after another, [`Terms::total`] creations of a scope are new, whoever's they are, and the next finds no room.
/// Other scopes do not count.
pub async fn the_total_is_limited<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let limited = Terms {
        total: limit(4),
        ..terms()
    };
    let elsewhere = Owner {
        scope: Scope::new(unique("elsewhere")),
        principal: None,
    };
    for _ in 0..5 {
        case.created(&elsewhere, &terms()).await;
    }
    let owners = [
        case.anonymous(),
        case.owner("a"),
        case.owner("b"),
        case.owner("a"),
    ];
    for (owner, left) in owners.iter().zip([3, 2, 1, 0]) {
        let created = case.create(&session(owner), &limited).await;
        let Created::New {
            left: said,
            evicted: None,
        } = created
        else {
            panic!("below the limit a creation is new: {created:?}");
        };
        assert!(
            said.is_none_or(|said| said == left),
            "{left} are left, not {said:?}"
        );
    }
    for owner in &owners {
        let newcomer = session(owner);
        let created = case.create(&newcomer, &limited).await;
        assert_eq!(created, Created::Full(Limit::Total), "at the limit");
        assert!(!case.is_live(&newcomer).await, "one refused is not live");
    }
    // The limit belongs to a creation, not to the scope: whoever is allowed more gets more.
    case.created(&case.anonymous(), &terms()).await;
    let created = case.create(&session(&case.anonymous()), &limited).await;
    assert_eq!(created, Created::Full(Limit::Total), "above the limit");
}

/// One after another, [`Terms::per_principal`] creations of one principal in one scope are new, and the next finds no
/// room. Other principals, and the same one in other scopes, do not count.
pub async fn each_principal_is_limited<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let limited = Terms {
        per_principal: limit(2),
        total: limit(100),
        ..terms()
    };
    let mut elsewhere = case.owner("a");
    elsewhere.scope = Scope::new(unique("elsewhere"));
    for _ in 0..3 {
        case.created(&elsewhere, &terms()).await;
        case.created(&case.anonymous(), &terms()).await;
    }
    for name in ["a", "", "A", "a "] {
        let owner = case.owner(name);
        case.created(&owner, &limited).await;
        let second = case.created(&owner, &limited).await;
        for _ in 0..2 {
            let newcomer = session(&owner);
            let created = case.create(&newcomer, &limited).await;
            assert_eq!(created, Created::Full(Limit::PerPrincipal), "{owner:?}");
            assert!(!case.is_live(&newcomer).await, "one refused is not live");
        }
        assert!(case.delete(&second).await);
        case.created(&owner, &limited).await;
        let created = case.create(&session(&owner), &limited).await;
        assert_eq!(created, Created::Full(Limit::PerPrincipal), "room for one");
    }
}

/// Sessions without a principal are not one principal's.
pub async fn anonymous_is_not_a_principal<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    for at_limit in [AtLimit::Refuse, evict(Duration::ZERO)] {
        let limited = Terms {
            per_principal: limit(1),
            at_limit,
            ..terms()
        };
        for _ in 0..3 {
            let created = case.create(&session(&case.anonymous()), &limited).await;
            assert!(
                matches!(created, Created::New { evicted: None, .. }),
                "nobody is not limited as a principal: {created:?}"
            );
        }
    }
}

/// What was deleted, ended or has expired takes no room, without anybody sweeping it away. Nobody is evicted while
/// it is counted out.
pub async fn the_absent_do_not_count<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let owner = case.owner("a");
    for limited in [
        Terms {
            total: limit(3),
            ..terms_of_idle(SHORT)
        },
        Terms {
            per_principal: limit(3),
            ..terms_of_idle(SHORT)
        },
    ] {
        let scope = Scope::new(unique("scope"));
        let owner = Owner {
            scope: scope.clone(),
            ..owner.clone()
        };
        let long = Terms {
            idle: LONG,
            initial_idle: LONG,
            ..limited.clone()
        };
        // Two by delete and by the directory.
        let full: Vec<_> = [
            case.created(&owner, &long).await,
            case.created(&owner, &long).await,
            case.created(&owner, &long).await,
        ]
        .into();
        assert!(matches!(
            case.create(&session(&owner), &long).await,
            Created::Full(_)
        ));
        assert!(case.delete(&full[0]).await);
        case.created(&owner, &long).await;
        if let Some(directory) = store.directory() {
            let reference = full[1].reference();
            let ended = directory.end(&scope, reference, EndReason::Revoked).await;
            assert!(ended.expect("end answers"));
            case.created(&owner, &long).await;
        }
        let created = case.create(&session(&owner), &long).await;
        assert!(matches!(created, Created::Full(_)), "{created:?}");

        // Three by expiry: one unused, one that was used, one at the end of its life.
        let owner = Owner {
            scope: Scope::new(unique("scope")),
            ..owner.clone()
        };
        case.created(&owner, &limited).await;
        let used = case.created(&owner, &limited).await;
        case.touch(&used, SHORT).await;
        let mortal = Terms {
            life: Some(SHORT),
            ..long.clone()
        };
        let (lived, creation) = case.timed(case.created(&owner, &mortal)).await;
        case.touch(&lived, LONG).await;
        let created = case.create(&session(&owner), &long).await;
        assert!(
            matches!(created, Created::Full(_)) || !case.time.surely_within(creation, SHORT),
            "{created:?}"
        );
        case.time.until_over(creation, granted(SHORT)).await;
        for _ in 0..3 {
            case.created(&owner, &long).await;
        }
        let created = case.create(&session(&owner), &long).await;
        assert!(matches!(created, Created::Full(_)), "{created:?}");

        // One by expiry where somebody else could be evicted.
        let owner = Owner {
            scope: Scope::new(unique("scope")),
            ..owner.clone()
        };
        let evicting = Terms {
            at_limit: evict(Duration::ZERO),
            ..long
        };
        case.created(&owner, &evicting).await;
        case.created(&owner, &evicting).await;
        let (_, creation) = case.timed(case.created(&owner, &limited)).await;
        case.time.until_over(creation, SHORT).await;
        let created = case.create(&session(&owner), &evicting).await;
        assert!(
            matches!(created, Created::New { evicted: None, .. }),
            "there is room: {created:?}"
        );
    }
}

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
    let owner = case.owner("a");
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(case.created(&owner, &limited).await);
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
        case.created(&case.owner("a"), &limited).await,
        case.created(&case.anonymous(), &limited).await,
    ];
    for session in &used {
        case.touch(session, BRIEF).await;
    }
    case.time.wait(PAUSE).await;
    let unused = case.created(&case.owner("a"), &limited).await;
    case.time.wait(PAUSE * 2).await;
    let created = case.create(&session(&case.owner("b")), &limited).await;
    assert_eq!(
        evicted(&created),
        Some(*unused.reference()),
        "the unused goes first: {created:?}"
    );
    for session in &used {
        assert!(case.is_live(session).await, "those in use stay");
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
            ..owner.clone()
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
    let used = case.created(&case.owner("a"), &limited).await;
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

/// A creation with an id that is live ends anonymous, although the scope is full.
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

/// Of creations at once at least as many as there is room for are new, what was refused is not live, and afterwards the
/// scope is full. A shared store may overshoot: [`limits_hold_at_once`] is for those that do not.
pub async fn creates_at_once_are_limited<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let limited = Terms {
        total: limit(ROOM),
        ..terms()
    };
    let new = rush(&case, &case.anonymous(), &limited).await;
    assert!(
        new >= ROOM,
        "{new} creations are new where {ROOM} have room"
    );
    let created = case.create(&session(&case.anonymous()), &limited).await;
    assert_eq!(
        created,
        Created::Full(Limit::Total),
        "afterwards it is full"
    );
}

/// Not among [`CASES`](super::CASES): limits are exact whatever happens at once. For a store in one process, or one
/// that promises it.
pub async fn limits_hold_at_once<S: SessionStore + Clone>(store: &S, wait: impl AsyncFn(Duration)) {
    let case = Case::new(store, wait).await;
    let total = Terms {
        total: limit(ROOM),
        ..terms()
    };
    let new = rush(&case, &case.anonymous(), &total).await;
    assert_eq!(new, ROOM, "the total is exact");

    let owner = Owner {
        scope: Scope::new(unique("scope")),
        ..case.owner("a")
    };
    let per_principal = Terms {
        per_principal: limit(ROOM),
        ..terms()
    };
    let new = rush(&case, &owner, &per_principal).await;
    assert_eq!(new, ROOM, "a principal's limit is exact");

    // With evictions the scope stays exactly full. Who went for whom is not asked: between an eviction and the creation
    // that it was for, another newcomer may take the room.
    let anonymous = Owner {
        scope: Scope::new(unique("scope")),
        principal: None,
    };
    let evicting = Terms {
        total: limit(ROOM),
        at_limit: evict(Duration::ZERO),
        ..terms()
    };
    let mut sessions = Vec::new();
    for _ in 0..ROOM {
        sessions.push(case.created(&anonymous, &evicting).await);
    }
    case.time.wait(PAUSE).await;
    let answers = creations(&case, &anonymous, &evicting).await;
    let evictions: Vec<_> = answers.iter().filter_map(|(_, c)| evicted(c)).collect();
    let distinct: HashSet<_> = evictions.iter().collect();
    assert_eq!(distinct.len(), evictions.len(), "nobody is evicted twice");
    sessions.extend(answers.into_iter().map(|(session, _)| session));
    let mut live = 0;
    for session in &sessions {
        let is_live = case.is_live(session).await;
        assert!(
            !(is_live && distinct.contains(session.reference())),
            "one evicted is absent"
        );
        live += u64::from(is_live);
    }
    assert_eq!(live, ROOM, "the scope stays exactly full");
}

/// How many of a rush of creations are new. Checks that these, and only these, are live.
async fn rush<S: SessionStore + Clone, W: AsyncFn(Duration)>(
    case: &Case<'_, S, W>,
    owner: &Owner,
    terms: &Terms,
) -> u64 {
    let mut new = 0;
    for (session, created) in creations(case, owner, terms).await {
        let is_new = matches!(created, Created::New { .. });
        assert!(is_new || matches!(created, Created::Full(_)), "{created:?}");
        assert_eq!(case.is_live(&session).await, is_new, "{created:?}");
        new += u64::from(is_new);
    }
    new
}

async fn creations<S: SessionStore + Clone, W: AsyncFn(Duration)>(
    case: &Case<'_, S, W>,
    owner: &Owner,
    terms: &Terms,
) -> Vec<(Session, Created)> {
    at_once((0..RACERS).map(|_| {
        let (store, session, terms) = (case.store.clone(), session(owner), terms.clone());
        async move {
            let created = store.create(&session, &terms).await;
            (session, created.expect("create answers"))
        }
    }))
    .await
}

fn evicted(created: &Created) -> Option<crate::protocol::SessionRef> {
    match created {
        Created::New { evicted, .. } => *evicted,
        _ => None,
    }
}

fn evict(untouched: Duration) -> AtLimit {
    AtLimit::Evict { untouched }
}

fn limit(sessions: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(sessions)
}

/// Room for a quarter of a rush.
const ROOM: u64 = RACERS as u64 / 4;

/// An idle time of which a sixteenth, by which a store may take a touch for later than it was, is short beside
/// [`PAUSE`]. The sessions live for longer, by the terms of their creation.
const BRIEF: Duration = SHORT;

/// Long enough that two touches have an order.
const PAUSE: Duration = Duration::from_millis(120);
