//! Sessions in Redis or Valkey: each verb is one call of one script, on keys of one hash tag.
//!
//! Long because the trait has many verbs, and each is a few lines here.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock},
    time::Duration,
};

use ::redis::{
    AsyncConnectionConfig, Client, IntoConnectionInfo, ProtocolVersion,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
    from_redis_value,
};
use bytes::Bytes;
use tokio::runtime::Handle;

use self::{
    connection::{Connection, Script, failed, unreadable},
    create::Cluster,
    feed::Ends,
    fields::{Row, filter, found, hex, principal_field},
};
use super::{
    Created, Directory, EndReason, Expiry, Feed, Found, SessionStore, StoreError, Terms, replace,
};
use crate::{
    protocol::{SessionId, SessionRef},
    session::{Change, Owner, Session},
};

mod change;
mod connection;
mod create;
mod directory;
mod feed;
mod fields;

/// Sessions in Redis (7.0 or later) or Valkey, for several nodes. Clones share the connection and the sessions.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use mcp_session_layer::RedisStore;
///
/// let store = RedisStore::connect("redis://127.0.0.1").await?.with_prefix("my-app");
/// # Ok(())
/// # }
/// ```
///
/// # What is kept
///
/// A session is a hash with the time to live of the session, named by its [reference](SessionRef) in hexadecimal: the
/// server never sees an id. Redis's clock judges all times, to the millisecond, and never in a session's favour.
///
/// Beside it an index serves limits and lists. It is in 16 shards, by the first digit of the reference, and that
/// digit is the hash tag of everything that a verb on one session needs, so that each verb is one atomic script:
///
/// | key | what |
/// | --- | --- |
/// | `mcp:{b}:s:ba78..` | the session of this reference |
/// | `mcp:{b}:index` | all sessions of the shard, twice: in order of scope, and of scope and owner |
/// | `mcp:{b}:due` | the same by the time when to look whether they are still live |
/// | `mcp:{b}:x:..` | that all of a scope or an owner were ended, for an hour |
///
/// A touch leaves the index alone. An entry whose session expired is found and removed by later creations and counts,
/// a few at a time, and the keys of the index expire soon after the last session in them.
///
/// # Limits
///
/// On one server they are exact: a creation counts all shards in the same script. On a cluster it asks the other shards
/// first, so creations under way at the same time can exceed a limit by their number.
///
/// # Cluster
///
/// Enable `cluster-async` of the [`redis`] crate and pass a `ClusterConnection` to [`new`](Self::new). The 16
/// tags spread the sessions over up to 16 primaries. While the node is away from which the feed is heard, subscribers are told to
/// ask every six seconds.
///
/// # Outages
///
/// A command that is not answered within a second, a server that is loading, and one that has become a replica are
/// [`Unavailable`](super::StoreErrorKind::Unavailable). Connections are made anew by themselves. What a failover loses
/// (replication in Redis is asynchronous), and what a server without persistence forgets, is absent afterwards.
///
/// A server under an eviction policy other than `noeviction` may drop live sessions, which would be 404 to their
/// clients. That is checked at start and warned about; see [`eviction_policy`](Self::eviction_policy).
///
/// # Permissions
///
/// With access lists the user needs `~mcp:* &mcp:* +evalsha +eval +@read +@write +time +publish`, for the feed
/// `+subscribe +ping`, and for the check above `+info`.
#[derive(Clone)]
pub struct RedisStore {
    connection: Connection,
    client: Client,
    prefix: Arc<str>,
    ends: Arc<Ends>,
    cluster: Arc<Cluster>,
}

