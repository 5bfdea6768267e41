//! Hearing from the primary's feed what to forget.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use tokio::{runtime::Handle, task::AbortHandle};

use super::cache::Cache;
use crate::{
    store::{Feed, FeedEvent},
    sync::{
        Mutex,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

/// One task that listens, from the first call inside a runtime until the store is dropped.
#[derive(Default)]
pub(super) struct Listener {
    state: Arc<AtomicU8>,
    task: Mutex<Option<AbortHandle>>,
}

impl Listener {
    /// Starts listening, unless a task does already.
    pub(super) fn start(&self, subscribe: impl FnOnce() -> Option<Feed>, cache: &Cache) {
        if self.state.load(Relaxed) != SILENT {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let begun = self
            .state
            .compare_exchange(SILENT, LISTENING, Relaxed, Relaxed);
        if begun.is_err() {
            return;
        }
        let Some(mut feed) = subscribe() else {
            self.state.store(OVER, Relaxed);
            return;
        };
        // What was remembered until now may have ended unheard.
        cache.forget_all(|_| true);
        let on_stop = OnStop(Arc::clone(&self.state));
        let task = runtime.spawn(async move {
            while poll_fn(|cx| feed.as_mut().poll_next(cx)).await.is_some() {}
            on_stop.0.store(OVER, Relaxed);
        });
        *self.task.lock() = Some(task.abort_handle());
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

/// When the task goes with its runtime, the next call in another one starts a new one.
struct OnStop(Arc<AtomicU8>);

impl Drop for OnStop {
    fn drop(&mut self) {
        let _ = self.0.compare_exchange(LISTENING, SILENT, Relaxed, Relaxed);
    }
}

/// A feed that forgets what has ended before it says so.
pub(super) fn forgetting(feed: Feed, cache: &Arc<Cache>) -> Feed {
    let cache = Arc::downgrade(cache);
    Box::pin(Forgetting { feed, cache })
}

struct Forgetting {
    feed: Feed,
    /// Weak, so that a subscriber keeps nothing alive.
    cache: Weak<Cache>,
}

impl Stream for Forgetting {
    type Item = FeedEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FeedEvent>> {
        let event = ready!(self.feed.as_mut().poll_next(cx));
        if let Some(cache) = self.cache.upgrade() {
            match &event {
                Some(FeedEvent::Ended { reference, .. } | FeedEvent::Changed { reference }) => {
                    cache.forget(reference);
                }
                Some(FeedEvent::Gap) | None => cache.forget_all(|_| true),
            }
        }
        Poll::Ready(event)
    }
}

const SILENT: u8 = 0;
const LISTENING: u8 = 1;
/// There is nothing to listen to.
const OVER: u8 = 2;
