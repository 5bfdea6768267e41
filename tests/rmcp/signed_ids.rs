//! Signed session ids in front of rmcp: it never sees a tag, and a session goes from node to node with it.

use mcp_session_layer::{MemoryStore, SigningKeys};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;

use crate::{
    node::{Events, Node},
    support::requests::{delete, get},
};

fn node(store: &MemoryStore, keys: SigningKeys) -> Node {
    Node::with(
        store,
        LocalSessionManager::default(),
        |layer| layer.with_signed_ids(keys),
        None,
    )
}

#[tokio::test]
async fn a_session_is_restored_while_keys_are_changed() {
    let store = MemoryStore::new();
    let (old, new) = ([1; 32], [2; 32]);
    let a = node(&store, SigningKeys::new(old).add_verifying(new));
    let b = node(&store, SigningKeys::new(new).add_verifying(old));
    let from_a = a.initialize("alice").await;
    let from_b = b.initialize("alice").await;
    for wire in [&from_a, &from_b] {
        assert_eq!(a.ping("alice", wire).await, 200);
        assert_eq!(b.ping("alice", wire).await, 200);
        assert_eq!(b.ping("mallory", wire).await, 404);
        assert_eq!(b.ping("alice", &wire[..wire.len() - 44]).await, 404);
    }
    for id in b.manager.sessions.read().await.keys() {
        assert!(id.len() == 36, "rmcp has a tag");
    }
    assert_eq!((a.holds().await, b.holds().await), (2, 2));
    let mut stream = Events::of(b.open("alice", get(&from_a)).await);
    assert!(stream.next().await.is_some());
    assert_eq!(a.send("alice", delete(&from_a)).await.status, 202);
    assert_eq!(b.ping("alice", &from_a).await, 404);
    b.until_it_holds(1).await;
}
