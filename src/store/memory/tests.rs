use std::{
    collections::HashSet,
    num::NonZeroU64,
    pin::pin,
    sync::{Barrier, OnceLock, atomic::AtomicBool},
    task::{Context, Poll, Waker},
    thread,
};

use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::advance;

use super::*;
use crate::{
    session::{Issuer, Principal, Scope, SessionRecord},
    store::{FeedEvent, SessionFilter},
};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_nanos(1);

fn owner(principal: impl Into<Option<&'static str>>) -> Owner {
    Owner {
        scope: Scope::default(),
        principal: principal.into().map(Principal::new),
    }
}

fn session_of(owner: &Owner) -> Session {
    Session::new(
        SessionId::issue(),
        SessionRecord::new(owner.clone(), Issuer::Layer),
    )
}

fn session() -> Session {
    session_of(&owner(None))
}

fn terms() -> Terms {
    Terms {
        idle: HOUR,
        initial_idle: 5 * MINUTE,
        life: None,
        total: None,
        per_principal: None,
        at_limit: AtLimit::Refuse,
        started_ago: Duration::ZERO,
    }
}

fn at_most(total: u64) -> Terms {
    Terms {
        total: NonZeroU64::new(total),
        ..terms()
    }
}

fn evicting(total: u64) -> Terms {
    Terms {
        at_limit: AtLimit::Evict { untouched: MINUTE },
        ..at_most(total)
    }
}

fn new(left: Option<u64>) -> Created {
    let evicted = None;
    Created::New { left, evicted }
}

/// Polls without a runtime.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return value;
        }
    }
}

fn create(store: &MemoryStore, session: &Session, terms: &Terms) -> Created {
    wait(store.create(session, terms)).unwrap()
}

fn born(store: &MemoryStore, terms: &Terms) -> Session {
    let session = session();
    let created = create(store, &session, terms);
    assert!(matches!(created, Created::New { .. }), "{created:?}");
    session
}

fn touch(store: &MemoryStore, session: &Session) -> Option<Found> {
    match store.touch_now(session.id(), session.owner(), HOUR) {
        Now::Live(found) => Some(found),
        Now::Absent => None,
        Now::Unknown => panic!("memory knows"),
    }
}

fn delete(store: &MemoryStore, session: &Session) -> bool {
    wait(store.delete(session.id(), EndReason::Deleted)).unwrap()
}

fn is_live(store: &MemoryStore, session: &Session) -> bool {
    wait(store.load(session.id())).unwrap().is_some()
}

fn count(store: &MemoryStore, filter: &SessionFilter) -> u64 {
    wait(store.count(filter)).unwrap()
}

fn everybody() -> SessionFilter {
    SessionFilter::Scope(Scope::default())
}

