//! A tool finds the session that it is called on.

use mcp_session_layer::MemoryStore;
use serde_json::json;

use crate::{
    node::{Node, call, text},
    support::{
        answers::send,
        requests::{INITIALIZED, initialize, post, with_header},
        sessions::reference,
    },
};

#[tokio::test]
async fn a_tool_finds_its_session_on_every_node() {
    let store = MemoryStore::new();
    // As remote stores do, each node has handles of its own.
    let there = crate::support::store::TestStore::over(&store).remote();
    let (a, b) = (Node::new(&store), Node::new(&there));
    let id = a.initialize("alice").await;
    let mine = async |node: &Node, user: &str, id: &str| {
        let answer = node.send(user, call(id, "mine", json!({}))).await;
        text(&answer)
    };
    let says = |calls: u32| format!("{calls} alice {}", reference(&id));
    assert_eq!(mine(&a, "alice", &id).await, says(1));
    assert_eq!(mine(&a, "alice", &id).await, says(2));
    // Restored, and counted.
    assert!(mine(&b, "alice", &id).await.ends_with(&says(1)[2..]));
    let other = b.initialize("bob").await;
    assert_eq!(
        mine(&b, "bob", &other).await,
        format!("1 bob {}", reference(&other))
    );
}

#[tokio::test]
async fn the_example_puts_things_aside_for_each_session() {
    let app = crate::rmcp_tools::app();
    let send = async |user: &str, request| {
        let token = format!("Bearer {user}");
        send(&app, with_header(request, "authorization", &token)).await
    };
    let put = |id: &str, item: &str| call(id, "put_aside", json!({ "item": item }));
    let open = async |user: &str| {
        let id = send(user, initialize()).await.id();
        let mut initialized = post(&id);
        *initialized.body_mut() = INITIALIZED.into();
        assert_eq!(send(user, initialized).await.status, 202);
        id
    };
    let (alice, bob) = (open("alice").await, open("bob").await);
    let said = text(&send("alice", put(&alice, "a hat")).await);
    assert_eq!(said, "put aside for alice: a hat");
    let said = text(&send("alice", put(&alice, "a coat")).await);
    assert_eq!(said, "put aside for alice: a hat, a coat");
    let said = text(&send("bob", put(&bob, "a shoe")).await);
    assert_eq!(said, "put aside for bob: a shoe");
    assert_eq!(send("bob", put(&alice, "it")).await.status, 404);
}
