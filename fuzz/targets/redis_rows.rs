//! Hashes in Redis that the crate did not write, read back: an error, a session that the hash names, or none. Needs a
//! server at `REDIS_URL`, by default the one that the tests use.
#![no_main]

use std::{sync::LazyLock, time::Duration};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mcp_session_layer::{
    Issuer, Owner, Principal, RedisStore, Scope, Session, SessionId, SessionRecord,
    SessionStore as _,
    store::{AtLimit, EndReason, StoreError, StoreErrorKind, Terms},
};
use redis::{Client, Commands as _, Connection, RedisError};
use tokio::runtime::{Builder, Runtime};

#[derive(Debug, Arbitrary)]
enum Change {
    Set(Field, Vec<u8>),
    Number(Field, i64),
    Remove(Field),
}

#[derive(Debug, Arbitrary)]
enum Field {
    Created,
    LifeEnds,
    IndexEnds,
    LatestTouch,
    OwnerKey,
    Scope,
    Principal,
    Issuer,
    Name,
    Release,
    Version,
    Values,
    Params,
}

impl Field {
    fn name(&self) -> &'static str {
        match self {
            Self::Created => "b",
            Self::LifeEnds => "e",
            Self::IndexEnds => "l",
            Self::LatestTouch => "t",
            Self::OwnerKey => "m",
            Self::Scope => "s",
            Self::Principal => "p",
            Self::Issuer => "i",
            Self::Name => "n",
            Self::Release => "r",
            Self::Version => "v",
            Self::Values => "w",
            Self::Params => "j",
        }
    }
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().unwrap());

static PREFIX: LazyLock<String> = LazyLock::new(|| format!("fuzz-{}", std::process::id()));

fn url() -> String {
    std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned())
}

static STORE: LazyLock<RedisStore> = LazyLock::new(|| {
    let store = RUNTIME
        .block_on(RedisStore::connect(url()))
        .expect("Redis answers");
    store.with_prefix(PREFIX.as_str())
});

thread_local! {
    static SERVER: std::cell::RefCell<Connection> =
        Client::open(url()).unwrap().get_connection().expect("Redis answers").into();
}

fuzz_target!(|changes: Vec<Change>| {
    let store = &*STORE;
    RUNTIME.block_on(check(&changes, store));
});

async fn check(changes: &[Change], store: &RedisStore) {
    let owner = Owner {
        scope: Scope::default(),
        principal: Some(Principal::new("a")),
    };
    let session = Session::new(
        SessionId::issue(),
        SessionRecord::new(owner.clone(), Issuer::Layer),
    );
    let minute = Duration::from_secs(60);
    let terms = Terms {
        idle: minute,
        initial_idle: minute,
        life: None,
        total: None,
        per_principal: None,
        at_limit: AtLimit::Refuse,
        started_ago: Duration::ZERO,
    };
    store.create(&session, &terms).await.unwrap();
    SERVER
        .with_borrow_mut(|server| write(server, changes, &session))
        .unwrap();
    if let Some(found) = understood(store.load(session.id()).await) {
        assert!(found.life_left.is_none_or(|left| found.idle_left <= left));
    }
    if let Some(found) = understood(store.touch(session.id(), &owner, minute).await) {
        assert_eq!(*found.session.owner(), owner);
        assert!(found.idle_left <= minute + minute / 16);
    }
    understood(store.expire(session.id()).await.map(Some));
    understood(
        store
            .delete(session.id(), EndReason::Deleted)
            .await
            .map(Some),
    );
    SERVER.with_borrow_mut(|server| {
        // What a lost owner key leaves in the index would make later runs slower.
        for key in keys(server, "*").unwrap() {
            server.del::<_, ()>(key).unwrap();
        }
    });
}

fn understood<T>(answer: Result<Option<T>, StoreError>) -> Option<T> {
    answer.unwrap_or_else(|error| {
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error:?}");
        None
    })
}

fn keys(server: &mut Connection, which: &str) -> Result<Vec<String>, RedisError> {
    server.keys(format!("{}:{which}", *PREFIX))
}

fn write(server: &mut Connection, changes: &[Change], session: &Session) -> Result<(), RedisError> {
    let hex: String = session
        .reference()
        .as_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let key = keys(server, &format!("*:s:{hex}"))?
        .pop()
        .expect("a session's hash");
    for change in changes {
        match change {
            Change::Set(field, value) => server.hset::<_, _, _, ()>(&key, field.name(), value)?,
            Change::Number(field, value) => {
                server.hset::<_, _, _, ()>(&key, field.name(), value)?
            }
            Change::Remove(field) => server.hdel::<_, _, ()>(&key, field.name())?,
        }
    }
    Ok(())
}
