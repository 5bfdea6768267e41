//! Hashes in Redis that the crate did not write, read back: an error, a session that the hash names, or none. Needs a
//! server at `REDIS_URL`, by default the one that the tests use.
#![no_main]

mod rows;

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mcp_session_layer::{RedisStore, Session, SessionStore as _};
use redis::{
    AsyncCommands as _, AsyncConnectionConfig, Client, RedisError, aio::MultiplexedConnection,
};
use tokio::runtime::{Builder, Runtime};

use self::rows::{HOUR, created, end, understood};

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

/// One that waits with the runtime: a system call of its own would be interrupted by the fuzzer's clock.
static SERVER: LazyLock<MultiplexedConnection> = LazyLock::new(|| {
    let client = Client::open(url()).unwrap();
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    RUNTIME
        .block_on(client.get_multiplexed_async_connection_with_config(&config))
        .expect("Redis answers")
});

fuzz_target!(|changes: Vec<Change>| {
    let (store, mut server) = (&*STORE, SERVER.clone());
    RUNTIME.block_on(check(&changes, store, &mut server));
});

async fn check(changes: &[Change], store: &RedisStore, server: &mut MultiplexedConnection) {
    let session = created(store).await;
    let owner = session.owner();
    write(server, changes, &session).await.unwrap();
    if let Some(found) = understood(store.load(session.id()).await) {
        assert!(found.life_left.is_none_or(|left| found.idle_left <= left));
    }
    if let Some(found) = understood(store.touch(session.id(), owner, HOUR).await) {
        assert_eq!(found.session.owner(), owner);
        assert!(found.idle_left <= HOUR + HOUR / 16);
    }
    end(store, &session).await;
    // What a lost owner key leaves in the index would make later runs slower.
    for key in keys(server, "*").await.unwrap() {
        server.del::<_, ()>(key).await.unwrap();
    }
}

async fn keys(server: &mut MultiplexedConnection, which: &str) -> Result<Vec<String>, RedisError> {
    server.keys(format!("{}:{which}", *PREFIX)).await
}

async fn write(
    server: &mut MultiplexedConnection,
    changes: &[Change],
    session: &Session,
) -> Result<(), RedisError> {
    let hex: String = session
        .reference()
        .as_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let key = keys(server, &format!("*:s:{hex}"))
        .await?
        .pop()
        .expect("a session's hash");
    for change in changes {
        match change {
            Change::Set(field, value) => {
                server
                    .hset::<_, _, _, ()>(&key, field.name(), value)
                    .await?
            }
            Change::Number(field, value) => {
                server
                    .hset::<_, _, _, ()>(&key, field.name(), value)
                    .await?
            }
            Change::Remove(field) => server.hdel::<_, _, ()>(&key, field.name()).await?,
        }
    }
    Ok(())
}
