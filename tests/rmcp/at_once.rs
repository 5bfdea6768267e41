//! Requests of one session that arrive at once at a node that has never seen it, whatever the store.
//!
//! `RMCP_ROUNDS` and `RMCP_SESSIONS` say how many rounds, and how many sessions at once; `.ci/long` has a thousand of each.

use std::{env, iter, sync::Arc, time::Duration};

use futures_util::future::{JoinAll, join_all};
use mcp_session_layer::{CreationRates, MemoryStore, SessionId, SessionStore};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use tokio::time::Instant;

use crate::{
    node::Node,
    support::requests::{delete, get},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_are_served_from_memory() {
    all_are_served("memory", MemoryStore::new()).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_are_served_from_sqlite() {
    use mcp_session_layer::{SqliteStore, sqlx::sqlite::*};

    let directory = env::temp_dir().join(unique());
    std::fs::create_dir(&directory).unwrap();
    let options = SqliteConnectOptions::new()
        .filename(directory.join("sessions.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let store = SqliteStore::new(
        SqlitePoolOptions::new()
            .connect_with(options)
            .await
            .unwrap(),
    );
    store.migrate().await.unwrap();
    all_are_served("SQLite", store).await;
    std::fs::remove_dir_all(directory).unwrap();
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_are_served_from_postgres() {
    use mcp_session_layer::{
        PostgresStore,
        sqlx::{self, postgres::PgPoolOptions},
    };

    let url = ["DATABASE_URL", "POSTGRES_URL"]
        .into_iter()
        .find_map(|name| env::var(name).ok());
    let url = url.unwrap_or("postgres://postgres@127.0.0.1:5432/postgres".to_owned());
    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_secs(1));
    let Some(pool) = reached("PostgreSQL", pool.connect(&url).await) else {
        return;
    };
    let table = unique();
    let store = PostgresStore::new(pool.clone()).with_table(&table);
    store.migrate().await.unwrap();
    all_are_served("PostgreSQL", store).await;
    for table in [table.clone(), format!("{table}_revoked")] {
        let drop = sqlx::AssertSqlSafe(format!("drop table \"{table}\""));
        sqlx::raw_sql(drop).execute(&pool).await.unwrap();
    }
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_are_served_from_redis() {
    use mcp_session_layer::{RedisStore, redis};

    let url = env::var("REDIS_URL").unwrap_or("redis://127.0.0.1:6379".to_owned());
    let Some(store) = reached("Redis", RedisStore::connect(url.as_str()).await) else {
        return;
    };
    let prefix = unique();
    all_are_served("Redis", store.with_prefix(prefix.as_str())).await;
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let pattern = format!("{prefix}*");
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(pattern)
        .query_async(&mut connection)
        .await
        .unwrap();
    for key in keys {
        let _: () = redis::cmd("DEL")
            .arg(key)
            .query_async(&mut connection)
            .await
            .unwrap();
    }
}

async fn all_are_served(name: &str, store: impl SessionStore + Clone) {
    let (a, b) = (node(&store), node(&store));
    rounds(name, &a, &b).await;
    many_sessions(name, &a, &b).await;
}

/// One GET and five calls at once, each time on a session that is new here.
async fn rounds(name: &str, a: &Node, b: &Arc<Node>) {
    let mut wrong = Vec::new();
    let rounds = how_many("RMCP_ROUNDS", 20);
    for _ in 0..rounds {
        let id = a.initialize("alice").await;
        let stream = tokio::spawn(stream(b, &id));
        let answers = (0..5).map(|_| tokio::spawn(answered(b, &id)));
        for answer in iter::once(stream)
            .chain(answers)
            .collect::<JoinAll<_>>()
            .await
        {
            wrong.extend(Some(answer.unwrap()).filter(|status| *status != 200));
        }
        assert_eq!(a.send("alice", delete(&id)).await.status, 202);
    }
    println!("{name}: {rounds} rounds, {} failures", wrong.len());
    assert_eq!(wrong, [0; 0], "{name}, {rounds} rounds");
    // Each session was restored for one of its requests.
    let restored = b.service.restored.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(restored, rounds, "{name}");
    b.until_it_holds(0).await;
}

/// Sessions of other nodes, all at once, as when a balancer gives a new node everything.
async fn many_sessions(name: &str, a: &Node, b: &Arc<Node>) {
    let sessions = how_many("RMCP_SESSIONS", 100);
    let mut ids = Vec::new();
    for _ in 0..sessions {
        ids.push(a.initialize("alice").await);
    }
    let began = Instant::now();
    let twice = ids.iter().chain(&ids);
    let answers = twice.map(|id| tokio::spawn(answered(b, id)));
    let mut wrong = Vec::new();
    for answer in join_all(answers).await {
        wrong.extend(Some(answer.unwrap()).filter(|status| *status != 200));
    }
    let took = began.elapsed();
    println!("{name}: {sessions} sessions restored at once in {took:?}");
    assert_eq!(wrong, [0; 0], "{name}, {sessions} sessions at once");
    assert_eq!(b.holds().await, sessions);
}

fn stream(node: &Arc<Node>, id: &str) -> impl Future<Output = u16> + use<> {
    let (node, get) = (Arc::clone(node), get(id));
    async move { node.open("alice", get).await.status().as_u16() }
}

fn answered(node: &Arc<Node>, id: &str) -> impl Future<Output = u16> + use<> {
    let (node, id) = (Arc::clone(node), id.to_owned());
    async move { node.ping("alice", &id).await }
}

fn node(store: &(impl SessionStore + Clone)) -> Arc<Node> {
    // What is created here goes by itself, should a test break off.
    let set = |layer: mcp_session_layer::McpSessionLayer| {
        layer
            .with_idle_timeout(Duration::from_secs(600))
            .with_creation_rates(CreationRates::unlimited())
    };
    Arc::new(Node::with(store, LocalSessionManager::default(), set, None))
}

fn how_many(name: &str, usually: usize) -> usize {
    env::var(name).map_or(usually, |text| text.parse().expect("a number"))
}

fn unique() -> String {
    format!("t{}", SessionId::issue().expose().replace('-', ""))
}

/// `None`: skip the test, but never where `CI` is set.
fn reached<T, E: std::fmt::Display>(what: &str, answer: Result<T, E>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(error) if env::var_os("CI").is_none() => {
            eprintln!("SKIPPED, because {what} cannot be reached: {error}");
            None
        }
        Err(error) => panic!("{what} cannot be reached: {error}"),
    }
}
