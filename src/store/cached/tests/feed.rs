//! Ends heard on the feed.

use futures_util::{FutureExt as _, StreamExt as _};

use super::*;

#[tokio::test(start_paused = true)]
async fn an_end_heard_on_the_feed_counts_at_once() {
    let (primary, cached) = cached_over(with_feed());
    let mine = created_elsewhere(&primary, &terms()).await;
    let other = created_elsewhere(&primary, &terms()).await;
    for session in [&mine, &other] {
        assert!(is_live(&cached, session).await);
    }
    primary.end_elsewhere(&mine).await;
    settle().await;
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    assert!(!is_live(&cached, &mine).await);
    assert!(matches!(now(&cached, &other), Now::Live(_)));
}

#[tokio::test(start_paused = true)]
async fn an_end_without_a_feed_counts_when_the_answer_is_as_old_as_it_may_be() {
    let (primary, cached) = cached();
    let mine = created_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    primary.end_elsewhere(&mine).await;
    advance(STALENESS - TICK).await;
    assert!(is_live(&cached, &mine).await);
    advance(TICK).await;
    assert!(!is_live(&cached, &mine).await);
}

#[tokio::test(start_paused = true)]
async fn after_a_gap_everything_is_asked_again_and_subscribers_hear_of_it() {
    let (primary, cached) = cached_over(with_feed());
    let mut feed = cached.feed().unwrap();
    let mine = created_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    primary.announce(FeedEvent::Gap);
    settle().await;
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    assert_eq!(feed.next().now_or_never(), Some(Some(FeedEvent::Gap)));
    assert!(is_live(&cached, &mine).await);
    let ended = primary.end_elsewhere(&mine).await;
    // Forgotten before a subscriber hears of it.
    assert_eq!(feed.next().now_or_never(), Some(Some(ended)));
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    assert_eq!(cached.cache.entries.len(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_listener_goes_with_the_store_and_comes_back_with_the_next_runtime() {
    let (primary, cached) = cached_over(with_feed());
    let listeners = || primary.feed.as_ref().unwrap().receiver_count();
    let mine = created_elsewhere(&primary, &terms()).await;
    let other_runtime = std::thread::spawn({
        let (cached, mine) = (Arc::clone(&cached), mine.clone());
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            assert!(runtime.block_on(is_live(&cached, &mine)));
        }
    });
    other_runtime.join().unwrap();
    assert_eq!(listeners(), 0);
    // No task listened since.
    primary.end_elsewhere(&mine).await;
    assert!(!is_live(&cached, &mine).await);
    assert_eq!(listeners(), 1);
    let weak = Arc::downgrade(&cached.cache);
    drop(cached);
    settle().await;
    assert_eq!(listeners(), 0);
    assert!(weak.upgrade().is_none());
}
