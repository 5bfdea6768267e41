//! A server that is spoken to in TLS only, by a user with no more than the permissions that are documented.

use mcp_session_layer::{
    RedisStore, SessionStore as _,
    redis::{Client, TlsCertificates},
    store::{EndReason, FeedEvent},
};

use crate::{created, feed, owner, server::Server, terms, touch};

#[tokio::test]
async fn a_user_with_tls_is_served_and_hears() {
    let Some(mut server) = Server::with_tls("--appendonly yes --appendfsync always", USERS) else {
        return;
    };
    let trusted = std::fs::read(server.directory().join("ca.pem")).expect("an authority");
    let port = server.port();
    let client = |user: &str, root: Option<&[u8]>| {
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: root.map(<[u8]>::to_vec),
        };
        let url = format!("rediss://{user}localhost:{port}");
        Client::build_with_tls(url, certificates).expect("a client")
    };
    let connect =
        async |client: Client| RedisStore::connect(client.get_connection_info().clone()).await;
    let store = connect(client("app:secret@", Some(&trusted))).await;
    let store = store.expect("is served");
    let mut hears = store.feed().expect("there is one");
    assert_eq!(feed::next(&mut hears).await, FeedEvent::Gap);
    let lives = created(&store, &owner("a", None), &terms()).await;
    let ends = created(&store, &owner("a", None), &terms()).await;
    store
        .delete(ends.id(), EndReason::Deleted)
        .await
        .expect("answers");
    assert_eq!(
        feed::next(&mut hears).await,
        feed::ended(ends.reference(), EndReason::Deleted)
    );

    // The connection is renewed, and so is the feed's.
    server.kill();
    crate::assert_unavailable(touch(&store, &lives).await);
    server.start_again();
    crate::outages::is_served_soon(&store, &lives).await;
    while feed::next(&mut hears).await != FeedEvent::Gap {}

    for (user, root, why) in [
        ("app:secret@", None, "an authority that nobody knows"),
        ("app:wrong@", Some(&trusted[..]), "a wrong password"),
        ("", Some(&trusted[..]), "no password"),
    ] {
        assert!(connect(client(user, root)).await.is_err(), "{why}");
    }
    let plain = RedisStore::connect(format!("redis://localhost:{port}")).await;
    assert!(plain.is_err(), "without TLS");
}

// A default user without permissions costs Redis 7.0 all that scripts wrote, when it reads its append-only file.
const USERS: &str = "user default off ~* &* +@all
user app on >secret ~mcp:* &mcp:* +evalsha +eval +@read +@write +time +publish +subscribe +ping +info
";
