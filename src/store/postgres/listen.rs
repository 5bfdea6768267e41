//! Ends, heard over `LISTEN/NOTIFY`.

use std::{future::Future, io, sync::Arc, time::Duration};

use sqlx::{
    Error, PgPool,
    postgres::{PgListener, PgNotification},
};
use tokio::{
    runtime::Handle,
    sync::broadcast,
    task::AbortHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::store::{EndReason, Feed, FeedEvent, sql::heard};

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
    last_gap: Option<Instant>,
}

impl Listening {
    async fn run(mut self) {
        let mut has_warned = false;
        let mut pause = SHORTEST_PAUSE;
        while !self.pool.is_closed() {
            let began = Instant::now();
            match self.hear().await {
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::info!(error, "lost the connection that hears of ended sessions");
                }
                Ok(()) if !has_warned => {
                    has_warned = true;
                    tracing::warn!(
                        channel = self.channel,
                        "LISTEN/NOTIFY does not work here (a transaction pooler?): \
                         ends of sessions on other nodes are noticed only by asking"
                    );
                }
                Ok(()) => {}
            }
            if began.elapsed() > LONGEST_PAUSE * 2 {
                pause = SHORTEST_PAUSE;
            }
            // While nothing is heard, asking is all there is.
            if self.last_gap.is_none_or(|last| last.elapsed() >= EVERY) {
                self.gap();
            }
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// Listens for as long as the connection lasts, or until what is said there is no longer heard.
    async fn hear(&mut self) -> Result<(), Error> {
        let mut listener = within(PATIENCE, self.connect()).await?;
        within(PATIENCE, listener.listen(&self.probe)).await?;
        // Behind a transaction pooler LISTEN stays on a connection that serves others, and what arrives there would
        // confuse them. So the channel is not listened on before the probe was heard.
        if !self.probe(&mut listener).await? {
            return Ok(());
        }
        within(PATIENCE, listener.listen(&self.channel)).await?;
        // What ended before may have been missed.
        self.gap();
        loop {
            self.hear_until(&mut listener, Instant::now() + EVERY)
                .await?;
            if !self.probe(&mut listener).await? {
                return Ok(());
            }
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

    /// Whether a message that is sent through the pool is heard. Hands on what is heard meanwhile.
    async fn probe(&self, listener: &mut PgListener) -> Result<bool, Error> {
        let sent = sqlx::query("select pg_notify($1, '')")
            .bind(&self.probe)
            .execute(&self.pool);
        if within(PATIENCE, sent).await.is_err() {
            // The pool is away or busy, which says nothing about this connection.
            return Ok(true);
        }
        let until = Instant::now() + PATIENCE;
        self.hear_until(listener, until).await
    }

    /// Hands on what is heard until this instant, or until the probe: whether it was heard.
    async fn hear_until(&self, listener: &mut PgListener, until: Instant) -> Result<bool, Error> {
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
        // Nobody may be listening any longer; then this task is about to be ended.
        _ = self.events.send(FeedEvent::Gap);
    }
}

/// A message is a reference and a reason. Of another version of this crate it may be more.
fn event(message: &PgNotification) -> FeedEvent {
    let ended = || {
        let (reference, reason) = message.payload().split_once(' ')?;
        Some(FeedEvent::Ended {
            reference: reference.parse().ok()?,
            reason: EndReason::from_name(reason)?,
        })
    };
    ended().unwrap_or(FeedEvent::Gap)
}

async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(patience, work)
        .await
        .unwrap_or(Err(Error::PoolTimedOut))
}

/// How often it is checked that messages arrive, and, while they do not, how often subscribers are told to ask.
const EVERY: Duration = Duration::from_secs(10);

/// How long the server has for each step.
const PATIENCE: Duration = Duration::from_secs(3);

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How many events a slow subscriber may be behind before it hears of a gap instead.
const CAPACITY: usize = 1024;
