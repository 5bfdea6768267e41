//! `Last-Event-ID` opens events of its own session, and nothing else.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use futures_util::stream;
use http::Request;
use mcp_session_layer::{MemoryStore, SessionStore};
use parking_lot::Mutex;
use rmcp::transport::streamable_http_server::session::{
    EventId, EventStore, EventStoreError, EventStream, ServerSseMessage, local::LocalSessionManager,
};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    node::{Events, Node, call, id_of, text},
    support::{
        answers::Answer,
        requests::{get, with_header},
        store::TestStore,
    },
};

/// The events of everybody, numbered from nought.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(String, ServerSseMessage)>>>);

#[async_trait::async_trait]
impl EventStore for Log {
    async fn store_event(
        &self,
        stream: &str,
        event: &ServerSseMessage,
    ) -> Result<EventId, EventStoreError> {
        let mut log = self.0.lock();
        log.push((stream.to_owned(), event.clone()));
        Ok((log.len() - 1).to_string())
    }

    async fn replay_events_after(&self, last: &str) -> Result<EventStream, EventStoreError> {
        let last: usize = last.parse()?;
        let log = self.0.lock();
        let (stream, _) = log.get(last).ok_or("no such event")?;
        let later = log.iter().enumerate().skip(last + 1);
        let later = later.filter(|(_, (of, _))| of == stream);
        let later: Vec<_> = later
            .map(|(number, (_, event))| {
                let mut event = event.clone();
                event.event_id = Some(number.to_string());
                event
            })
            .collect();
        Ok(Box::pin(stream::iter(later)))
    }
}

impl Log {
    fn node(&self, store: &(impl SessionStore + Clone), key: Option<&str>) -> Node {
        let manager = LocalSessionManager::default().with_event_store(Arc::new(self.clone()));
        Node::with(store, manager, |layer| layer, key)
    }

    fn len(&self) -> usize {
        self.0.lock().len()
    }
}

fn after(id: &str, event: &str) -> Request<Body> {
    with_header(get(id), "last-event-id", event)
}

async fn tell(node: &Node, user: &str, id: &str) {
    let answer = node.send(user, call(id, "tell", json!({}))).await;
    assert_eq!(text(&answer), "told");
}

/// An event that is a notification, and its id.
async fn told(events: &mut Events) -> String {
    loop {
        let event = events.next().await.expect("a notification");
        if event.contains("tools/list_changed") {
            return id_of(&event).expect("an id");
        }
    }
}

/// A client that gets an empty 200 comes back for ever.
#[track_caller]
fn assert_unknown(answer: &Answer) {
    assert_eq!(answer.status, 400, "{}", answer.wire());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.ids().is_empty());
}

/// Alice's stream breaks off after the first of two events. Answers the first one's id.
async fn miss_one(node: &Node, id: &str) -> String {
    let mut events = Events::of(node.open("alice", get(id)).await);
    tell(node, "alice", id).await;
    let first = told(&mut events).await;
    tell(node, "alice", id).await;
    told(&mut events).await;
    first
}

#[tokio::test]
async fn a_stream_goes_on_where_it_broke_off() {
    let store = MemoryStore::new();
    for node in [Node::new(&store), Log::default().node(&store, None)] {
        let id = node.initialize("alice").await;
        let first = miss_one(&node, &id).await;
        let mut resumed = Events::of(node.open("alice", after(&id, &first)).await);
        let second = told(&mut resumed).await;
        assert_ne!(first, second);
        // And again from there, with the id under which it was replayed.
        let again = node.open("alice", after(&id, &second)).await;
        assert_eq!(again.status(), 200);
    }
}

/// In memory rmcp keeps an answer as long as it is under way; an event store keeps it for good.
#[tokio::test]
async fn an_answer_that_broke_off_is_had_all_the_same() {
    let store = MemoryStore::new();
    let stored = Log::default().node(&store, None);
    for (node, before) in [(Node::new(&store), 0), (stored, 800)] {
        let id = node.initialize("alice").await;
        let sleeping = call(&id, "sleep", json!({ "milliseconds": 400 }));
        let mut answer = Events::of(node.open("alice", sleeping).await);
        let first = answer.next_id().await.expect("an event before the answer");
        drop(answer);
        sleep(Duration::from_millis(before)).await;
        let mut resumed = Events::of(node.open("alice", after(&id, &first)).await);
        let event = resumed.next().await.expect("the answer");
        assert!(event.contains("slept"), "{event}");
        let last = id_of(&event).expect("an id");
        assert_ne!(first, last);
    }
}

