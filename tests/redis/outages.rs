//! An outage is not absence, and it ends by itself.

use std::{
    error::Error as _,
    time::{Duration, Instant},
};

use mcp_session_layer::{RedisStore, Session, SessionStore, store::EndReason};
use tokio::time::sleep;

use crate::{
    assert_unavailable, created, owner, proxy::Proxy, send, server::Server, session, terms, touch,
    words,
};

/// A server that keeps what it was told.
const DURABLE: &str = "--appendonly yes --appendfsync always";

/// How soon after an outage sessions are served again.
const SOON: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_server_that_is_killed_is_unavailable_and_served_again_after_its_start() {
    let Some(mut server) = Server::start(DURABLE) else {
        return;
    };
    let store = server.store().await;
    let ann = owner("a", Some("ann"));
    let session = created(&store, &ann, &terms()).await;
    let mut sessions = [session, created(&store, &ann, &terms()).await];
    for _ in 0..2 {
        server.kill();
        // Several times, on the lost connection and without any.
        for _ in 0..3 {
            all_verbs_are_unavailable(&store, &sessions[0]).await;
        }
        server.start_again();
        is_served_soon(&store, &sessions[0]).await;
        assert!(
            touch(&store, &sessions[1])
                .await
                .expect("answers")
                .is_some()
        );
        assert!(
            store
                .delete(sessions[1].id(), EndReason::Deleted)
                .await
                .expect("answers")
        );
        assert!(
            store
                .load(sessions[1].id())
                .await
                .expect("answers")
                .is_none()
        );
        sessions[1] = created(&store, &ann, &terms()).await;
    }
}

#[tokio::test]
async fn a_server_that_is_away_for_long_is_served_again_soon() {
    let Some(mut server) = Server::start(DURABLE) else {
        return;
    };
    let store = server.store().await;
    let session = created(&store, &owner("a", None), &terms()).await;
    server.kill();
    // Long enough that a manager with a few tries had given up, and one with growing delays slept.
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        assert_unavailable(touch(&store, &session).await);
    }
    server.start_again();
    is_served_soon(&store, &session).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_unavailable_within_a_bound() {
    let Some(server) = Server::start("") else {
        return;
    };
    let store = server.store().await;
    let session = created(&store, &owner("a", None), &terms()).await;
    server.freeze();
    let asked = Instant::now();
    assert_unavailable(touch(&store, &session).await);
    assert!(
        asked.elapsed() < Duration::from_secs(3),
        "a call is bounded"
    );
    all_verbs_are_unavailable(&store, &session).await;
    server.thaw();
    is_served_soon(&store, &session).await;
}

