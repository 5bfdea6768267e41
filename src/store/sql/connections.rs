//! A pool's connections, passed on from call to call.

use std::{
    collections::VecDeque,
    future::{Future as _, poll_fn},
    ops::{Deref, DerefMut},
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sqlx::{Database, Error, Pool, pool::PoolConnection};
use tokio::sync::oneshot;

/// A pool, and the calls that wait for one of its connections.
///
/// `sqlx` asks the server for a sign of life whenever a connection comes back to the pool, which under load doubles the
/// round trips. So a call that is done hands its connection to one that waits. After a moment the connection takes the
/// way through the pool all the same, since others may wait there.
#[derive(Debug)]
pub(in crate::store) struct Connections<D: Database> {
    pool: Pool<D>,
    waiting: Mutex<VecDeque<oneshot::Sender<Lent<D>>>>,
}

/// A connection on loan from the pool, to which it returns when dropped.
#[derive(Debug)]
pub(in crate::store) struct Lent<D: Database> {
    connection: PoolConnection<D>,
    since: Instant,
}

impl<D: Database> Connections<D> {
    pub(in crate::store) fn new(pool: Pool<D>) -> Self {
        let waiting = Mutex::default();
        Self { pool, waiting }
    }

    pub(in crate::store) fn pool(&self) -> &Pool<D> {
        &self.pool
    }

    pub(in crate::store) async fn acquire(&self) -> Result<Lent<D>, Error> {
        // A call that has begun to open a connection finishes that, or the pool would never grow.
        let is_grown = self.pool.size() >= self.pool.options().get_max_connections();
        let mut pooled = pin!(self.pool.acquire());
        let mut handed_on = None;
        poll_fn(|cx| {
            if let Poll::Ready(connection) = pooled.as_mut().poll(cx) {
                return Poll::Ready(connection.map(Lent::new));
            }
            if !is_grown {
                return Poll::Pending;
            }
            let handed_on = handed_on.get_or_insert_with(|| {
                let (sender, receiver) = oneshot::channel();
                self.waiting.lock().push_back(sender);
                receiver
            });
            let handed_on = pin!(handed_on).poll(cx);
            handed_on.map(|lent| lent.map_err(|_| Error::PoolClosed))
        })
        .await
    }

    /// Hands a connection that works to a call that waits, or returns it to the pool.
    pub(in crate::store) fn hand_on(&self, mut lent: Lent<D>) {
        while lent.since.elapsed() < LOAN {
            let Some(waiting) = self.waiting.lock().pop_front() else {
                return;
            };
            // One that waits no longer gives it back.
            match waiting.send(lent) {
                Ok(()) => return,
                Err(back) => lent = back,
            }
        }
    }
}

impl<D: Database> Lent<D> {
    fn new(connection: PoolConnection<D>) -> Self {
        let since = Instant::now();
        Self { connection, since }
    }

    pub(in crate::store) fn into_inner(self) -> PoolConnection<D> {
        self.connection
    }
}

impl<D: Database> Deref for Lent<D> {
    type Target = PoolConnection<D>;

    fn deref(&self) -> &PoolConnection<D> {
        &self.connection
    }
}

impl<D: Database> DerefMut for Lent<D> {
    fn deref_mut(&mut self) -> &mut PoolConnection<D> {
        &mut self.connection
    }
}

/// For how long a connection is handed from call to call: many calls, and little to wait for others.
const LOAN: Duration = Duration::from_millis(50);
