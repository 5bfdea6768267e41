//! [`PostgresStore`], on a server at `DATABASE_URL`, `POSTGRES_URL`, or this machine's usual address. Each test has a
//! table of its own and drops it. Without a server the tests say so and pass; where `CI` is set they fail.

#![cfg(feature = "postgres")]

#[cfg(feature = "_tests")]
#[path = "support/certificates.rs"]
mod certificates;
#[path = "postgres/cluster.rs"]
mod cluster;
#[path = "postgres/hearing.rs"]
mod hearing;
#[path = "postgres/outages.rs"]
mod outages;
#[cfg(feature = "_tests")]
#[path = "postgres/pooler.rs"]
mod pooler;
#[path = "postgres/proxy.rs"]
mod proxy;
#[path = "postgres/rows.rs"]
mod rows;
mod sql;
#[cfg(feature = "_tests")]
#[path = "postgres/tls.rs"]
mod tls;
#[path = "postgres/touches.rs"]
mod touches;

use std::time::Duration;

use mcp_session_layer::{
    PostgresStore,
    sqlx::{self, PgPool, postgres::PgPoolOptions},
};
use sql::unique;

/// A store in a table of its own.
struct Fixture {
    store: PostgresStore,
    pool: PgPool,
    table: String,
}

impl Fixture {
    async fn new() -> Option<Self> {
        let pool = Self::pool().await?;
        let table = unique();
        let store = PostgresStore::new(pool.clone()).with_table(&table);
        store.migrate().await.unwrap();
        Some(Self { store, pool, table })
    }

    async fn pool() -> Option<PgPool> {
        let url = ["DATABASE_URL", "POSTGRES_URL"].map(std::env::var);
        let url = url.into_iter().find_map(Result::ok);
        let url = url
            .as_deref()
            .unwrap_or("postgres://postgres@127.0.0.1:5432/postgres");
        match pool_options().connect(url).await {
            Ok(pool) => Some(pool),
            Err(error) if std::env::var_os("CI").is_none() => {
                eprintln!("SKIPPED, because PostgreSQL cannot be reached: {error}");
                None
            }
            Err(error) => panic!("PostgreSQL cannot be reached: {error}"),
        }
    }

    async fn drop(self) {
        for table in [&self.table, &format!("{}_revoked", self.table)] {
            let drop = sqlx::AssertSqlSafe(format!("drop table \"{table}\""));
            sqlx::raw_sql(drop).execute(&self.pool).await.unwrap();
        }
    }
}

/// Settings as the store's documentation asks for.
fn pool_options() -> PgPoolOptions {
    PgPoolOptions::new().acquire_timeout(Duration::from_secs(2))
}

#[cfg(feature = "conformance")]
mod contract {
    use std::sync::Arc;

    use mcp_session_layer::{BoxSessionStore, conformance};
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn is_kept() {
        let Some(fixture) = Fixture::new().await else {
            return;
        };
        conformance::all(&fixture.store, sleep).await;
        conformance::a_long_list_is_read_in_pages(&fixture.store, sleep, 1_000).await;
        fixture.drop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn is_kept_boxed() {
        let Some(fixture) = Fixture::new().await else {
            return;
        };
        conformance::all(&BoxSessionStore::new(fixture.store.clone()), sleep).await;
        fixture.drop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn is_kept_in_an_arc() {
        let Some(fixture) = Fixture::new().await else {
            return;
        };
        conformance::all(&Arc::new(fixture.store.clone()), sleep).await;
        fixture.drop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn is_kept_behind_a_cache() {
        let Some(fixture) = Fixture::new().await else {
            return;
        };
        sql::keeps_the_contract_behind_a_cache(fixture.store.clone()).await;
        fixture.drop().await;
    }
}
