//! The flags of the session layer and its store.

use std::{
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    str::FromStr as _,
    time::Duration,
};

use clap::Args;
use mcp_session_layer::{
    BoxSessionStore, CachedStore, CreationRate, CreationRates, McpSessionLayer, MemoryStore,
    PostgresStore, Principal, RedisStore, SqliteStore,
    sqlx::{
        postgres::{PgConnectOptions, PgPoolOptions},
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
    },
};

use super::patience::patiently;

#[derive(Args)]
pub(crate) struct SessionOptions {
    /// Where sessions are kept: memory, sqlite://PATH, postgres://.. or redis://..
    #[arg(long, default_value = "memory")]
    store: String,
    /// For how many seconds a node may trust its memory of a session instead of asking the store.
    #[arg(long)]
    cached: Option<f64>,
    /// How long a session may be idle, as in 2s, 5m, 1h.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    pub(crate) idle_timeout: Duration,
    /// How long a session may live.
    #[arg(long, value_parser = humantime::parse_duration)]
    max_lifetime: Option<Duration>,
    /// How many sessions there may be. At the limit the oldest that nobody uses makes room for a new one.
    #[arg(long, default_value = "100000")]
    max_sessions: NonZeroU64,
    /// How many sessions a principal may have. At the limit one of its own makes room.
    #[arg(long)]
    max_sessions_per_principal: Option<NonZeroU64>,
    /// How many of these only principals may have, so that a flood of anonymous callers does not lock them out.
    #[arg(long, default_value_t = 0)]
    reserved_for_principals: u64,
    /// Let sessions be created however often.
    #[arg(long)]
    no_creation_rates: bool,
    /// Behind so many proxies that write X-Forwarded-For: an anonymous address may create 5 sessions a second, 100 at once.
    #[arg(long)]
    trusted_proxies: Option<NonZeroUsize>,
    /// At a limit, refuse new sessions with 503 and end none for them.
    #[arg(long)]
    no_eviction: bool,
}

impl SessionOptions {
    pub(crate) async fn open_store(&self) -> anyhow::Result<BoxSessionStore> {
        let url = self.store.as_str();
        let store = match url.split_once("://").map_or(url, |(scheme, _)| scheme) {
            "memory" => BoxSessionStore::new(MemoryStore::new()),
            "sqlite" => {
                let file = SqliteConnectOptions::from_str(url)?
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal);
                let open = || {
                    let pool = SqlitePoolOptions::new().connect_with(file.clone());
                    async {
                        let store = SqliteStore::new(pool.await?);
                        store.migrate().await?;
                        anyhow::Ok(store)
                    }
                };
                let store = patiently("open the SQLite file", open).await?;
                tokio::spawn(store.clone().keep_swept(SWEEP_EVERY));
                BoxSessionStore::new(store)
            }
            "postgres" | "postgresql" => {
                let server = PgConnectOptions::from_str(url)?;
                let open = || {
                    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_secs(1));
                    let pool = pool.connect_with(server.clone());
                    async {
                        let store = PostgresStore::new(pool.await?);
                        store.migrate().await?;
                        anyhow::Ok(store)
                    }
                };
                let store = patiently("reach PostgreSQL", open).await?;
                tokio::spawn(store.clone().keep_swept(SWEEP_EVERY));
                BoxSessionStore::new(store)
            }
            "redis" | "rediss" => {
                let connect = || RedisStore::connect(url.to_owned());
                BoxSessionStore::new(patiently("reach Redis", connect).await?)
            }
            _ => anyhow::bail!("unknown store: memory, sqlite://PATH, postgres://.. or redis://.."),
        };
        Ok(match self.cached {
            Some(seconds) => {
                let max_staleness = Duration::try_from_secs_f64(seconds)?;
                BoxSessionStore::new(CachedStore::new(store, max_staleness))
            }
            None => store,
        })
    }

    /// Sessions belong to the principal whom [`authenticate`](super::auth::authenticate) found.
    pub(crate) fn layer(&self, store: BoxSessionStore) -> McpSessionLayer {
        let mut layer = McpSessionLayer::new(store)
            .with_principal(|parts| Ok(parts.extensions.get::<Principal>().cloned()))
            .with_idle_timeout(self.idle_timeout)
            .with_max_sessions(self.max_sessions);
        layer = layer
            .with_reserve_for_principals(self.reserved_for_principals)
            .with_creation_rates(self.creation_rates());
        if self.no_eviction {
            layer = layer.without_eviction();
        }
        if let Some(life) = self.max_lifetime {
            layer = layer.with_max_lifetime(life);
        }
        if let Some(sessions) = self.max_sessions_per_principal {
            layer = layer.with_max_sessions_per_principal(sessions);
        }
        layer
    }
}

impl SessionOptions {
    fn creation_rates(&self) -> CreationRates {
        let rates = match self.no_creation_rates {
            true => CreationRates::unlimited(),
            false => CreationRates::default(),
        };
        match self.trusted_proxies {
            Some(proxies) => rates.per_address(OF_ADDRESS, proxies),
            None => rates,
        }
    }
}

const OF_ADDRESS: CreationRate =
    CreationRate::per_second(NonZeroU32::new(5).unwrap()).with_burst(NonZeroU32::new(100).unwrap());
const SWEEP_EVERY: Duration = Duration::from_secs(60);