#[tokio::test]
async fn nobody_reads_another_s_events() {
    let store = MemoryStore::new();
    let log = Log::default();
    let shared = [log.node(&store, Some("key")), log.node(&store, Some("key"))];
    for (alice_s, bob_s) in [(0, 0), (0, 1)] {
        let (alice_s, bob_s) = (&shared[alice_s], &shared[bob_s]);
        let alice = alice_s.initialize("alice").await;
        let theirs = miss_one(alice_s, &alice).await;
        let bob = bob_s.initialize("bob").await;
        let mine = miss_one_of_bob(bob_s, &bob).await;
        let (_, my_tag) = mine.rsplit_once('.').unwrap();
        let (their_event, _) = theirs.rsplit_once('.').unwrap();

        assert_unknown(&bob_s.send("bob", after(&bob, &theirs)).await);
        for number in 0..=log.len() + 1 {
            assert_unknown(&bob_s.send("bob", after(&bob, &number.to_string())).await);
        }
        // With their own tag behind somebody's event it is their own stream that opens, and nothing is replayed there.
        let forged = format!("{their_event}.{my_tag}");
        let mut forged = Events::of(bob_s.open("bob", after(&bob, &forged)).await);
        while let Some(event) = forged.next().await {
            assert!(!event.contains("data: {"), "{event}");
        }
        // Nor does it help to borrow the session.
        assert_eq!(bob_s.send("bob", after(&alice, &theirs)).await.status, 404);
        // What was theirs all along still is.
        let mut resumed = Events::of(alice_s.open("alice", after(&alice, &theirs)).await);
        told(&mut resumed).await;
    }
}

async fn miss_one_of_bob(node: &Node, id: &str) -> String {
    let mut events = Events::of(node.open("bob", get(id)).await);
    tell(node, "bob", id).await;
    told(&mut events).await
}

#[tokio::test]
async fn without_an_event_store_an_id_is_good_for_its_session() {
    let store = MemoryStore::new();
    let node = Node::new(&store);
    let (alice, bob) = (node.initialize("alice").await, node.initialize("bob").await);
    let theirs = miss_one(&node, &alice).await;
    assert_unknown(&node.send("bob", after(&bob, &theirs)).await);
    for made_up in ["7", "0/0", "1/2", "nonsense", ".", "0.sAAAAAAAA"] {
        assert_unknown(&node.send("bob", after(&bob, made_up)).await);
    }
    // The session is none the worse for it.
    assert_eq!(node.ping("bob", &bob).await, 200);
    // An answer of which nothing is kept any more.
    let gone = call(&alice, "sleep", json!({ "milliseconds": 0 }));
    let gone = node.send("alice", gone).await;
    let gone = gone
        .body
        .split("\n\n")
        .filter_map(id_of)
        .next()
        .expect("an id");
    assert_unknown(&node.send("alice", after(&alice, &gone)).await);
}

#[tokio::test]
async fn a_stream_is_opened_anew_on_another_node() {
    let store = MemoryStore::new();
    let there = TestStore::over(&store).remote();
    let log = Log::default();
    let pairs = [
        (Node::new(&store), Node::new(&there)),
        // An event store without a key in common.
        (log.node(&store, None), log.node(&there, None)),
    ];
    for (a, b) in pairs {
        let id = a.initialize("alice").await;
        let first = miss_one(&a, &id).await;
        let mut answer = Events::of(
            a.open("alice", call(&id, "sleep", json!({ "milliseconds": 9 })))
                .await,
        );
        let of_an_answer = answer
            .next_id()
            .await
            .expect("an event ahead of the answer");

        let mut anew = Events::of(b.open("alice", after(&id, &first)).await);
        tell(&b, "alice", &id).await;
        let next = told(&mut anew).await;
        drop(anew);
        assert_eq!(b.open("alice", after(&id, &next)).await.status(), 200);
        // The answer is not here, and no other one is taken for it.
        assert_unknown(&b.send("alice", after(&id, &of_an_answer)).await);
    }
}

#[tokio::test]
async fn with_an_event_store_and_a_key_a_stream_goes_on_on_another_node() {
    let store = MemoryStore::new();
    let log = Log::default();
    let (a, b) = (log.node(&store, Some("key")), log.node(&store, Some("key")));
    let id = a.initialize("alice").await;
    let first = miss_one(&a, &id).await;
    let mut resumed = Events::of(b.open("alice", after(&id, &first)).await);
    told(&mut resumed).await;
}

/// rmcp itself puts this one ahead of a stream.
#[tokio::test]
async fn the_id_before_all_others_opens_the_stream() {
    let store = MemoryStore::new();
    let node = Node::new(&store);
    let id = node.initialize("alice").await;
    let mut events = Events::of(node.open("alice", after(&id, "0")).await);
    tell(&node, "alice", &id).await;
    told(&mut events).await;
}