impl MemoryStore {
    /// Sessions in the table, expired ones included, and the room for them.
    fn slots(&self) -> (usize, usize) {
        let tables = self.0.shards.iter().map(|shard| {
            let sessions = shard.read();
            (sessions.iter().count(), sessions.slots())
        });
        tables.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    fn is_unlocked(&self) -> bool {
        self.0.shards.iter().all(Shard::is_unlocked) && self.0.owners.is_unlocked()
    }
}

#[test]
fn it_works_without_a_runtime() {
    let store = MemoryStore::new();
    let mine = born(&store, &at_most(5));
    let found = touch(&store, &mine).unwrap();
    assert!(found.idle_left > 5 * MINUTE);
    assert_eq!(create(&store, &mine, &terms()), Created::Exists);
    wait(store.sweep());
    assert_eq!(count(&store, &everybody()), 1);
    assert!(delete(&store, &mine));
    assert!(touch(&store, &mine).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_session_is_gone_from_the_instant_its_time_is_up() {
    let store = MemoryStore::new();
    let [touched, loaded, deleted, created, counted] =
        std::array::from_fn(|_| born(&store, &terms()));
    advance(5 * MINUTE - TICK).await;
    assert_eq!(count(&store, &everybody()), 5);
    for session in [&touched, &loaded, &deleted, &created, &counted] {
        assert!(is_live(&store, session));
    }
    advance(TICK).await;
    assert!(touch(&store, &touched).is_none());
    assert!(!is_live(&store, &loaded));
    assert!(!delete(&store, &deleted));
    assert_eq!(create(&store, &created, &terms()), new(None));
    assert_eq!(count(&store, &everybody()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_touch_extends_up_to_the_end_of_life_and_never_shortens() {
    let store = MemoryStore::new();
    let life = Some(HOUR + MINUTE);
    let mine = born(&store, &Terms { life, ..terms() });
    advance(MINUTE).await;
    let found = touch(&store, &mine).unwrap();
    assert_eq!(found.age, MINUTE);
    assert_eq!(found.idle_left, HOUR);
    assert_eq!(found.life_left, Some(HOUR));
    let Now::Live(found) = store.touch_now(mine.id(), mine.owner(), SECOND) else {
        panic!("live");
    };
    assert_eq!(found.idle_left, HOUR);
    advance(MINUTE).await;
    assert_eq!(touch(&store, &mine).unwrap().idle_left, HOUR - MINUTE);
    advance(HOUR - MINUTE).await;
    assert!(touch(&store, &mine).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stranger_does_not_extend_a_session() {
    let store = MemoryStore::new();
    let mine = session_of(&owner("me"));
    create(&store, &mine, &terms());
    let elsewhere = Owner {
        scope: Scope::new("elsewhere"),
        ..owner("me")
    };
    for stranger in [owner("you"), owner(""), owner(None), elsewhere] {
        let answer = store.touch_now(mine.id(), &stranger, HOUR);
        assert!(matches!(answer, Now::Absent), "{stranger:?}");
    }
    advance(5 * MINUTE).await;
    assert!(touch(&store, &mine).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_was_once_seen_over_is_over_for_a_thread_with_an_earlier_clock_too() {
    let store = MemoryStore::new();
    let mine = born(&store, &terms());
    let hash = store.0.hasher.hash_one(mine.id());
    let before = times::now();
    advance(5 * MINUTE).await;
    let table = store.0.shard(hash).read();
    let session = table.find(hash, mine.id()).unwrap();
    assert_eq!(session.times().live_until(times::now()), None);
    assert_eq!(session.times().touch(before, HOUR), None);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_stands_before_the_stores_birth_is_a_clock_too() {
    // Made on a thread that does not share the paused clock.
    let store = thread::spawn(MemoryStore::new).join().unwrap();
    let mine = born(&store, &terms());
    advance(5 * MINUTE - TICK).await;
    assert!(is_live(&store, &mine));
    advance(TICK).await;
    assert!(!is_live(&store, &mine));
}

#[test]
fn limits_are_exact_however_many_come_at_once() {
    let mine = owner("me");
    let per_principal = Terms {
        per_principal: NonZeroU64::new(100),
        ..terms()
    };
    let cases = [(at_most(100), owner(None)), (per_principal, mine)];
    for (terms, owner) in cases {
        let store = MemoryStore::new();
        let barrier = Barrier::new(8);
        let together = || {
            barrier.wait();
            let tries = (0..100).map(|_| create(&store, &session_of(&owner), &terms));
            tries
                .filter(|created| matches!(created, Created::New { .. }))
                .count()
        };
        let born: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(together)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(born, 100);
        assert_eq!(count(&store, &everybody()), 100);
    }
}

#[test]
fn when_many_come_at_once_each_has_exactly_one_ended_for_it() {
    let at_limit = AtLimit::Evict {
        untouched: Duration::ZERO,
    };
    let total = Terms {
        at_limit,
        ..at_most(100)
    };
    let both = Terms {
        per_principal: NonZeroU64::new(100),
        ..total.clone()
    };
    let per_principal = Terms {
        total: None,
        ..both.clone()
    };
    let cases = [
        (total, owner(None)),
        (both, owner("me")),
        (per_principal, owner("me")),
    ];
    for (terms, owner) in cases {
        let store = MemoryStore::new();
        for _ in 0..100 {
            create(&store, &session_of(&owner), &terms);
        }
        let barrier = Barrier::new(8);
        let together = || {
            barrier.wait();
            let mut evicted = Vec::new();
            for _ in 0..100 {
                match create(&store, &session_of(&owner), &terms) {
                    Created::New {
                        evicted: Some(one), ..
                    } => evicted.push(one),
                    other => panic!("{other:?}"),
                }
                assert!(count(&store, &everybody()) <= 100);
            }
            evicted
        };
        let evicted: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(together)).collect();
            threads
                .into_iter()
                .flat_map(|t| t.join().unwrap())
                .collect()
        });
        let distinct: HashSet<_> = evicted.iter().collect();
        assert_eq!(distinct.len(), 800);
        assert_eq!(count(&store, &everybody()), 100);
        assert_eq!(store.slots().0, 100);
        assert_eq!(count(&store, &SessionFilter::Owner(owner)), 100);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_was_lowered_is_kept_by_the_next_newcomer() {
    let per_principal = |most| Terms {
        per_principal: NonZeroU64::new(most),
        total: None,
        ..evicting(most)
    };
    for terms in [evicting, per_principal] {
        let store = MemoryStore::new();
        let me = owner("me");
        for _ in 0..10 {
            create(&store, &session_of(&me), &terms(10));
        }
        advance(MINUTE).await;
        let created = create(&store, &session_of(&me), &terms(5));
        assert!(matches!(created, Created::New { .. }));
        assert_eq!(count(&store, &everybody()), 5);
        assert_eq!(count(&store, &SessionFilter::Owner(me)), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_that_a_newcomer_does_not_take_is_free() {
    let store = MemoryStore::new();
    let mine: [_; 2] = [owner("me"), owner("me")].map(|owner| session_of(&owner));
    let scope = store.0.scopes.of(&Scope::default());
    let terms = Terms {
        per_principal: NonZeroU64::new(1),
        ..evicting(1)
    };
    create(&store, &mine[0], &terms);
    advance(MINUTE).await;
    let newcomer_hash = store.0.hash(&mine[1]);
    let among = Among::Owner(mine[0].owner());
    let now = times::now();
    let (_, place) = store
        .0
        .evict(
            &mine[0],
            among,
            &mine[1],
            newcomer_hash,
            &terms,
            now,
            MINUTE,
        )
        .unwrap();
    // Held for the newcomer, and for nobody else.
    let full = create(&store, &session_of(&owner("me")), &terms);
    assert_eq!(full, Created::Full(Limit::PerPrincipal));
    let full = create(&store, &session(), &terms);
    assert_eq!(full, Created::Full(Limit::Total));
    store.0.give_back(place, &scope, &mine[1], newcomer_hash);
    assert_eq!(create(&store, &mine[0], &terms), new(Some(0)));
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_takes_no_room() {
    let store = MemoryStore::new();
    let mine = owner("me");
    let terms = Terms {
        per_principal: NonZeroU64::new(2),
        ..at_most(3)
    };
    for round in 0..3 {
        assert_eq!(create(&store, &session_of(&mine), &terms), new(Some(2)));
        assert_eq!(create(&store, &session_of(&mine), &terms), new(Some(1)));
        let full = create(&store, &session_of(&mine), &terms);
        assert_eq!(full, Created::Full(Limit::PerPrincipal), "{round}");
        assert_eq!(create(&store, &session(), &terms), new(Some(0)));
        let full = create(&store, &session(), &terms);
        assert_eq!(full, Created::Full(Limit::Total), "{round}");
        advance(5 * MINUTE).await;
    }
}

#[test]
fn scopes_have_limits_of_their_own_and_ids_in_common() {
    let store = MemoryStore::new();
    let elsewhere = Owner {
        scope: Scope::new("elsewhere"),
        principal: None,
    };
    let mine = born(&store, &at_most(1));
    let theirs = session_of(&elsewhere);
    assert_eq!(create(&store, &theirs, &at_most(1)), new(Some(0)));
    let same_id = Session::new(
        mine.id().clone(),
        SessionRecord::new(elsewhere, Issuer::Layer),
    );
    assert_eq!(create(&store, &same_id, &terms()), Created::Exists);
    assert_eq!(
        create(&store, &session(), &at_most(1)),
        Created::Full(Limit::Total)
    );
}

#[tokio::test(start_paused = true)]
async fn at_a_limit_newborns_go_first_then_the_longest_untouched_and_none_in_use() {
    let store = MemoryStore::new();
    let all: Vec<_> = (0..10).map(|_| born(&store, &evicting(10))).collect();
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
    // Born in the same instant, so either may go first.
    let newborns: HashSet<_> = [3, 6].map(|nth| *all[nth].reference()).into();
    for _ in 0..2 {
        let newcomer = session();
        match create(&store, &newcomer, &evicting(10)) {
            Created::New {
                evicted: Some(evicted),
                ..
            } => assert!(newborns.contains(&evicted)),
            other => panic!("{other:?}"),
        }
        touch(&store, &newcomer);
    }
    assert_eq!(create(&store, &session(), &evicting(10)), full);
    advance(MINUTE - 4 * SECOND).await;
    // In use a moment ago, though otherwise the oldest.
    touch(&store, &all[0]);
    let newcomer = session();
    assert_eq!(create(&store, &newcomer, &evicting(10)), evicted(&all[1]));
    assert!(is_live(&store, &newcomer));
    assert!(is_live(&store, &all[0]));
    assert_eq!(count(&store, &everybody()), 10);
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
        .map(|_| born(&store, &evicting(10_000)))
        .collect();
    let (used, newborn) = all.split_at(8_000);
    let newborn: HashSet<_> = newborn.iter().map(Session::reference).collect();
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
            } => assert!(newborn.contains(&evicted)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(count(&store, &everybody()), 10_000);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_leaves_nothing_behind() {
    let store = MemoryStore::new();
    for nth in 0..20_000 {
        let owner = if nth % 2 == 0 {
            owner("me")
        } else {
            owner(None)
        };
        create(&store, &session_of(&owner), &terms());
    }
    let kept = born(&store, &terms());
    touch(&store, &kept);
    advance(5 * MINUTE).await;
    store.sweep().await;
    let (slots, buckets) = store.slots();
    assert_eq!(slots, 1);
    assert!(buckets <= 40 * SHARDS, "{buckets}");
    assert_eq!(store.0.owners.len(), 0);
    assert!(is_live(&store, &kept));
}

#[tokio::test(start_paused = true)]
async fn births_alone_keep_the_memory_bounded() {
    for terms in [terms(), at_most(1_000_000)] {
        let store = MemoryStore::new();
        // A thousand live at any time.
        for _ in 0..50_000 {
            born(&store, &terms);
            advance(5 * MINUTE / 1000).await;
        }
        let (slots, buckets) = store.slots();
        assert!(slots < 2_000, "{slots}");
        assert!(buckets < 40 * SHARDS, "{buckets}");
    }
}

#[test]
fn memory_is_given_back_as_sessions_are_deleted() {
    let store = MemoryStore::new();
    let all: Vec<_> = (0..20_000).map(|_| born(&store, &terms())).collect();
    assert!(store.slots().1 > 40 * SHARDS);
    assert!(all.iter().all(|session| delete(&store, session)));
    let (slots, buckets) = store.slots();
    assert_eq!(slots, 0);
    assert!(buckets <= 40 * SHARDS, "{buckets}");
}

#[test]
fn of_many_deletes_exactly_one_hears_that_it_was_live() {
    let store = MemoryStore::new();
    let mut feed = store.feed().unwrap();
    for _ in 0..200 {
        let mine = born(&store, &terms());
        let barrier = Barrier::new(4);
        let together = || {
            barrier.wait();
            delete(&store, &mine)
        };
        let heard: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(together)).collect();
            threads
                .into_iter()
                .map(|t| usize::from(t.join().unwrap()))
                .sum()
        });
        assert_eq!(heard, 1);
        let ended = FeedEvent::Ended {
            reference: *mine.reference(),
            reason: EndReason::Deleted,
        };
        assert_eq!(feed.next().now_or_never(), Some(Some(ended)));
        assert_eq!(feed.next().now_or_never(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn the_feed_says_what_was_evicted_and_not_what_expired() {
    let store = MemoryStore::new();
    let mut feed = store.feed().unwrap();
    let first = born(&store, &evicting(1));
    advance(5 * SECOND).await;
    born(&store, &evicting(1));
    let ended = FeedEvent::Ended {
        reference: *first.reference(),
        reason: EndReason::Evicted,
    };
    assert_eq!(feed.next().now_or_never(), Some(Some(ended)));
    advance(5 * MINUTE).await;
    store.sweep().await;
    assert_eq!(feed.next().now_or_never(), None);
    drop(store);
    assert_eq!(feed.next().now_or_never(), Some(None));
}

#[test]
fn whoever_does_not_listen_hears_of_a_gap() {
    let store = MemoryStore::new();
    let mut feed = store.feed().unwrap();
    for _ in 0..2_000 {
        delete(&store, &born(&store, &terms()));
    }
    assert_eq!(feed.next().now_or_never(), Some(Some(FeedEvent::Gap)));
    let next = feed.next().now_or_never();
    assert!(matches!(next, Some(Some(FeedEvent::Ended { .. }))));
}

#[tokio::test(start_paused = true)]
async fn nobodys_session_can_be_claimed_once() {
    let store = MemoryStore::new();
    let (me, you) = (owner("me"), owner("you"));
    let nobodys = born(&store, &terms());
    let local = nobodys.local::<std::sync::Mutex<u8>>();
    let elsewhere = Owner {
        scope: Scope::new("elsewhere"),
        ..me.clone()
    };
    let claim = |owner: &Owner| wait(store.claim(nobodys.id(), owner, HOUR)).unwrap();
    assert!(claim(&elsewhere).is_none());
    let claimed = claim(&me).unwrap();
    assert_eq!(claimed.session.owner(), &me);
    assert_eq!(claimed.idle_left, HOUR);
    assert!(Arc::ptr_eq(&claimed.session.local(), &local));
    assert!(claim(&me).is_some());
    assert!(claim(&you).is_none());
    assert!(claim(&owner(None)).is_none());
    assert!(matches!(
        store.touch_now(nobodys.id(), &owner(None), HOUR),
        Now::Absent
    ));
    assert!(touch(&store, &claimed.session).is_some());
    let limited = Terms {
        per_principal: NonZeroU64::new(1),
        ..terms()
    };
    let full = create(&store, &session_of(&me), &limited);
    assert_eq!(full, Created::Full(Limit::PerPrincipal));
    assert!(delete(&store, &nobodys));
    assert_eq!(create(&store, &session_of(&me), &limited), new(None));
}

#[test]
fn the_directory_lists_each_session_once_in_order() {
    let store = MemoryStore::new();
    let (me, you) = (owner("me"), owner("you"));
    let mut expected: Vec<_> = (0..25)
        .map(|_| {
            let mut record = SessionRecord::new(me.clone(), Issuer::Layer);
            record.initialize_params = Some("{}".into());
            let session = Session::new(SessionId::issue(), record);
            create(&store, &session, &terms());
            *session.reference()
        })
        .collect();
    expected.sort();
    create(&store, &session_of(&you), &terms());
    born(&store, &terms());
    let mine = SessionFilter::Owner(me);
    let mut listed = Vec::new();
    loop {
        let page = wait(store.list(&mine, listed.last(), 10)).unwrap();
        assert!(
            page.iter()
                .all(|one| one.record.initialize_params.is_none())
        );
        assert!(page.len() <= 10);
        if page.is_empty() {
            break;
        }
        listed.extend(page.iter().map(|one| one.reference));
    }
    assert_eq!(listed, expected);
    assert_eq!(count(&store, &mine), 25);
    assert_eq!(count(&store, &SessionFilter::Owner(owner(None))), 1);
    assert_eq!(count(&store, &everybody()), 27);
    assert_eq!(wait(store.list(&everybody(), None, 100)).unwrap().len(), 27);
    assert!(wait(store.list(&everybody(), None, 0)).unwrap().is_empty());
}

#[test]
fn the_directory_ends_sessions_of_its_scope_only() {
    let store = MemoryStore::new();
    let session = born(&store, &terms());
    let end = |scope: &Scope| wait(store.end(scope, session.reference(), EndReason::Revoked));
    assert!(!end(&Scope::new("elsewhere")).unwrap());
    assert!(end(&Scope::default()).unwrap());
    assert!(!end(&Scope::default()).unwrap());

    let (me, you) = (session_of(&owner("me")), session_of(&owner("you")));
    let nobodys = born(&store, &terms());
    create(&store, &me, &terms());
    create(&store, &you, &terms());
    let end_all = |filter: &SessionFilter| wait(store.end_all(filter, EndReason::Revoked)).unwrap();
    assert_eq!(end_all(&SessionFilter::Scope(Scope::new("elsewhere"))), 0);
    assert_eq!(end_all(&SessionFilter::Owner(owner("me"))), 1);
    assert!(!is_live(&store, &me) && is_live(&store, &you) && is_live(&store, &nobodys));
    assert_eq!(end_all(&SessionFilter::Owner(owner(None))), 1);
    assert!(is_live(&store, &you) && !is_live(&store, &nobodys));
    assert_eq!(end_all(&everybody()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_birth_that_began_before_its_owners_sessions_were_ended_is_refused() {
    let store = MemoryStore::new();
    let begun = |begun| Terms {
        started_ago: begun,
        ..terms()
    };
    let me = SessionFilter::Owner(owner("me"));
    advance(SECOND).await;
    store.end_all(&me, EndReason::Revoked).await.unwrap();
    advance(10 * MINUTE).await;
    let of = |principal: &'static str| session_of(&owner(principal));
    let before = begun(10 * MINUTE + TICK);
    assert_eq!(create(&store, &of("me"), &before), Created::Revoked);
    assert_eq!(create(&store, &of("you"), &before), new(None));
    assert_eq!(create(&store, &of("me"), &begun(10 * MINUTE)), new(None));
    let just_then = begun(10 * MINUTE);
    // However many are ended after it.
    for nth in 0..5_000 {
        if nth == 10 {
            assert_eq!(create(&store, &of("me"), &just_then), new(None));
        }
        let other = SessionFilter::Owner(owner("other"));
        store.end_all(&other, EndReason::Revoked).await.unwrap();
    }
    assert_eq!(create(&store, &of("me"), &before), Created::Revoked);
    assert_eq!(create(&store, &of("me"), &terms()), new(None));
    advance(SECOND).await;
    store
        .end_all(&everybody(), EndReason::Revoked)
        .await
        .unwrap();
    let created = create(&store, &session(), &begun(TICK));
    assert_eq!(created, Created::Revoked);
}

#[test]
fn no_birth_slips_through_while_its_owners_sessions_are_ended() {
    let cases = [
        (owner("me"), SessionFilter::Owner(owner("me"))),
        (owner(None), SessionFilter::Owner(owner(None))),
        (owner("me"), everybody()),
    ];
    for (owner, filter) in cases {
        let store = MemoryStore::new();
        for _ in 0..500 {
            let mine: [_; 4] = std::array::from_fn(|_| session_of(&owner));
            let barrier = Barrier::new(mine.len() + 1);
            let began = times::now();
            thread::scope(|scope| {
                for session in &mine {
                    scope.spawn(|| {
                        barrier.wait();
                        // One reading of the clock, as if no time passed between the caller's and the store's.
                        let now = times::now();
                        let begun = Duration::from_nanos(now - began);
                        store.0.create(
                            session,
                            &Terms {
                                started_ago: begun,
                                ..terms()
                            },
                            now,
                        );
                    });
                }
                barrier.wait();
                wait(store.end_all(&filter, EndReason::Revoked)).unwrap();
            });
            assert_eq!(count(&store, &filter), 0);
        }
        assert_eq!(store.slots().0, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_are_dropped_outside_the_locks() {
    /// Looks, when it is dropped, whether anything is locked.
    #[derive(Default)]
    struct Probe(OnceLock<(MemoryStore, Arc<AtomicBool>)>);

    impl Drop for Probe {
        fn drop(&mut self) {
            let (store, unlocked) = self.0.get().unwrap();
            unlocked.store(store.is_unlocked(), Relaxed);
        }
    }

    let store = MemoryStore::new();
    let probed = |terms: &Terms| {
        let session = session_of(&owner("me"));
        let unlocked = Arc::new(AtomicBool::new(false));
        let probe = session.local::<Probe>();
        let _ = probe.0.set((store.clone(), Arc::clone(&unlocked)));
        create(&store, &session, terms);
        (session.id().clone(), unlocked)
    };

    let (id, deleted) = probed(&terms());
    store.delete(&id, EndReason::Deleted).await.unwrap();
    assert!(deleted.load(Relaxed), "delete");

    let (_, evicted) = probed(&evicting(1));
    advance(5 * SECOND).await;
    let newcomer = session_of(&owner("me"));
    create(&store, &newcomer, &evicting(1));
    assert!(evicted.load(Relaxed), "evict");

    let (_, swept) = probed(&terms());
    advance(5 * MINUTE).await;
    store.sweep().await;
    assert!(swept.load(Relaxed), "sweep");

    let (id, replaced) = probed(&terms());
    advance(5 * MINUTE).await;
    let again = Session::new(id, SessionRecord::new(owner("me"), Issuer::Layer));
    store.0.create(&again, &terms(), times::now());
    assert!(replaced.load(Relaxed), "create");

    let (_, ended) = probed(&terms());
    store
        .end_all(&everybody(), EndReason::Revoked)
        .await
        .unwrap();
    assert!(ended.load(Relaxed), "end_all");
}

#[test]
fn debug_shows_no_session() {
    let store = MemoryStore::new();
    born(&store, &terms());
    assert_eq!(format!("{store:?}"), "MemoryStore { .. }");
}

#[test]
fn shard_and_table_use_different_bits_of_a_hash() {
    let tag = 0x7f << 57;
    let buckets = (1 << 40) - 1;
    assert_eq!(shard_of(tag | buckets, SHARDS), 0);
    assert_eq!(shard_of(!(tag | buckets), SHARDS), SHARDS - 1);
}
