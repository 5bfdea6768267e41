//! How a command gets to the server, and what its failure means.

use std::{fmt, io, sync::Arc, time::Duration};

use ::redis::{
    Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value,
    aio::ConnectionLike,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

use crate::store::{BoxFuture, StoreError, StoreErrorKind};

/// A connection of any type, for one server or for a cluster.
#[derive(Clone)]
pub(super) struct Connection(Arc<dyn Sender>);

/// A script that the server keeps by its digest.
pub(super) struct Script {
    source: String,
    digest: String,
}

impl Connection {
    pub(super) fn new(connection: impl ConnectionLike + Clone + Send + Sync + 'static) -> Self {
        Self(Arc::new(connection))
    }

    /// Sends one command and waits for its answer, though not for long.
    pub(super) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        let answer = tokio::time::timeout(CALL_LIMIT, self.0.send(command)).await;
        let answer =
            answer.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        // We talk to a former primary. Its name may lead to the new one by now, so hang up and dial again.
        if let Err(error) = &answer
            && error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
        {
            let _ = tokio::time::timeout(CALL_LIMIT, self.0.send(&::redis::cmd("QUIT"))).await;
        }
        answer
    }

    /// Which database its keys are in.
    pub(super) fn database(&self) -> i64 {
        self.0.database()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl Script {
    pub(super) fn new(source: &[&str]) -> Self {
        let source = source.concat();
        let digest = ::redis::Script::new(&source).get_hash().to_owned();
        Self { source, digest }
    }

    /// Runs the script: one command, or two if the server has forgotten it.
    pub(super) async fn run(
        &self,
        connection: &Connection,
        keys: &[String],
        args: impl Fn(&mut Cmd),
    ) -> RedisResult<Value> {
        let command = |verb, script: &str| {
            let mut command = ::redis::cmd(verb);
            command.arg(script).arg(keys.len()).arg(keys);
            args(&mut command);
            command
        };
        match connection.send(&command("EVALSHA", &self.digest)).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                connection.send(&command("EVAL", &self.source)).await
            }
            answer => answer,
        }
    }
}

/// What a failure to do this means to the layer.
pub(super) fn failed(doing: &'static str) -> impl Fn(RedisError) -> StoreError {
    move |error| StoreError::new(kind(&error), doing).with_source(error)
}

/// An answer that is not what our scripts answer.
pub(super) fn unreadable<E>(doing: &'static str) -> impl Fn(E) -> StoreError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |error| StoreError::new(StoreErrorKind::Corrupt, doing).with_source(error)
}

fn kind(error: &RedisError) -> StoreErrorKind {
    match (error.kind(), error.code()) {
        (ErrorKind::Io | ErrorKind::ClusterConnectionNotFound | ErrorKind::Parse, _) => {
            StoreErrorKind::Unavailable
        }
        (
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly,
            ),
            _,
        ) => StoreErrorKind::Unavailable,
        // No memory, too few replicas, a script that hangs, a disk that is full.
        (_, Some("OOM" | "NOREPLICAS" | "BUSY" | "MISCONF")) => StoreErrorKind::Unavailable,
        (_, Some("WRONGTYPE")) => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Failed,
    }
}

/// [`ConnectionLike`] as an object that can be shared.
trait Sender: Send + Sync {
    fn send<'a>(&'a self, command: &'a Cmd) -> BoxFuture<'a, RedisResult<Value>>;
    fn database(&self) -> i64;
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> Sender for C {
    fn send<'a>(&'a self, command: &'a Cmd) -> BoxFuture<'a, RedisResult<Value>> {
        Box::pin(async move { command.query_async(&mut self.clone()).await })
    }

    fn database(&self) -> i64 {
        self.get_db()
    }
}

/// How long one command may take, reconnecting included. Short, so that the layer can try again within its own limit.
const CALL_LIMIT: Duration = Duration::from_secs(1);

pub(super) fn tcp_settings() -> TcpSettings {
    let settings = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(TcpKeepalive::new().with_time(Duration::from_secs(10)));
    // A host that vanished without a word: the kernel would wait for a quarter of an hour.
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let settings = settings.set_user_timeout(Duration::from_secs(3));
    settings
}
