//! Ends, read from where every process writes them.

use std::{sync::Arc, time::Duration};

use sqlx::{Error, Row as _, SqlitePool, sqlite::SqliteRow};
use tokio::{
    runtime::Handle,
    sync::{Notify, broadcast},
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::store::{
    EndReason, Feed, FeedEvent,
    feed::heard,
    sql::{self, Table},
};

/// A task that reads for all feeds of a store, for as long as there are any.
pub(super) struct Listener {
    events: broadcast::Sender<FeedEvent>,
    written: Arc<Notify>,
    task: AbortHandle,
}

impl Listener {
    pub(super) fn start(runtime: &Handle, pool: SqlitePool, table: Table) -> Self {
        let (events, _) = broadcast::channel(CAPACITY);
        let written = Arc::<Notify>::default();
        let reading = Reading {
            pool,
            table,
            events: events.clone(),
            last: None,
        };
        let task = runtime.spawn(reading.run(Arc::clone(&written)));
        Self {
            events,
            written,
            task: task.abort_handle(),
        }
    }

    pub(super) fn subscribe(self: Arc<Self>) -> Feed {
        heard(self.events.subscribe(), self)
    }

    /// This process has written something, so there is no need to wait.
    pub(super) fn look(&self) {
        self.written.notify_one();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Reading {
    pool: SqlitePool,
    table: Table,
    events: broadcast::Sender<FeedEvent>,
    /// The number of the last that was read. Without it nothing is known of what came before.
    last: Option<i64>,
}

impl Reading {
    async fn run(mut self, written: Arc<Notify>) {
        let mut is_deaf = false;
        while !self.pool.is_closed() {
            match self.read().await {
                Ok(()) => {
                    is_deaf = false;
                    // An error means that the time is up.
                    _ = timeout(EVERY, written.notified()).await;
                }
                Err(error) => {
                    if !is_deaf {
                        is_deaf = true;
                        let (table, error) = (self.table.name(), &error as &dyn std::error::Error);
                        tracing::warn!(
                            table,
                            error,
                            "does not hear of sessions that are ended elsewhere, which are now noticed by asking (was migrate() called?)"
                        );
                    }
                    self.last = None;
                    self.say(FeedEvent::Gap);
                    sleep(AFTER_AN_ERROR).await;
                }
            }
        }
    }

    /// Hands on what was written since.
    async fn read(&mut self) -> Result<(), Error> {
        let Some(mut last) = self.last else {
            let newest = "select coalesce(max(number), 0) from \"mcp_sessions_ends\"";
            let newest = sqlx::query_scalar(self.table.sql(newest));
            self.last = Some(newest.fetch_one(&self.pool).await?);
            // What was ended before may have been missed.
            self.say(FeedEvent::Gap);
            return Ok(());
        };
        let later = "select number, reference, reason from \"mcp_sessions_ends\"
            where number > ?1 order by number";
        let later = sqlx::query(self.table.sql(later)).bind(last);
        for row in later.fetch_all(&self.pool).await? {
            let number = row.try_get("number")?;
            // Those between were too many to be kept.
            if number != last + 1 {
                self.say(FeedEvent::Gap);
            }
            self.say(event(&row)?);
            last = number;
        }
        self.last = Some(last);
        Ok(())
    }

    fn say(&self, event: FeedEvent) {
        // An error says that nobody listens, and then this task is about to be ended.
        _ = self.events.send(event);
    }
}

/// What a row tells. A reason of another version of this crate is a gap.
fn event(row: &SqliteRow) -> Result<FeedEvent, Error> {
    let reference = sql::reference(row.try_get("reference")?)?;
    Ok(match row.try_get("reason")? {
        CHANGED => FeedEvent::Changed { reference },
        reason => match EndReason::from_name(reason) {
            Some(reason) => FeedEvent::Ended { reference, reason },
            None => FeedEvent::Gap,
        },
    })
}

/// As the triggers of the migration write it.
const CHANGED: &str = "changed";

/// How often it is looked for what other processes wrote.
const EVERY: Duration = Duration::from_millis(250);
const AFTER_AN_ERROR: Duration = Duration::from_secs(5);

/// How many events a slow subscriber may be behind before it hears of a gap instead.
const CAPACITY: usize = 1024;
