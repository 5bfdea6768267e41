//! Remembered absences.

use futures_util::FutureExt as _;

use super::*;

#[tokio::test(start_paused = true)]
async fn an_absence_is_remembered_for_a_second_and_for_its_owner_only() {
    let (primary, cached) = cached();
    let mine = created_elsewhere(&primary, &terms()).await;
    let stranger = owner("you");
    let touch = |owner: &Owner| cached.touch_now(mine.id(), owner, HOUR);
    let answer = cached.touch(mine.id(), &stranger, HOUR).await.unwrap();
    assert!(answer.is_none());
    assert!(matches!(touch(&stranger), Now::Absent));
    assert!(matches!(touch(mine.owner()), Now::Unknown));
    assert!(is_live(&cached, &mine).await);
    assert!(matches!(touch(mine.owner()), Now::Live(_)));
    // Nor does a stranger's question push out what is known.
    let answer = cached.touch(mine.id(), &stranger, HOUR).await.unwrap();
    assert!(answer.is_none());
    assert!(matches!(touch(mine.owner()), Now::Live(_)));

    let other = session();
    assert!(!is_live(&cached, &other).await);
    let asked = primary.touches();
    advance(SECOND - TICK).await;
    assert!(matches!(now(&cached, &other), Now::Absent));
    assert!(!is_live(&cached, &other).await);
    assert_eq!(primary.touches(), asked);
    advance(TICK).await;
    assert!(matches!(now(&cached, &other), Now::Unknown));
}

#[tokio::test(start_paused = true)]
async fn a_creation_ends_an_absence_whoever_hears_of_it_first() {
    let (primary, cached) = cached();
    let mine = session();
    assert!(!is_live(&cached, &mine).await);
    cached.create(&mine, &terms()).await.unwrap();
    assert!(is_live(&cached, &mine).await);

    // Asked before the creation, answered after it.
    let mine = session();
    primary.after.close();
    let early = request_later(&cached, &mine);
    settle().await;
    primary.bypass.store(true, Relaxed);
    cached.create(&mine, &terms()).await.unwrap();
    primary.bypass.store(false, Relaxed);
    primary.after.open();
    assert!(!early.await.unwrap().unwrap());
    assert!(is_live(&cached, &mine).await);

    // Deleted before the creation, answered after it.
    primary.after.close();
    let delete = cached.delete(mine.id(), EndReason::Deleted);
    let mut delete = std::pin::pin!(delete);
    assert!(delete.as_mut().now_or_never().is_none());
    primary.bypass.store(true, Relaxed);
    cached.create(&mine, &terms()).await.unwrap();
    primary.bypass.store(false, Relaxed);
    primary.after.open();
    assert!(delete.await.unwrap());
    assert!(is_live(&cached, &mine).await);
}

#[tokio::test(start_paused = true)]
async fn a_creation_ends_an_absence_even_if_something_may_have_been_missed_meanwhile() {
    let (primary, cached) = cached_over(with_feed());
    let (mine, terms) = (session(), terms());
    assert!(!is_live(&cached, &mine).await);
    primary.after.close();
    let mut creation = Box::pin(cached.create(&mine, &terms));
    assert!(creation.as_mut().now_or_never().is_none());
    primary.announce(FeedEvent::Gap);
    settle().await;
    primary.after.open();
    assert!(matches!(creation.await, Ok(Created::New { .. })));
    assert!(is_live(&cached, &mine).await);
}