impl RedisStore {
    /// Connects to one server, given as a URL (`redis://user:password@host:port/database`).
    ///
    /// The connection is renewed for ever when it is lost, with little delay. For `rediss://` enable a TLS feature
    /// of the [`redis`] crate, for example `tokio-rustls-comp`. With certificates of your own make a client with
    /// `Client::build_with_tls` first, and pass its `get_connection_info().clone()`.
    ///
    /// # Errors
    ///
    /// When the URL is not one, or the server does not answer or refuses. Later nothing of this is final.
    pub async fn connect(server: impl IntoConnectionInfo) -> Result<Self, StoreError> {
        const DOING: &str = "connect to Redis";
        let info = server.into_connection_info().map_err(failed(DOING))?;
        // Over RESP3 a lost connection is noticed at once, not by the next call.
        let settings = info.redis_settings().clone();
        let info = info
            .set_redis_settings(settings.set_protocol(ProtocolVersion::RESP3))
            .set_tcp_settings(connection::tcp_settings());
        let client = Client::open(info).map_err(failed(DOING))?;

        // The manager below tries for ever and cannot say why it fails, so a first try is made without it.
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_LIMIT));
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(failed(DOING))?;

        // For ever, because a manager that has given up on anything but an I/O error never tries again.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(usize::MAX)
            .set_min_delay(RECONNECT_DELAY)
            .set_max_delay(RECONNECT_DELAY)
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(None);
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config)
            .map_err(failed(DOING))?;
        Ok(Self::new(client, manager))
    }

    /// Takes a connection as you made it: a [`ConnectionManager`], or a `ClusterConnection`.
    ///
    /// It must connect by itself again, and must read from primaries only. The client is for the
    /// [`feed`](SessionStore::feed), which needs a connection of its own; of a cluster any node will do.
    pub fn new(
        client: Client,
        connection: impl ConnectionLike + Clone + Send + Sync + 'static,
    ) -> Self {
        let connection = Connection::new(connection);
        let store = Self {
            connection,
            client,
            prefix: DEFAULT_PREFIX.into(),
            ends: Arc::default(),
            cluster: Arc::default(),
        };
        if let Ok(runtime) = Handle::try_current() {
            let store = store.clone();
            runtime.spawn(async move { store.warn_of_eviction().await });
        }
        store
    }

    /// What the names of all keys and channels begin with. Default: `mcp`.
    ///
    /// Stores of one server share their sessions if they share the prefix and the database.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<Arc<str>>) -> Self {
        self.prefix = prefix.into();
        self.ends = Arc::default();
        self
    }

    /// The server's `maxmemory-policy`, if under it the server may drop sessions that are live. `None` if it is
    /// `noeviction`, or the server does not say.
    ///
    /// # Errors
    ///
    /// When the server does not answer, or does not allow `INFO`.
    pub async fn eviction_policy(&self) -> Result<Option<String>, StoreError> {
        const DOING: &str = "ask for the eviction policy";
        // Not CONFIG GET, which hosted servers often refuse.
        let answer = self
            .connection
            .send(::redis::cmd("INFO").arg("memory"))
            .await
            .map_err(failed(DOING))?;
        // A cluster answers for each of its nodes.
        let infos = from_redis_value::<HashMap<String, String>>(answer.clone())
            .map(|nodes| nodes.into_values().collect())
            .or_else(|_| from_redis_value::<String>(answer).map(|info| vec![info]))
            .unwrap_or_default();
        let mut policies = infos
            .iter()
            .flat_map(|info| info.lines())
            .filter_map(|line| line.strip_prefix("maxmemory_policy:"));
        Ok(policies
            .find(|policy| *policy != "noeviction")
            .map(str::to_owned))
    }

    async fn warn_of_eviction(&self) {
        if let Ok(Some(policy)) = self.eviction_policy().await {
            tracing::warn!(
                policy,
                "Redis may drop live sessions when its memory is full; set maxmemory-policy to noeviction"
            );
        }
    }

    /// [`SessionStore::touch`] and, if a new owner may take the session, [`SessionStore::claim`].
    async fn touch_as(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
        claim: bool,
        doing: &'static str,
    ) -> Result<Option<Found>, StoreError> {
        static TOUCH: LazyLock<Script> =
            LazyLock::new(|| Script::new(&[ALLOW_OOM, include_str!("redis/touch.lua")]));
        let principal = principal_field(owner);
        let (filter, channel) = match claim {
            true => (filter(owner), self.channel()),
            false => Default::default(),
        };
        let answer = TOUCH
            .run(&self.connection, &self.keys(&id.reference()), |command| {
                command
                    .arg(owner.scope.as_str())
                    .arg(&principal)
                    .arg(milliseconds(idle))
                    .arg(&filter)
                    .arg(&channel);
            })
            .await
            .map_err(failed(doing))?;
        let row: Option<Row> = from_redis_value(answer).map_err(unreadable(doing))?;
        row.map(|row| found(id, row, None, doing)).transpose()
    }

    /// What a script answers that reads a session whole.
    async fn read(
        &self,
        script: &Script,
        id: &SessionId,
        doing: &'static str,
    ) -> Result<Option<Found>, StoreError> {
        let answer = script
            .run(&self.connection, &self.keys(&id.reference()), |_| {})
            .await
            .map_err(failed(doing))?;
        let answer: Option<(Row, Option<Vec<u8>>)> =
            from_redis_value(answer).map_err(unreadable(doing))?;
        answer
            .map(|(row, params)| found(id, row, params.map(Bytes::from), doing))
            .transpose()
    }

    /// The keys of a session: its own, and its shard's `due` and `index`.
    fn keys(&self, reference: &SessionRef) -> [String; 3] {
        let name = hex(reference.as_bytes());
        let shard = self.shard(&name[..1]);
        let [due, index] = shard.index();
        [format!("{shard}s:{name}"), due, index]
    }

    fn shard(&self, digit: &str) -> Shard {
        Shard(format!("{}:{{{digit}}}:", self.prefix))
    }

    /// The channel of the ends. Channels are common to all databases of a server, keys are not.
    fn channel(&self) -> String {
        format!("{}:{}:ends", self.prefix, self.connection.database())
    }
}

