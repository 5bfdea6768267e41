//! A pool's connections, passed on from call to call.

use std::{
    collections::VecDeque,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{Database, Error, Pool, pool::PoolConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::sync::Mutex;

/// A pool, and the calls that wait for one of its connections.
///
/// They wait here, in the order in which they came and for as long as their callers do. The pool has a time limit that is
/// shorter, because it is for a server that is away: a call that waits for nothing but its turn would lose its place to it,
/// and many calls at once (those of a thousand sessions at a new node) would lose theirs again and again.
///
/// `sqlx` asks the server for a sign of life whenever a connection comes back to the pool, which under load doubles the
/// round trips. So a call that is done hands its connection to one that waits. After a moment the connection takes the
/// way through the pool all the same, since others may wait there.
#[derive(Debug)]
pub(in crate::store) struct Connections<D: Database> {
    pool: Pool<D>,
    /// One for each connection that the pool may have.
    turns: Arc<Semaphore>,
    waiting: Mutex<VecDeque<oneshot::Sender<Lent<D>>>>,
}

/// A connection on loan from the pool, to which it returns when dropped.
#[derive(Debug)]
pub(in crate::store) struct Lent<D: Database> {
    connection: PoolConnection<D>,
    since: Instant,
    _turn: OwnedSemaphorePermit,
}

impl<D: Database> Connections<D> {
    pub(in crate::store) fn new(pool: Pool<D>) -> Self {
        let connections = pool.options().get_max_connections();
        Self {
            pool,
            turns: Arc::new(Semaphore::new(connections as usize)),
            waiting: Mutex::default(),
        }
    }

    pub(in crate::store) fn pool(&self) -> &Pool<D> {
        &self.pool
    }

    pub(in crate::store) async fn acquire(&self) -> Result<Lent<D>, Error> {
        let turns = Arc::clone(&self.turns);
        let turn = match Arc::clone(&turns).try_acquire_owned() {
            Ok(turn) => turn,
            Err(_) => {
                let handed_on = self.wait();
                tokio::select! {
                    biased;
                    lent = handed_on => return lent.map_err(|_| Error::PoolClosed),
                    turn = turns.acquire_owned() => turn.map_err(|_| Error::PoolClosed)?,
                }
            }
        };
        Ok(Lent {
            connection: self.pool.acquire().await?,
            since: Instant::now(),
            _turn: turn,
        })
    }

    fn wait(&self) -> oneshot::Receiver<Lent<D>> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        // While the server is away nobody hands on, and those who gave up would stay.
        while waiting.front().is_some_and(oneshot::Sender::is_closed) {
            waiting.pop_front();
        }
        waiting.push_back(sender);
        receiver
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
    #[cfg(feature = "postgres")]
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

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use sqlx::{Sqlite, sqlite::SqlitePoolOptions};
    use tokio::time::{sleep, timeout};

    use super::*;

    const IMPATIENCE: Duration = Duration::from_millis(50);

    fn one_connection() -> Connections<Sqlite> {
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(IMPATIENCE);
        Connections::new(pool.connect_lazy("sqlite::memory:").unwrap())
    }

    #[tokio::test]
    async fn a_call_waits_for_its_turn_longer_than_the_pool_does() {
        let connections = one_connection();
        let held = connections.acquire().await.unwrap();
        let done = async {
            sleep(4 * IMPATIENCE).await;
            connections.hand_on(held);
        };
        let waiting = async { connections.acquire().await.map(drop) };
        let (first, second, ()) = tokio::join!(waiting, connections.acquire(), done);
        first.unwrap();
        second.unwrap();
    }

    #[tokio::test]
    async fn a_pool_without_a_connection_is_not_waited_for() {
        let connections = one_connection();
        // Held by somebody who does not stand in line here.
        let _held = connections.pool.acquire().await.unwrap();
        let answer = connections.acquire().await;
        assert!(matches!(answer, Err(Error::PoolTimedOut)), "{answer:?}");
    }

    #[tokio::test]
    async fn who_gave_up_is_forgotten() {
        let connections = one_connection();
        let held = connections.acquire().await.unwrap();
        for _ in 0..9 {
            let given_up = timeout(Duration::from_millis(1), connections.acquire()).await;
            assert!(given_up.is_err());
        }
        assert_eq!(connections.waiting.lock().len(), 1);
        connections.hand_on(held);
        connections.acquire().await.unwrap();
    }
}
