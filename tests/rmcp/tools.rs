//! A tool finds the session that it is called on.

use mcp_session_layer::MemoryStore;
use serde_json::json;

use crate::{
    node::{Node, call, text},
    support::sessions::reference,
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
