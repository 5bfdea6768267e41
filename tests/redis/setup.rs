//! How a store is set up: addresses, policies, permissions.

use std::time::Duration;

use mcp_session_layer::{
    RedisStore, SessionStore,
    store::{EndReason, SessionFilter, StoreErrorKind},
};

use crate::{created, log::Log, owner, send, server::Server, session, terms, touch, words};

#[tokio::test]
async fn a_policy_that_drops_sessions_is_warned_about() {
    for (policy, warns) in [
        ("noeviction", false),
        ("allkeys-lru", true),
        ("volatile-ttl", true),
    ] {
        let Some(server) = Server::start(&format!("--maxmemory-policy {policy}")) else {
            return;
        };
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        let store = server.store().await;
        let says = store.eviction_policy().await.expect("answers");
        assert_eq!(says.as_deref(), warns.then_some(policy));
        // The warning comes by itself.
        for _ in 0..50 {
            if log.text().contains(policy) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(
            log.text().contains("WARN") && log.text().contains(policy),
            warns
        );
        drop(guard);
    }
}

#[tokio::test]
async fn a_wrong_address_or_password_is_said_at_once() {
    let Some(server) = Server::start("--requirepass right") else {
        return;
    };
    let with = |password: &str| format!("redis://:{password}@127.0.0.1:{}", server.port());
    let kind = async |url: &str| {
        RedisStore::connect(url)
            .await
            .map(drop)
            .map_err(|error| error.kind())
    };
    assert_eq!(kind(&with("right")).await, Ok(()));
    assert_eq!(kind(&with("wrong")).await, Err(StoreErrorKind::Failed));
    assert_eq!(kind("nonsense").await, Err(StoreErrorKind::Failed));
    assert_eq!(
        kind("redis://127.0.0.1:1").await,
        Err(StoreErrorKind::Unavailable)
    );
}

/// A manager that the application made is taken as it is, but no call waits for ever.
#[tokio::test]
async fn a_connection_of_ones_own_is_bounded_too() {
    let Some(server) = Server::start("") else {
        return;
    };
    let client = redis::Client::open(server.url()).expect("a URL");
    let patient = redis::aio::ConnectionManagerConfig::new().set_response_timeout(None);
    let manager = client
        .get_connection_manager_with_config(patient)
        .await
        .expect("answers");
    let store = RedisStore::new(client, manager);
    let session = created(&store, &owner("a", None), &terms()).await;
    server.freeze();
    let answer = tokio::time::timeout(Duration::from_secs(3), touch(&store, &session)).await;
    crate::assert_unavailable(answer.expect("a call is bounded"));
    server.thaw();
    assert!(touch(&store, &session).await.expect("answers").is_some());
}

/// The permissions that the documentation names are enough, and those of one prefix do not reach another.
#[tokio::test]
async fn the_documented_permissions_are_enough() {
    let Some(server) = Server::start("") else {
        return;
    };
    let rules = "ACL SETUSER app on >secret ~mcp:* &mcp:* +evalsha +eval +@read +@write +time +publish +subscribe +ping +info";
    let _: () = send(&server.url(), &mut words(rules)).await;
    let url = format!("redis://app:secret@127.0.0.1:{}", server.port());
    let store = RedisStore::connect(url).await.expect("answers");
    let (ann, anonymous) = (owner("a", Some("ann")), owner("a", None));
    let limited = mcp_session_layer::store::Terms {
        total: 5.try_into().ok(),
        ..terms()
    };
    let mut feed = store.feed().expect("there is one");
    let session_one = created(&store, &anonymous, &limited).await;
    assert!(
        touch(&store, &session_one)
            .await
            .expect("answers")
            .is_some()
    );
    assert!(
        store
            .load(session_one.id())
            .await
            .expect("answers")
            .is_some()
    );
    assert!(
        store
            .claim(session_one.id(), &ann, crate::MINUTE)
            .await
            .expect("answers")
            .is_some()
    );
    let directory = store.directory().expect("there is one");
    let filter = SessionFilter::Scope(ann.scope.clone());
    assert_eq!(directory.count(&filter).await.expect("answers"), 1);
    assert_eq!(
        directory
            .list(&filter, None, 9)
            .await
            .expect("answers")
            .len(),
        1
    );
    assert_eq!(
        directory
            .end_all(&filter, EndReason::Revoked)
            .await
            .expect("answers"),
        1
    );
    assert_eq!(store.eviction_policy().await.expect("answers"), None);
    let heard = tokio::time::timeout(
        Duration::from_secs(5),
        futures_util::StreamExt::next(&mut feed),
    )
    .await;
    assert!(heard.is_ok());

    let other = store.with_prefix("other");
    let refused = other
        .create(&session(&anonymous), &terms())
        .await
        .expect_err("not permitted");
    assert_eq!(refused.kind(), StoreErrorKind::Failed);
}

#[test]
fn a_store_says_nothing_secret_and_goes_anywhere() {
    fn goes_anywhere<T: Clone + Send + Sync + std::fmt::Debug + 'static>() {}
    goes_anywhere::<RedisStore>();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = redis::Client::open("redis://:password@127.0.0.1:1").expect("a URL");
        let config = redis::aio::ConnectionManagerConfig::new().set_number_of_retries(0);
        let manager = redis::aio::ConnectionManager::new_lazy_with_config(client.clone(), config);
        let store = RedisStore::new(client, manager.expect("a manager"));
        assert!(!format!("{store:?}").contains("password"));
    });
}
