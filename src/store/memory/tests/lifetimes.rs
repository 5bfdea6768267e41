//! How long sessions live.

use std::thread;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_session_is_gone_from_the_instant_its_time_is_up() {
    let store = MemoryStore::new();
    let [touched, loaded, deleted, created, counted] =
        std::array::from_fn(|_| new_session(&store, &terms()));
    advance(5 * MINUTE - TICK).await;
    assert_eq!(count(&store, &in_scope()), 5);
    for session in [&touched, &loaded, &deleted, &created, &counted] {
        assert!(is_live(&store, session));
    }
    advance(TICK).await;
    assert!(touch(&store, &touched).is_none());
    assert!(!is_live(&store, &loaded));
    assert!(!delete(&store, &deleted));
    assert_eq!(create(&store, &created, &terms()), new(None));
    assert_eq!(count(&store, &in_scope()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_touch_extends_up_to_the_end_of_life_and_never_shortens() {
    let store = MemoryStore::new();
    let life = Some(HOUR + MINUTE);
    let mine = new_session(&store, &Terms { life, ..terms() });
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
    let mine = new_session(&store, &terms());
    let hash = store.0.hasher.hash_one(mine.id());
    let before = times::now();
    advance(5 * MINUTE).await;
    let table = store.0.shard(hash).read();
    let session = table.find(hash, mine.id()).unwrap();
    assert_eq!(session.times().live_until(times::now()), None);
    assert_eq!(session.times().touch(before, HOUR), None);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_stands_before_the_stores_creation_is_a_clock_too() {
    // Made on a thread that does not share the paused clock.
    let store = thread::spawn(MemoryStore::new).join().unwrap();
    let mine = new_session(&store, &terms());
    advance(5 * MINUTE - TICK).await;
    assert!(is_live(&store, &mine));
    advance(TICK).await;
    assert!(!is_live(&store, &mine));
}
