//! Which session is evicted at a limit.

use std::collections::HashSet;

use super::*;
use crate::store::Limit;

#[tokio::test(start_paused = true)]
async fn at_a_limit_unused_sessions_go_first_then_the_longest_untouched_and_none_in_use() {
    let store = MemoryStore::new();
    let all: Vec<_> = (0..10)
        .map(|_| new_session(&store, &evicting(10)))
        .collect();
    let full = Created::Full(Limit::Total);
    assert_eq!(create(&store, &session(), &evicting(10)), full);
    // Eight are used, one after the other; the third and the sixth never were.
    for (nth, session) in all.iter().enumerate() {
        advance(SECOND / 4).await;
        if nth != 3 && nth != 6 {
            touch(&store, session);
        }
    }
    advance(SECOND * 5 / 2 - TICK).await;
    assert_eq!(create(&store, &session(), &evicting(10)), full);
    advance(TICK).await;
    let evicted = |session: &Session| Created::New {
        left: Some(0),
        evicted: Some(*session.reference()),
    };
    // Created in the same instant, so either may go first.
    let unused: HashSet<_> = [3, 6].map(|nth| *all[nth].reference()).into();
    for _ in 0..2 {
        let latest = session();
        match create(&store, &latest, &evicting(10)) {
            Created::New {
                evicted: Some(evicted),
                ..
            } => assert!(unused.contains(&evicted)),
            other => panic!("{other:?}"),
        }
        touch(&store, &latest);
    }
    assert_eq!(create(&store, &session(), &evicting(10)), full);
    advance(MINUTE - 4 * SECOND).await;
    // In use a moment ago, though otherwise the oldest.
    touch(&store, &all[0]);
    let latest = session();
    assert_eq!(create(&store, &latest, &evicting(10)), evicted(&all[1]));
    assert!(is_live(&store, &latest));
    assert!(is_live(&store, &all[0]));
    assert_eq!(count(&store, &in_scope()), 10);
}

#[tokio::test(start_paused = true)]
async fn a_principal_at_its_limit_loses_one_of_its_own() {
    let store = MemoryStore::new();
    let terms = Terms {
        per_principal: NonZeroU64::new(2),
        ..evicting(100)
    };
    let theirs = session_of(&owner("you"));
    create(&store, &theirs, &terms);
    advance(SECOND).await;
    let mine: [_; 3] = std::array::from_fn(|_| session_of(&owner("me")));
    create(&store, &mine[0], &terms);
    create(&store, &mine[1], &terms);
    touch(&store, &mine[0]);
    advance(5 * SECOND).await;
    let created = create(&store, &mine[2], &terms);
    let evicted = Some(*mine[1].reference());
    assert_eq!(
        created,
        Created::New {
            left: Some(97),
            evicted
        }
    );
    assert!(is_live(&store, &theirs));
    assert_eq!(
        create(&store, &session_of(&owner("me")), &terms),
        Created::Full(Limit::PerPrincipal)
    );
}

#[tokio::test(start_paused = true)]
async fn of_many_sessions_a_sample_is_enough() {
    let store = MemoryStore::new();
    let all: Vec<_> = (0..10_000)
        .map(|_| new_session(&store, &evicting(10_000)))
        .collect();
    let (used, unused) = all.split_at(8_000);
    let unused: HashSet<_> = unused.iter().map(Session::reference).collect();
    advance(SECOND).await;
    for session in used {
        touch(&store, session);
    }
    advance(2 * MINUTE).await;
    // A few are the longest untouched by far, but were used once.
    for session in &used[10..] {
        touch(&store, session);
    }
    for _ in 0..200 {
        match create(&store, &session(), &evicting(10_000)) {
            Created::New {
                left: Some(0),
                evicted: Some(evicted),
            } => assert!(unused.contains(&evicted)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(count(&store, &in_scope()), 10_000);
}
