//! How much memory expired and deleted sessions hold.

use super::*;

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
    let kept = new_session(&store, &terms());
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
async fn creations_alone_keep_the_memory_bounded() {
    for terms in [terms(), at_most(1_000_000)] {
        let store = MemoryStore::new();
        // A thousand live at any time.
        for _ in 0..50_000 {
            new_session(&store, &terms);
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
    let all: Vec<_> = (0..20_000).map(|_| new_session(&store, &terms())).collect();
    assert!(store.slots().1 > 40 * SHARDS);
    assert!(all.iter().all(|session| delete(&store, session)));
    let (slots, buckets) = store.slots();
    assert_eq!(slots, 0);
    assert!(buckets <= 40 * SHARDS, "{buckets}");
}
