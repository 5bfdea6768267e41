//! The end of a session is the end of its streams.

use futures_util::FutureExt as _;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use mcp_session_layer::{RejectionKind, SessionStore as _, store::EndReason};
use std::{num::NonZeroU64, time::Duration};
use tokio::time::{Instant, sleep};

use crate::{
    inner::scripted,
    node::Node,
    reading::{ends_within, read_to_end, stays_silent},
    support::{
        answers::kind_of,
        requests::{get, initialize, post},
        sessions::{fresh_session, reference, session_id, terms},
        store::{AWAY, TestStore, VERBS},
        time::{HOUR, MINUTE, SECOND, set_off},
    },
};

/// Each way of ending a session, of a stream that has been silent for an hour.
async fn silent_then(end: impl AsyncFnOnce(&Node, &str)) {
    let node = Node::new(&TestStore::default());
    let id = node.initialize().await;
    let (mut read, unread) = (node.open(&id).await, node.open(&id).await);
    let sent = node.inner.streams.lock()[0].send("data: 1\n\n".into());
    sent.unwrap();
    assert_eq!(
        read.frame().await.unwrap().unwrap().into_data().unwrap(),
        "data: 1\n\n"
    );
    assert!(stays_silent(&mut read, HOUR).await);
    assert_eq!(node.inner.bodies(), 2);

    end(&node, &id).await;
    assert_eq!(ends_within(SECOND, read).await, "");
    assert_eq!(
        node.inner.bodies(),
        0,
        "also that of a client that does not read"
    );
    drop(unread);
    assert_eq!(node.post(&id).await, 404);
}

