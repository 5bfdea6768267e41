//! Ends are heard wherever they were made, and gaps are told.

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use mcp_session_layer::{
    SessionRef, SessionStore,
    store::{EndReason, Feed, FeedEvent},
};
use tokio::time::timeout;

use crate::{created, owner, send, server::Server, terms, words};

#[tokio::test]
async fn an_end_is_heard_on_every_node_by_every_subscriber() {
    let Some(server) = Server::start("") else {
        return;
    };
    let (one, other) = (server.store().await, server.store().await);
    let mut feeds = [feed(&one).await, feed(&other).await, feed(&other).await];
    let session = created(&one, &owner("a", None), &terms()).await;
    one.delete(session.id(), EndReason::Deleted)
        .await
        .expect("answers");
    for feed in &mut feeds {
        // Before it come the ends by which the others made sure that they hear.
        while next(feed).await != ended(session.reference(), EndReason::Deleted) {}
    }
    assert_eq!(listeners(&server).await, 2, "one connection a store");
}

#[tokio::test]
async fn a_store_in_another_database_or_with_another_prefix_is_not_heard() {
    let Some(server) = Server::start("") else {
        return;
    };
    let store = server.store().await;
    let mut feed = feed(&store).await;
    let url = format!("{}/1", server.url());
    let database = mcp_session_layer::RedisStore::connect(url)
        .await
        .expect("answers");
    let prefix = server.store().await.with_prefix("other");
    for elsewhere in [&database, &prefix, &store] {
        let session = created(elsewhere, &owner("a", None), &terms()).await;
        elsewhere
            .delete(session.id(), EndReason::Deleted)
            .await
            .expect("answers");
        if std::ptr::eq(elsewhere, &store) {
            assert_eq!(
                next(&mut feed).await,
                ended(session.reference(), EndReason::Deleted)
            );
        }
    }
}

#[tokio::test]
async fn a_feed_whose_connection_was_cut_tells_of_a_gap_and_goes_on() {
    let Some(mut server) = Server::start("") else {
        return;
    };
    let store = server.store().await;
    let mut feed = feed(&store).await;
    for kill in [false, true] {
        if kill {
            server.kill();
            server.start_again();
        } else {
            let _: usize = send(&server.url(), &mut words("CLIENT KILL TYPE pubsub")).await;
        }
        assert_eq!(next(&mut feed).await, FeedEvent::Gap);
        hears(&store, &mut feed).await;
    }
}

/// A connection whose other side is silent for ever is noticed, although nothing closes it.
#[tokio::test]
async fn a_feed_whose_server_hung_tells_of_a_gap() {
    let Some(server) = Server::start("") else {
        return;
    };
    let store = server.store().await;
    let mut feed = feed(&store).await;
    server.freeze();
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.thaw();
    assert_eq!(next(&mut feed).await, FeedEvent::Gap);
    hears(&store, &mut feed).await;
}

#[tokio::test]
async fn a_subscriber_that_sleeps_too_long_is_told_of_a_gap() {
    let Some(server) = Server::start("") else {
        return;
    };
    let store = server.store().await;
    let mut feed = feed(&store).await;
    let sessions = crate::create_many(&store, &owner("a", None), &terms(), 1500).await;
    for session in &sessions {
        store
            .delete(session.id(), EndReason::Deleted)
            .await
            .expect("answers");
    }
    assert_eq!(next(&mut feed).await, FeedEvent::Gap);
    let last = sessions.last().expect("many").reference();
    while next(&mut feed).await != ended(last, EndReason::Deleted) {}
}

#[tokio::test]
async fn nobody_listens_when_all_feeds_are_dropped() {
    let Some(server) = Server::start("") else {
        return;
    };
    let store = server.store().await;
    assert_eq!(listeners(&server).await, 0, "nobody asked for a feed");
    let (one, other) = (feed(&store).await, feed(&store.clone()).await);
    assert_eq!(listeners(&server).await, 1);
    drop(one);
    drop(store);
    assert_eq!(listeners(&server).await, 1);
    drop(other);
    for _ in 0..100 {
        if listeners(&server).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("somebody still listens");
}

#[test]
fn a_feed_can_be_asked_for_outside_a_runtime() {
    let Some(server) = Server::start("") else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store = runtime.block_on(server.store());
    let mut feed = store.feed().expect("there is one");
    assert_eq!(runtime.block_on(next(&mut feed)), FeedEvent::Gap);
}

/// A feed that hears. What it may have missed before is one gap, if it is the first of its store.
pub(crate) async fn feed(store: &mcp_session_layer::RedisStore) -> Feed {
    let mut feed = store.feed().expect("there is one");
    tokio::time::sleep(Duration::from_millis(200)).await;
    while feed.next().now_or_never().is_some() {}
    hears(store, &mut feed).await;
    feed
}

async fn hears(store: &mcp_session_layer::RedisStore, feed: &mut Feed) {
    let session = created(store, &owner("decoy", None), &terms()).await;
    store
        .delete(session.id(), EndReason::InnerGone)
        .await
        .expect("answers");
    assert_eq!(
        next(feed).await,
        ended(session.reference(), EndReason::InnerGone)
    );
}

pub(crate) async fn next(feed: &mut Feed) -> FeedEvent {
    let event = timeout(Duration::from_secs(10), feed.next()).await;
    event
        .expect("something is heard")
        .expect("a feed does not end")
}

pub(crate) fn ended(reference: &SessionRef, reason: EndReason) -> FeedEvent {
    FeedEvent::Ended {
        reference: *reference,
        reason,
    }
}

async fn listeners(server: &Server) -> usize {
    let clients: String = send(&server.url(), &mut words("CLIENT LIST TYPE pubsub")).await;
    clients.lines().filter(|line| !line.is_empty()).count()
}
