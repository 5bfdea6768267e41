//! `RedisStore` against real servers.
//!
//! The one at `REDIS_URL` (default `redis://127.0.0.1:6379`) is shared and left clean. Tests that break a server
//! start a `redis-server` of their own. Where there is neither, tests are skipped, loudly; with `CI` set they fail.

#![cfg(feature = "redis")]

#[cfg(feature = "_tests")]
#[path = "../support/certificates.rs"]
mod certificates;
mod cluster;
mod commands;
#[cfg(feature = "conformance")]
mod contract;
#[cfg(feature = "_tests")]
mod failover;
mod feed;
mod index;
#[cfg(feature = "test-kit")]
#[allow(dead_code)]
#[path = "../support/layer.rs"]
mod layer;
#[allow(dead_code)]
#[path = "../support/log.rs"]
mod log;
#[cfg(feature = "test-kit")]
mod nodes;
mod outages;
mod proxy;
#[cfg(feature = "test-kit")]
#[allow(dead_code)]
#[path = "../support/requests.rs"]
mod requests;
mod server;
mod setup;
#[cfg(feature = "_tests")]
mod tls;

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use mcp_session_layer::{
    Issuer, Owner, Principal, RedisStore, Scope, Session, SessionId, SessionRecord, SessionStore,
    store::{AtLimit, Created, Found, StoreError, StoreErrorKind, Terms},
};
use redis::{Cmd, FromRedisValue};

const MINUTE: Duration = Duration::from_secs(60);

fn terms() -> Terms {
    Terms {
        idle: MINUTE,
        initial_idle: MINUTE,
        life: None,
        total: None,
        per_principal: None,
        at_limit: AtLimit::Refuse,
        started_ago: Duration::ZERO,
    }
}

fn owner(scope: &str, principal: Option<&str>) -> Owner {
    Owner {
        scope: Scope::new(scope),
        principal: principal.map(Principal::new),
    }
}

fn session(owner: &Owner) -> Session {
    let record = SessionRecord::new(owner.clone(), Issuer::Layer);
    Session::new(SessionId::issue(), record)
}

async fn created(store: &RedisStore, owner: &Owner, terms: &Terms) -> Session {
    let session = session(owner);
    let created = store.create(&session, terms).await;
    assert!(matches!(created, Ok(Created::New { .. })), "{created:?}");
    session
}

/// This many creations, many at a time.
async fn create_many(
    store: &RedisStore,
    owner: &Owner,
    terms: &Terms,
    how_many: usize,
) -> Vec<Session> {
    stream::iter(0..how_many)
        .map(|_| created(store, owner, terms))
        .buffer_unordered(32)
        .collect()
        .await
}

async fn touch(store: &RedisStore, session: &Session) -> Result<Option<Found>, StoreError> {
    store.touch(session.id(), session.owner(), MINUTE).await
}

/// An outage is not absence: the answer is an error that invites another try.
fn assert_unavailable<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    match answer {
        Err(error) if error.kind() == StoreErrorKind::Unavailable => {}
        answer => panic!("an outage is not {answer:?}"),
    }
}

/// Sends a command beside the store.
async fn send<T: FromRedisValue>(url: &str, command: &mut Cmd) -> T {
    let client = redis::Client::open(url).expect("a URL");
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&patient)
        .await
        .expect("the server answers");
    command
        .query_async(&mut connection)
        .await
        .expect("the command is obeyed")
}

fn words(command: &str) -> Cmd {
    let mut words = command.split(' ');
    let mut cmd = redis::cmd(words.next().expect("a command"));
    words.for_each(|word| {
        cmd.arg(word);
    });
    cmd
}
