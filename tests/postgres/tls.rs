//! A server to which nobody gets without TLS.

use std::path::Path;

use mcp_session_layer::{
    PostgresStore, SessionStore as _,
    sqlx::postgres::{PgConnectOptions, PgSslMode},
    store::{EndReason, FeedEvent},
};

use crate::{
    cluster::Cluster,
    hearing::{SOON, end, event, next},
    pool_options,
    sql::{LONG, session, terms},
};

/// The server's name and its authority are checked.
pub(crate) fn verified(options: PgConnectOptions, authority: &Path) -> PgConnectOptions {
    let options = options.host("localhost").password("secret");
    options
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert(authority)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_served_and_heard() {
    let Some(mut cluster) = tokio::task::block_in_place(Cluster::with_tls) else {
        return;
    };
    let authority = cluster.directory().join("data/ca.pem");
    let options = verified(cluster.options(), &authority);
    let store = PostgresStore::new(pool_options().connect_with(options.clone()).await.unwrap());
    store.migrate().await.unwrap();
    let live = session();
    store.create(&live, &terms()).await.unwrap();
    let mut feed = store.feed().unwrap();
    assert_eq!(next(&mut feed, SOON).await, FeedEvent::Gap);
    let ended = end(&store).await;
    assert_eq!(next(&mut feed, SOON).await, event(&ended));

    // Connections are renewed, and the feed's own.
    tokio::task::block_in_place(|| {
        cluster.stop("INT");
        cluster.start_again();
    });
    while next(&mut feed, SOON).await != FeedEvent::Gap {}
    let found = store.touch(live.id(), live.owner(), LONG).await;
    assert!(found.unwrap().is_some());
    assert!(store.delete(live.id(), EndReason::Deleted).await.unwrap());

    let system = PgSslMode::VerifyFull;
    for (refused, why) in [
        (options.clone().host("127.0.0.1"), "another name"),
        (
            cluster.options().host("localhost").ssl_mode(system),
            "an unknown authority",
        ),
        (options.clone().password("wrong"), "a wrong password"),
        (options.ssl_mode(PgSslMode::Disable), "no TLS"),
    ] {
        let pool = pool_options().connect_with(refused).await;
        assert!(pool.is_err(), "{why}");
    }
}