#[tokio::test(start_paused = true)]
async fn a_delete_on_another_connection_ends_it() {
    silent_then(async |node, id| {
        let elsewhere = node.clone();
        assert_eq!(elsewhere.delete(id).await, 204);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_ends_it() {
    silent_then(async |node, id| {
        assert!(node.layer.sessions().end(&reference(id)).await.unwrap());
    })
    .await;
    silent_then(async |node, _| {
        assert_eq!(node.layer.sessions().end_of(None).await.unwrap(), 1);
    })
    .await;
    silent_then(async |node, _| {
        assert_eq!(node.layer.sessions().end_all().await.unwrap(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn expiry_ends_it() {
    // A stream keeps its session from being idle, but not while the store is away for longer than the idle time.
    let store = TestStore::default();
    let node = Node::with(&store, |layer| layer.with_idle_timeout(MINUTE));
    let id = node.initialize().await;
    let (read, _unread) = (node.open(&id).await, node.open(&id).await);
    store.disturb(VERBS, AWAY);
    sleep(2 * MINUTE).await;
    assert_eq!(node.inner.bodies(), 2, "not known yet");
    store.recover();
    ends_within(10 * SECOND, read).await;
    assert_eq!(node.inner.bodies(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_its_life_ends_it() {
    let node = Node::with(&TestStore::default(), |layer| {
        layer.with_max_lifetime(2 * HOUR)
    });
    let id = node.initialize().await;
    let (read, _unread) = (node.open(&id).await, node.open(&id).await);
    let (time, _) = read_to_end(read).await;
    assert!(time >= 2 * HOUR && time < 2 * HOUR + SECOND, "{time:?}");
    assert_eq!(node.inner.bodies(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_eviction_ends_it() {
    let node = Node::with(&TestStore::default(), |layer| {
        layer.with_max_sessions(NonZeroU64::MIN)
    });
    let answer = node.send(scripted(initialize(), "stream")).await;
    sleep(MINUTE).await;
    assert_eq!(node.inner.bodies(), 1);
    node.initialize().await;
    assert_eq!(node.inner.bodies(), 0);
    ends_within(SECOND, answer.into_body()).await;
}

#[tokio::test(start_paused = true)]
async fn it_ends_on_other_nodes_at_once_where_there_is_a_feed() {
    let store = TestStore::default();
    let (here, there) = (Node::new(&store), Node::new(&store));
    let id = here.initialize().await;
    let (read, _unread) = (there.open(&id).await, there.open(&id).await);
    sleep(HOUR).await;
    here.delete(&id).await;
    ends_within(SECOND, read).await;
    assert_eq!(there.inner.bodies(), 0);
}

#[tokio::test(start_paused = true)]
async fn it_ends_after_a_gap_in_the_feed() {
    let store = TestStore::default();
    let node = Node::new(&store);
    let mut ids = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..100 {
        let id = node.initialize().await;
        streams.push(node.open(&id).await);
        ids.push(id);
    }
    let survivor = node.initialize().await;
    let mut stream = node.open(&survivor).await;
    sleep(MINUTE).await;
    // Nothing here yields, so that the node hears only the last of the ends: those of sessions that it never served.
    for id in &ids {
        let id = session_id(id);
        let ended = store.memory.delete(&id, EndReason::Revoked);
        assert!(ended.now_or_never().unwrap().unwrap());
    }
    let unlimited = terms();
    for _ in 0..2000 {
        let other = fresh_session();
        let created = store.memory.create(&other, &unlimited);
        created.now_or_never().unwrap().unwrap();
        let ended = store.memory.delete(other.id(), EndReason::Revoked);
        assert!(ended.now_or_never().unwrap().unwrap());
    }
    for stream in streams {
        ends_within(SECOND, stream).await;
    }
    assert!(stays_silent(&mut stream, HOUR).await);
}

#[tokio::test(start_paused = true)]
async fn it_ends_on_other_nodes_within_a_check_where_there_is_none() {
    for (idle, limit) in [(HOUR, 15 * SECOND), (30 * SECOND, 10 * SECOND)] {
        let store = TestStore::default().without_feed();
        let node = || Node::with(&store, |layer| layer.with_idle_timeout(idle));
        let (here, there) = (node(), node());
        let id = here.initialize().await;
        let (read, _unread) = (there.open(&id).await, there.open(&id).await);
        sleep(HOUR).await;
        here.delete(&id).await;
        ends_within(limit, read).await;
        assert_eq!(there.inner.bodies(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_let_in_before_the_end_gets_no_stream_after_it() {
    for kind in ["get", "post"] {
        let store = TestStore::default();
        let node = Node::new(&store);
        let id = node.initialize().await;
        let request = if kind == "get" { get(&id) } else { post(&id) };
        let mut answer = Box::pin(node.send(scripted(request, "wait, stream")));
        set_off(&mut answer).await;
        node.delete(&id).await;
        node.inner.gate.add_permits(1);
        let answer = answer.await;
        assert_eq!(answer.status(), 404);
        assert_eq!(kind_of(&answer), Some(RejectionKind::Ended));
        assert_eq!(node.inner.bodies(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_ended_a_stream_costs_one_store_call() {
    let store = TestStore::default();
    let node = Node::new(&store);
    let id = node.initialize().await;
    store.take_counts();
    let mut answer = Box::pin(node.send(scripted(get(&id), "wait")));
    set_off(&mut answer).await;
    node.inner.gate.add_permits(1);
    let _stream = answer.await;
    sleep(SECOND).await;
    assert_eq!(store.take_counts(), [("touch_now", 1)].into());
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_streams_make_one_touch_a_beat_and_end_together() {
    const STREAMS: usize = 10_000;
    let store = TestStore::default();
    let node = Node::with(&store, |layer| layer.with_idle_timeout(30 * MINUTE));
    let id = node.initialize().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(node.open(&id).await);
    }
    store.take_counts();
    sleep(10 * MINUTE).await;
    assert_eq!(store.take_counts(), [("touch", 1)].into());
    assert_eq!(node.inner.bodies(), STREAMS);

    let start = std::time::Instant::now();
    node.delete(&id).await;
    assert_eq!(node.inner.bodies(), 0);
    drop(streams);
    // A scan for each would be 50 million steps.
    let took = start.elapsed();
    println!("{STREAMS} streams ended and dropped in {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_stream_is_not_the_end_of_its_session() {
    let node = Node::new(&TestStore::default());
    let id = node.initialize().await;
    drop(node.open(&id).await);
    let body = node.open(&id).await;
    let sent = node.inner.streams.lock()[1].send("last".into());
    sent.unwrap();
    node.inner.streams.lock().clear();
    assert_eq!(ends_within(SECOND, body).await, "last");
    assert_eq!(node.inner.bodies(), 0);
    assert_eq!(node.post(&id).await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_reader_is_woken_and_nothing_more_is_handed_out() {
    let node = Node::new(&TestStore::default());
    let id = node.initialize().await;
    let mut body = node.open(&id).await;
    let event = node.inner.streams.lock()[0].clone();
    node.delete(&id).await;
    assert!(
        event.send("secret".into()).is_err(),
        "the inner body is gone"
    );
    assert!(body.frame().now_or_never().expect("at once").is_none());
    assert!(body.is_end_stream());
    assert!(body.frame().now_or_never().expect("again").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stream_promises_no_length_and_other_answers_are_not_watched() {
    let node = Node::new(&TestStore::default());
    let id = node.initialize().await;
    let stream = node.open(&id).await;
    assert_eq!(stream.size_hint().exact(), None);
    let answer = node.send(post(&id)).await;
    assert!(answer.body().size_hint().exact().is_some());
    let start = Instant::now();
    node.delete(&id).await;
    let (_, read) = read_to_end(answer.into_body()).await;
    assert!(!read.is_empty(), "an answer that is no stream is not cut");
    assert!(start.elapsed() < SECOND);
}
