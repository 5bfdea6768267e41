//! Ends that are heard from elsewhere, and what is said when they are not.

use std::time::Duration;

use mcp_session_layer::{
    PostgresStore, Session, SessionStore as _,
    sqlx::{self, PgPool},
    store::{EndReason, Feed, FeedEvent},
};
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt as _;

use crate::{
    Fixture, pool_options,
    proxy::Proxy,
    sql::{listen_to_the_log, logged, session, terms},
};

#[tokio::test]
async fn two_stores_on_one_table_hear_each_other() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let there = PostgresStore::new(Fixture::pool().await.unwrap()).with_table(&fixture.table);
    let elsewhere = Fixture::new().await.unwrap();
    let (mut here_hears, mut there_hears) = (fixture.store.feed().unwrap(), there.feed().unwrap());
    for feed in [&mut here_hears, &mut there_hears] {
        assert_eq!(next(feed, SOON).await, FeedEvent::Gap, "before it listens");
    }
    for store in [&fixture.store, &there] {
        end(&elsewhere.store).await;
        let ended = end(store).await;
        for feed in [&mut here_hears, &mut there_hears] {
            assert_eq!(next(feed, SOON).await, event(&ended));
        }
    }
    drop((here_hears, there_hears));
    elsewhere.drop().await;
    fixture.drop().await;
}

#[tokio::test]
async fn a_lost_connection_is_a_gap_and_is_replaced() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let mut feed = fixture.store.feed().unwrap();
    assert_eq!(next(&mut feed, SOON).await, FeedEvent::Gap);
    for _ in 0..2 {
        let terminate = "select pg_terminate_backend($1)";
        for backend in listening(&fixture).await {
            sqlx::query(terminate)
                .bind(backend)
                .execute(&fixture.pool)
                .await
                .unwrap();
        }
        assert_eq!(next(&mut feed, SOON).await, FeedEvent::Gap);
        let ended = end(&fixture.store).await;
        assert_eq!(next(&mut feed, SOON).await, event(&ended));
    }
    drop(feed);
    fixture.drop().await;
}

#[tokio::test]
async fn one_connection_listens_for_all_feeds_and_for_no_longer() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    for _ in 0..2 {
        assert!(listening(&fixture).await.is_empty());
        let mut feeds = [(); 3].map(|()| fixture.store.clone().feed().unwrap());
        for feed in &mut feeds {
            assert_eq!(next(feed, SOON).await, FeedEvent::Gap);
        }
        assert_eq!(listening(&fixture).await.len(), 1);
        drop(feeds);
        let gone = async {
            while !listening(&fixture).await.is_empty() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, gone).await.expect("the last feed ends it");
    }
    fixture.drop().await;
}

/// As behind a transaction pooler.
#[tokio::test]
async fn deafness_is_noticed_before_anything_is_heard() {
    listen_to_the_log();
    let Some((fixture, proxy, store)) = behind_a_proxy().await else {
        return;
    };
    proxy.lose_notifications(true);
    let mut feed = store.feed().unwrap();
    assert_eq!(next(&mut feed, SOON).await, FeedEvent::Gap);
    let warnings = || {
        logged(&fixture.table)
            .into_iter()
            .filter(|line| line.starts_with("WARN"))
    };
    assert_eq!(warnings().count(), 1);
    assert!(
        listening(&fixture).await.is_empty(),
        "on a channel that others use"
    );
    // And again, for as long as it lasts.
    assert_eq!(next(&mut feed, A_WHILE).await, FeedEvent::Gap);
    assert_eq!(warnings().count(), 1, "once is enough");

    proxy.lose_notifications(false);
    assert_eq!(next(&mut feed, A_WHILE).await, FeedEvent::Gap);
    let ended = end(&store).await;
    assert_eq!(next(&mut feed, SOON).await, event(&ended));
    drop(feed);
    fixture.drop().await;
}

#[tokio::test]
async fn deafness_is_noticed_later() {
    let Some((fixture, proxy, store)) = behind_a_proxy().await else {
        return;
    };
    let mut feed = store.feed().unwrap();
    assert_eq!(next(&mut feed, SOON).await, FeedEvent::Gap);
    let ended = end(&store).await;
    assert_eq!(next(&mut feed, SOON).await, event(&ended));

    // One gap when it is noticed, one when it is over.
    sleep(Duration::from_millis(200)).await;
    proxy.lose_connections();
    for _ in 0..2 {
        assert_eq!(next(&mut feed, A_WHILE).await, FeedEvent::Gap);
    }
    let ended = end(&fixture.store).await;
    assert_eq!(next(&mut feed, SOON).await, event(&ended));
    drop(feed);
    fixture.drop().await;
}

async fn behind_a_proxy() -> Option<(Fixture, Proxy, PostgresStore)> {
    let fixture = Fixture::new().await?;
    let options = fixture.pool.connect_options().as_ref().clone();
    let proxy = Proxy::to(options.get_host(), options.get_port()).await;
    let options = proxy.between(options);
    let pool: PgPool = pool_options().connect_with(options).await.unwrap();
    let store = PostgresStore::new(pool).with_table(&fixture.table);
    Some((fixture, proxy, store))
}

/// The backends that listen on this table's channel.
async fn listening(fixture: &Fixture) -> Vec<i32> {
    let listens = "select pid from pg_stat_activity where query = $1";
    let listens = sqlx::query_scalar(listens).bind(format!("LISTEN \"{}\"", fixture.table));
    listens.fetch_all(&fixture.pool).await.unwrap()
}

/// A session that lived and was ended.
pub(crate) async fn end(store: &PostgresStore) -> Session {
    let session = session();
    store.create(&session, &terms()).await.unwrap();
    assert!(
        store
            .delete(session.id(), EndReason::Deleted)
            .await
            .unwrap()
    );
    session
}

pub(crate) fn event(ended: &Session) -> FeedEvent {
    FeedEvent::Ended {
        reference: *ended.reference(),
        reason: EndReason::Deleted,
    }
}

pub(crate) async fn next(feed: &mut Feed, within: Duration) -> FeedEvent {
    let event = timeout(within, feed.next())
        .await
        .expect("nothing is heard");
    event.expect("a feed does not end")
}

pub(crate) const SOON: Duration = Duration::from_secs(8);

/// Longer than it takes to notice.
pub(crate) const A_WHILE: Duration = Duration::from_secs(25);
