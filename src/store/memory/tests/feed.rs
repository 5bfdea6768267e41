//! What the feed says of deletes, evictions and expiry.

use std::{sync::Barrier, thread};

use futures_util::{FutureExt as _, StreamExt as _};

use super::*;
use crate::store::FeedEvent;

#[test]
fn of_many_deletes_exactly_one_hears_that_it_was_live() {
    let store = MemoryStore::new();
    let mut feed = store.feed().unwrap();
    for _ in 0..200 {
        let mine = new_session(&store, &terms());
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
    let first = new_session(&store, &evicting(1));
    advance(5 * SECOND).await;
    new_session(&store, &evicting(1));
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
        delete(&store, &new_session(&store, &terms()));
    }
    assert_eq!(feed.next().now_or_never(), Some(Some(FeedEvent::Gap)));
    let next = feed.next().now_or_never();
    assert!(matches!(next, Some(Some(FeedEvent::Ended { .. }))));
}
