//! Ends, heard over `LISTEN/NOTIFY`.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use sqlx::{
    AssertSqlSafe, Error, PgPool,
    postgres::{PgListener, PgNotification},
};
use tokio::{
    runtime::Handle,
    sync::broadcast,
    task::AbortHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::connection::Held;
use crate::store::{EndReason, Feed, FeedEvent, feed::heard, sql::Connections};

/// A task that listens for all feeds of a store, for as long as there are any.
pub(super) struct Listener {
    events: broadcast::Sender<FeedEvent>,
    task: AbortHandle,
}

impl Listener {
    pub(super) fn start(runtime: &Handle, pool: PgPool, channel: String) -> Self {
        let (events, _) = broadcast::channel(CAPACITY);
        let listening = Listening {
            // A channel that nobody else hears, so that a probe wakes nobody else.
            probe: format!("mcp_session_probe_{}", uuid::Uuid::new_v4().simple()),
            pool,
            channel,
            events: events.clone(),
            is_deaf: false,
            last_gap: None,
        };
        let task = runtime.spawn(listening.run()).abort_handle();
        Self { events, task }
    }

    pub(super) fn subscribe(self: Arc<Self>) -> Feed {
        heard(self.events.subscribe(), self)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Listening {
    pool: PgPool,
    channel: String,
    probe: String,
    events: broadcast::Sender<FeedEvent>,
    /// Whether the last that was said about it in the log is that nothing is heard.
    is_deaf: bool,
    last_gap: Option<Instant>,
}

impl Listening {
    async fn run(mut self) {
        let mut pause = SHORTEST_PAUSE;
        while !self.pool.is_closed() {
            let began = Instant::now();
            let Err(error) = self.hear().await;
            if !self.is_deaf {
                self.is_deaf = true;
                let (channel, error) = (&self.channel, &*error as &dyn std::error::Error);
                tracing::warn!(
                    channel,
                    error,
                    "does not hear of sessions that are ended on other nodes, which are now noticed by asking"
                );
            }
            // While nothing is heard, asking is all there is.
            if self.last_gap.is_none_or(|last| last.elapsed() > EVERY / 2) {
                self.gap();
            }
            if began.elapsed() > EVERY {
                pause = SHORTEST_PAUSE;
            }
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// Listens until it is not certain any longer that everything is heard.
    async fn hear(&mut self) -> Result<Infallible, BoxError> {
        let mut listener = timeout(PATIENCE, self.connect()).await??;
        timeout(PATIENCE, listener.listen(&self.probe)).await??;
        // Behind a transaction pooler LISTEN stays on a connection that serves others, and what arrives there confuses
        // them. So the channel is not listened on before the probe was heard.
        self.check(&mut listener).await?;
        timeout(PATIENCE, listener.listen(&self.channel)).await??;
        // What was ended before may have been missed.
        self.gap();
        if std::mem::take(&mut self.is_deaf) {
            tracing::info!(channel = self.channel, "hears of ended sessions again");
        }
        loop {
            self.hear_for(EVERY, &mut listener).await?;
            self.check(&mut listener).await?;
        }
    }

    /// A connection of its own: one that waits for ever is none for a pool, and one that hangs must not keep a place
    /// in it.
    async fn connect(&self) -> Result<PgListener, Error> {
        let options = self.pool.options().clone();
        let pool = options
            .max_connections(1)
            .min_connections(0)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(PATIENCE)
            .connect_lazy_with(self.pool.connect_options().as_ref().clone());
        PgListener::connect_with(&pool).await
    }

    /// Makes sure that a message that is sent through the pool is heard. Hands on what is heard meanwhile.
    async fn check(&self, listener: &mut PgListener) -> Result<(), BoxError> {
        let send = async {
            let connections = Connections::new(self.pool.clone());
            let mut held = Held::acquire(&connections, "send a message").await?;
            let notify = AssertSqlSafe(format!("notify {}", self.probe));
            let sent = sqlx::raw_sql(notify).execute(&mut *held).await;
            held.done(sent)
        };
        timeout(PATIENCE, send).await??;
        match self.hear_for(PATIENCE, listener).await? {
            true => Ok(()),
            false => Err("a message sent with NOTIFY is not heard (a transaction pooler?)".into()),
        }
    }

    /// Hands on what is heard for this long, or until the probe, and says whether that was heard.
    async fn hear_for(&self, time: Duration, listener: &mut PgListener) -> Result<bool, Error> {
        let until = Instant::now() + time;
        while let Ok(heard) = timeout_at(until, listener.try_recv()).await {
            match heard? {
                Some(message) if message.channel() == self.probe => return Ok(true),
                Some(message) => _ = self.events.send(event(&message)),
                None => return Err(Error::Io(io::ErrorKind::UnexpectedEof.into())),
            }
        }
        Ok(false)
    }

    fn gap(&mut self) {
        self.last_gap = Some(Instant::now());
        // An error says that nobody listens, and then this task is about to be ended.
        _ = self.events.send(FeedEvent::Gap);
    }
}

/// A message is a reference and a reason, or what else happened. Of another version of this crate it may be more.
fn event(message: &PgNotification) -> FeedEvent {
    let ended = || {
        let (reference, reason) = message.payload().split_once(' ')?;
        let reference = reference.parse().ok()?;
        if reason == "changed" {
            return Some(FeedEvent::Changed { reference });
        }
        Some(FeedEvent::Ended {
            reference,
            reason: EndReason::from_name(reason)?,
        })
    };
    ended().unwrap_or(FeedEvent::Gap)
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How often it is checked that messages arrive.
const EVERY: Duration = Duration::from_secs(10);

/// How long each step of listening and checking may take.
const PATIENCE: Duration = Duration::from_secs(2);

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// How many events a slow subscriber may be behind before it hears of a gap instead.
const CAPACITY: usize = 1024;