/// A connection that is made while the server hangs.
#[tokio::test]
async fn a_server_that_hangs_after_its_start_is_served_when_it_answers() {
    let Some(mut server) = Server::start(DURABLE) else {
        return;
    };
    let store = server.store().await;
    let session = created(&store, &owner("a", None), &terms()).await;
    server.kill();
    assert_unavailable(touch(&store, &session).await);
    server.start_again();
    server.freeze();
    for _ in 0..3 {
        assert_unavailable(touch(&store, &session).await);
    }
    server.thaw();
    is_served_soon(&store, &session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cuts_and_kills_under_load_never_make_a_session_absent() {
    let Some(mut server) = Server::start(DURABLE) else {
        return;
    };
    let store = server.store().await;
    let ann = owner("a", Some("ann"));
    let mut load = Vec::new();
    for _ in 0..32 {
        let (store, session) = (store.clone(), created(&store, &ann, &terms()).await);
        load.push(tokio::spawn(async move {
            let (mut served, mut failed) = (0, 0);
            let until = Instant::now() + Duration::from_secs(5);
            while Instant::now() < until {
                match touch(&store, &session).await {
                    Ok(found) => {
                        assert!(found.is_some(), "a live session is absent");
                        served += 1;
                    }
                    error => {
                        assert_unavailable(error);
                        failed += 1;
                    }
                }
                // A layer does not ask at once again either.
                sleep(Duration::from_millis(2)).await;
            }
            is_served_soon(&store, &session).await;
            (served, failed)
        }));
    }
    for _ in 0..5 {
        sleep(Duration::from_millis(300)).await;
        let _: usize = send(&server.url(), &mut words("CLIENT KILL TYPE normal")).await;
    }
    for _ in 0..2 {
        sleep(Duration::from_millis(300)).await;
        server.kill();
        sleep(Duration::from_millis(200)).await;
        server.start_again();
    }
    let (mut served, mut failed) = (0, 0);
    for task in load {
        let (s, f) = task.await.expect("no session was absent");
        served += s;
        failed += f;
    }
    assert!(served > 0 && failed > 0, "{served} served, {failed} failed");
}

/// A server that loads its data answers, but not whether a session is live.
#[tokio::test]
async fn a_server_that_loads_is_unavailable() {
    let Some(server) = Server::start(DURABLE) else {
        return;
    };
    let store = server.store().await;
    let session = created(&store, &owner("a", None), &terms()).await;
    // It loads slowly enough to be asked meanwhile.
    let url = server.url();
    let _: () = send(&url, &mut words("DEBUG POPULATE 200000")).await;
    let _: () = send(&url, &mut words("CONFIG SET key-load-delay 50")).await;
    let _: () = send(
        &url,
        &mut words("CONFIG SET loading-process-events-interval-bytes 1024"),
    )
    .await;
    let reload = tokio::spawn(async move {
        let client = redis::Client::open(url).expect("a URL");
        let mut connection = client
            .get_multiplexed_async_connection()
            .await
            .expect("answers");
        let _: Result<(), _> = words("DEBUG RELOAD").query_async(&mut connection).await;
    });
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(Instant::now() < until, "it was not asked while it loaded");
        sleep(Duration::from_millis(20)).await;
        match touch(&store, &session).await {
            Ok(found) => assert!(found.is_some(), "a live session is absent"),
            Err(error) => {
                let source = error.source().map(ToString::to_string).unwrap_or_default();
                assert_unavailable::<()>(Err(error));
                if source.contains("loading") {
                    break;
                }
            }
        }
    }
    reload.abort();
    let _: () = send(&server.url(), &mut words("CONFIG SET key-load-delay 0")).await;
    is_served_soon(&store, &session).await;
}

/// A former primary holds sessions, and lacks others. It is not asked about either.
#[tokio::test]
async fn a_replica_does_not_decide() {
    let (Some(server), Some(primary)) = (Server::start(""), Server::start("")) else {
        return;
    };
    let store = server.store().await;
    let anonymous = owner("a", None);
    let live = created(&store, &anonymous, &terms()).await;
    let never = session(&anonymous);
    let demote = format!("REPLICAOF 127.0.0.1 {}", primary.port());
    let _: () = send(&server.url(), &mut words(&demote)).await;
    for session in [&live, &never] {
        all_verbs_are_unavailable(&store, session).await;
    }
    let _: () = send(&server.url(), &mut words("REPLICAOF NO ONE")).await;
    created(&store, &anonymous, &terms()).await;
}

/// A host name that leads to another server after a failover, while the old one lives on as a replica.
#[tokio::test]
async fn a_connection_to_a_former_primary_is_given_up() {
    let (Some(former), Some(primary)) = (Server::start(""), Server::start("")) else {
        return;
    };
    let proxy = Proxy::to(former.port()).await;
    let store = RedisStore::connect(proxy.url()).await.expect("answers");
    let anonymous = owner("a", None);
    created(&store, &anonymous, &terms()).await;
    let demote = format!("REPLICAOF 127.0.0.1 {}", primary.port());
    let _: () = send(&former.url(), &mut words(&demote)).await;
    proxy.lead_to(primary.port());
    assert_unavailable(store.create(&session(&anonymous), &terms()).await);
    let since = Instant::now();
    while store.create(&session(&anonymous), &terms()).await.is_err() {
        assert!(since.elapsed() < SOON, "the new primary is not found");
        sleep(Duration::from_millis(20)).await;
    }
}

/// An error that is no I/O error while connecting must not be the last word.
#[tokio::test]
async fn a_server_that_refused_connections_is_served_again() {
    let Some(server) = Server::start("") else {
        return;
    };
    let store = server.store().await;
    let session = created(&store, &owner("a", None), &terms()).await;
    let admin = redis::Client::open(server.url()).expect("a URL");
    let mut admin = admin
        .get_multiplexed_async_connection()
        .await
        .expect("answers");
    let mut obey = async |command: &str| {
        let _: redis::Value = words(command)
            .query_async(&mut admin)
            .await
            .expect("is obeyed");
    };
    obey("CONFIG SET requirepass other").await;
    obey("CLIENT KILL TYPE normal").await;
    // For longer than a manager with a few tries would try.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        assert!(touch(&store, &session).await.is_err());
    }
    obey("CONFIG SET requirepass ").await;
    is_served_soon(&store, &session).await;
}

async fn all_verbs_are_unavailable(store: &RedisStore, live: &Session) {
    assert_unavailable(touch(store, live).await);
    assert_unavailable(store.load(live.id()).await);
    assert_unavailable(store.create(&session(live.owner()), &terms()).await);
    let never = session(live.owner());
    assert_unavailable(store.delete(never.id(), EndReason::Deleted).await);
}

pub(crate) async fn is_served_soon(store: &RedisStore, session: &Session) {
    let since = Instant::now();
    loop {
        match touch(store, session).await {
            Ok(found) => {
                assert!(found.is_some(), "a live session is absent");
                return;
            }
            Err(error) => assert!(since.elapsed() < SOON, "still {error:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}
