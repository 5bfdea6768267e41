//! How many sessions there may be.

use std::{collections::HashSet, num::NonZeroU64, time::Duration};

use super::case::{
    Case, LONG, RACERS, SHORT, at_once, granted, session, terms, terms_of_idle, unique,
};
use crate::{
    session::{Owner, Scope, Session},
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

        // Three by expiry: one never used, one that was, one at the end of its life.
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

pub(super) fn evicted(created: &Created) -> Option<crate::protocol::SessionRef> {
    match created {
        Created::New { evicted, .. } => *evicted,
        _ => None,
    }
}

/// Those may go that were left alone for this long, used or not.
pub(super) fn evict(patience: Duration) -> AtLimit {
    AtLimit::Evict {
        unused: patience,
        untouched: patience,
    }
}

pub(super) fn limit(sessions: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(sessions)
}

/// Room for a quarter of a rush.
const ROOM: u64 = RACERS as u64 / 4;

/// Long enough that two touches have an order.
pub(super) const PAUSE: Duration = Duration::from_millis(120);