impl SessionStore for RedisStore {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.create_within(session, terms, true)
            .await
            .map_err(failed("create a session"))
    }

    async fn make_room(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.create_within(session, terms, false)
            .await
            .map_err(failed("make room for a session"))
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        static LOAD: LazyLock<Script> =
            LazyLock::new(|| Script::new(&[ALLOW_OOM, COMMON, include_str!("redis/load.lua")]));
        self.read(&LOAD, id, "load a session").await
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.touch_as(id, owner, idle, false, "touch a session")
            .await
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        self.end_session(&id.reference(), None, None, reason)
            .await
            .map_err(failed("delete a session"))
    }

    async fn delete_idle(
        &self,
        id: &SessionId,
        left: Duration,
        reason: EndReason,
    ) -> Result<bool, StoreError> {
        self.end_session(&id.reference(), None, Some(left), reason)
            .await
            .map_err(failed("delete an idle session"))
    }

    async fn expire(&self, id: &SessionId) -> Result<Expiry, StoreError> {
        static EXPIRE: LazyLock<Script> =
            LazyLock::new(|| Script::new(&[ALLOW_OOM, COMMON, include_str!("redis/expire.lua")]));
        let left = self.read(&EXPIRE, id, "ask whether a session is over");
        Ok(left.await?.map_or(Expiry::Over, Expiry::Left))
    }

    async fn change(
        &self,
        id: &SessionId,
        owner: &Owner,
        change: &Change,
    ) -> Result<Option<Found>, StoreError> {
        replace::change(self, id, owner, change).await
    }

    async fn claim(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.touch_as(id, owner, idle, true, "claim a session")
            .await
    }

    fn directory(&self) -> Option<&dyn Directory> {
        Some(self)
    }

    fn feed(&self) -> Option<Feed> {
        Some(self.ends.subscribe(&self.client, self.channel()))
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// What the keys of a shard begin with.
struct Shard(String);

impl Shard {
    /// Its `due` and its `index`.
    fn index(&self) -> [String; 2] {
        [format!("{self}due"), format!("{self}index")]
    }

    /// Where it is written when all of a scope, or of an owner, were ended.
    fn all_ended(&self, filter: &str) -> String {
        format!("{self}x:{filter}")
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Rounded down, so that no session outlives its time, though never to nothing. Lua counts in 53 bits, so there is a
/// longest time: three thousand years.
fn milliseconds(time: Duration) -> i64 {
    time.as_millis().clamp(1, 100_000_000_000_000) as i64
}

/// Rounded up, with the same bound.
fn microseconds(time: Duration) -> i64 {
    time.as_nanos().div_ceil(1000).min(1_000_000_000_000_000) as i64
}

const DEFAULT_PREFIX: &str = "mcp";

const CONNECT_LIMIT: Duration = Duration::from_secs(1);
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// The first line of a script. It makes a replica refuse the script, so that none answers from a state that lags, and
/// a server without memory refuse it before its first step.
const DENY_OOM: &str = "#!lua\n";
/// The same for scripts that a server without memory runs too, because they are not creations.
const ALLOW_OOM: &str = "#!lua flags=allow-oom\n";
const COMMON: &str = include_str!("redis/common.lua");
