//! A cluster that loses a primary, whose replica takes over.

use std::time::{Duration, Instant};

use mcp_session_layer::{
    RedisStore, Session, SessionStore,
    redis::{Client, cluster::ClusterClientBuilder},
    store::{EndReason, FeedEvent},
};
use tokio::time::sleep;

use crate::{create_many, feed, owner, send, server::Server, terms, touch, words};

/// Three primaries, and a replica of the first.
async fn cluster() -> Option<Vec<Server>> {
    let options = "--cluster-enabled yes --cluster-node-timeout 1000 --repl-diskless-sync-delay 0";
    let servers: Vec<_> = (0..4).map_while(|_| Server::start(options)).collect();
    if servers.len() < 4 {
        return None;
    }
    let mut slots = [(0, 5460), (5461, 10922), (10923, 16383)].into_iter();
    for server in &servers {
        if let Some((first, last)) = slots.next() {
            let slots = format!("CLUSTER ADDSLOTSRANGE {first} {last}");
            let _: () = send(&server.url(), &mut words(&slots)).await;
        }
        // Two nodes that meet need to differ in this.
        let epoch = format!("CLUSTER SET-CONFIG-EPOCH {}", server.port());
        let _: () = send(&server.url(), &mut words(&epoch)).await;
        let meet = format!("CLUSTER MEET 127.0.0.1 {}", servers[0].port());
        let _: () = send(&server.url(), &mut words(&meet)).await;
    }
    until(async || {
        let mut ok = true;
        for server in &servers {
            let info: String = send(&server.url(), &mut words("CLUSTER INFO")).await;
            ok &= info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4");
        }
        ok
    })
    .await;
    let first: String = send(&servers[0].url(), &mut words("CLUSTER MYID")).await;
    let replicate = format!("CLUSTER REPLICATE {first}");
    let _: () = send(&servers[3].url(), &mut words(&replicate)).await;
    until(async || {
        let info: String = send(&servers[3].url(), &mut words("INFO replication")).await;
        info.contains("master_link_status:up")
    })
    .await;
    Some(servers)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_dies_loses_no_session_that_was_replicated() {
    let Some(mut servers) = cluster().await else {
        return;
    };
    let client = ClusterClientBuilder::new(servers.iter().map(Server::url)).build();
    let connection = client.expect("URLs").get_async_connection().await;
    let feed_of = Client::open(servers[1].url()).expect("a URL");
    let store = RedisStore::new(feed_of, connection.expect("a cluster"));
    let mut hears = feed::feed(&store).await;
    let sessions = create_many(&store, &owner("a", Some("ann")), &terms(), 200).await;
    replicated(&servers).await;

    servers[0].kill();
    let (mut served, mut failed) = (0, 0);
    let until = Instant::now() + PATIENCE;
    let mut waiting: Vec<&Session> = sessions.iter().collect();
    while !waiting.is_empty() {
        assert!(Instant::now() < until, "{} are not served", waiting.len());
        let session = waiting[waiting.len() - 1];
        match touch(&store, session).await {
            Ok(found) => {
                assert!(found.is_some(), "a live session is absent");
                served += 1;
                waiting.pop();
            }
            Err(error) => {
                crate::assert_unavailable::<()>(Err(error));
                failed += 1;
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
    assert!(
        served == 200 && failed > 0,
        "{served} served, {failed} failed"
    );
    for session in &sessions {
        let ended = store.delete(session.id(), EndReason::Revoked).await;
        assert!(ended.expect("answers"));
        let heard = feed::ended(session.reference(), EndReason::Revoked);
        while feed::next(&mut hears).await != heard {}
    }
}

/// The node from which ends are heard is gone, and the store is not.
#[tokio::test]
async fn while_the_feed_s_node_is_away_subscribers_are_told_to_ask() {
    let (Some(mut heard), Some(other)) = (Server::start(""), Server::start("")) else {
        return;
    };
    let client = Client::open(heard.url()).expect("a URL");
    let manager = Client::open(other.url()).expect("a URL");
    let manager = manager.get_connection_manager().await;
    let store = RedisStore::new(client, manager.expect("answers"));
    let mut feed = store.feed().expect("there is one");
    assert_eq!(feed::next(&mut feed).await, FeedEvent::Gap);
    heard.kill();
    for _ in 0..3 {
        assert_eq!(feed::next(&mut feed).await, FeedEvent::Gap);
    }
}

async fn replicated(servers: &[Server]) {
    let offset = async |server: &Server, name: &str| {
        let info: String = send(&server.url(), &mut words("INFO replication")).await;
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    let primary = offset(&servers[0], "master_repl_offset:").await;
    until(async || offset(&servers[3], "slave_repl_offset:").await >= primary).await;
}

async fn until(is_so: impl AsyncFn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < until, "it does not come about");
        sleep(Duration::from_millis(50)).await;
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
