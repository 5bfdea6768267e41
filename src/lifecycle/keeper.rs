//! The keeper: one task per layer and process that keeps sessions in use alive and notices the end of the others.

use std::{
    cmp::Ordering as Order,
    collections::BinaryHeap,
    future::poll_fn,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    registry::{Due, Ended, Errand, LiveSession},
    service::layer::Core,
    store::{EndReason, Feed, FeedEvent, Found, SessionStore, StoreError},
};

impl<St: SessionStore> Core<St> {
    /// Starts the keeper, if nobody has. A layer is often made before there is a runtime, so this is left to the first
    /// request.
    pub(crate) fn start_keeper(self: &Arc<Self>) {
        if self.live.is_kept.load(Ordering::Relaxed) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let Some(errands) = self.live.errands.lock().take() else {
            return;
        };
        self.live.is_kept.store(true, Ordering::Relaxed);
        let keeper = Keeper {
            feed: self.store.feed(),
            core: Arc::downgrade(self),
            errands,
            agenda: BinaryHeap::new(),
            crowded: CROWDED,
            calls: JoinSet::new(),
            salt: uuid::Uuid::new_v4().as_bytes()[0],
        };
        runtime.spawn(keeper.run());
    }
}

/// Holds nothing of the layer but a weak reference: when the last clone is gone, the keeper goes too.
struct Keeper<St> {
    core: Weak<Core<St>>,
    errands: mpsc::UnboundedReceiver<Errand>,
    feed: Option<Feed>,
    agenda: BinaryHeap<Item>,
    /// At which length the agenda is cleared of sessions that are gone.
    crowded: usize,
    calls: JoinSet<Asked>,
    /// So that nodes do not ask for the same session at the same moment.
    salt: u8,
}

/// A session to look at.
struct Item {
    at: Instant,
    live: Weak<LiveSession>,
    turn: Turn,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// One look of many, until the session's end.
    Regular,
    /// One besides, which is a touch.
    Touch,
    /// One besides, which extends nothing. If the session is gone, this is why.
    Load(EndReason),
}

/// What the store said of a session.
struct Asked {
    live: Arc<LiveSession>,
    turn: Turn,
    answer: Result<Option<Found>, StoreError>,
}

impl<St: SessionStore> Keeper<St> {
    async fn run(mut self) {
        loop {
            let next = self.agenda.peek().map(|item| item.at);
            let may_call = self.calls.len() < MAX_CALLS;
            tokio::select! {
                errand = self.errands.recv() => match errand {
                    Some(errand) => self.note(errand),
                    None => return,
                },
                event = hear(&mut self.feed) => match event {
                    Some(event) => self.hear(event),
                    None => self.feed = None,
                },
                Some(asked) = self.calls.join_next(), if !self.calls.is_empty() => {
                    if let Ok(asked) = asked {
                        self.conclude(asked);
                    }
                }
                () = until(next), if may_call => self.look(),
            }
            if self.core.strong_count() == 0 {
                return;
            }
        }
    }

    fn note(&mut self, errand: Errand) {
        match errand {
            Errand::Keep(live) => self.schedule(&live, Turn::Regular),
            Errand::Rest(live) => {
                live.rested();
                self.look_now(&live, Turn::Touch);
            }
            Errand::Look(live) => self.look_now(&live, Turn::Load(EndReason::Revoked)),
        }
    }

    fn hear(&mut self, event: FeedEvent) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        match event {
            FeedEvent::Ended { reference, reason } => {
                if let Ended::Served(live) = core.live.end_heard(&reference, reason) {
                    core.tell_inner(&live);
                }
            }
            FeedEvent::Gap => {
                for live in core.live.served() {
                    if live.is_in_use() {
                        self.look_now(&live, Turn::Load(EndReason::Deleted));
                    }
                }
            }
        }
    }

    fn look_now(&mut self, live: &Arc<LiveSession>, turn: Turn) {
        self.push(live, Instant::now(), turn);
    }

    /// Looks at the session whose turn it is: touches it if it is in use, asks for it if its time should be up.
    fn look(&mut self) {
        let (Some(item), Some(core)) = (self.agenda.pop(), self.core.upgrade()) else {
            return;
        };
        let Some(live) = item.live.upgrade().filter(|live| !live.has_ended()) else {
            return;
        };
        let touches = match item.turn {
            Turn::Regular => live.is_in_use(),
            Turn::Touch => true,
            Turn::Load(_) => false,
        };
        let is_due = Instant::now() >= live.due.lock().at();
        if item.turn == Turn::Regular && !touches && !is_due {
            return self.schedule(&live, item.turn);
        }
        self.calls.spawn(async move {
            let session = live.session();
            let touched = match touches {
                true => core.touch(session.id(), session.owner()).await,
                false => Ok(None),
            };
            let answer = match touched {
                // It may have become somebody else's on another node. Only `load` knows whether it is gone.
                Ok(None) => core.load(session.id()).await,
                answer => answer,
            };
            Asked {
                live,
                turn: item.turn,
                answer,
            }
        });
    }

    fn conclude(&mut self, asked: Asked) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        let Asked { live, turn, answer } = asked;
        match answer {
            Ok(Some(found)) => {
                // An old answer about its owner is no less an answer about its time.
                let _ = live.refresh(&found.session);
                *live.due.lock() = Due::of(&found);
                self.schedule(&live, turn);
            }
            Ok(None) => {
                let reason = reason_of(*live.due.lock(), turn);
                core.end_here(live.reference(), reason);
            }
            Err(error) => {
                // A store that is briefly away is not the end of anything.
                tracing::warn!(session = %live.reference(), error = &error as &dyn std::error::Error, "could not keep a session");
                let soon = (core.settings.beat() / 4).min(SOON);
                self.push(&live, Instant::now() + soon, turn);
            }
        }
    }

    fn schedule(&mut self, live: &Arc<LiveSession>, turn: Turn) {
        let Some(core) = self.core.upgrade().filter(|_| turn == Turn::Regular) else {
            return;
        };
        let beat = match self.feed {
            Some(_) => core.settings.beat(),
            // Nobody says when a session is ended elsewhere, so its streams have to ask.
            None => core.settings.beat().min(LONGEST_DEAF),
        };
        let jitter = u32::from(live.reference().as_bytes()[0] ^ self.salt);
        let beat = beat - beat / 4 * jitter / 256;
        let at = live.due.lock().at().min(Instant::now() + beat);
        self.push(live, at, turn);
    }

    fn push(&mut self, live: &Arc<LiveSession>, at: Instant, turn: Turn) {
        // Sessions that are gone must not pile up until their turn would have come.
        if self.agenda.len() >= self.crowded {
            self.agenda.retain(|item| item.live.strong_count() > 0);
            self.crowded = CROWDED.max(self.agenda.len() * 2);
        }
        self.agenda.push(Item {
            at,
            live: Arc::downgrade(live),
            turn,
        });
    }
}

/// Why a session is gone of which nobody said why.
fn reason_of(due: Due, turn: Turn) -> EndReason {
    let now = Instant::now();
    match (due.life, turn) {
        (Some(life), _) if life <= now => EndReason::Lifetime,
        _ if due.idle <= now => EndReason::Idle,
        (_, Turn::Load(reason)) => reason,
        _ => EndReason::Deleted,
    }
}

async fn hear(feed: &mut Option<Feed>) -> Option<FeedEvent> {
    match feed {
        Some(feed) => poll_fn(|cx| feed.as_mut().poll_next(cx)).await,
        None => std::future::pending().await,
    }
}

async fn until(next: Option<Instant>) {
    match next {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Ord for Item {
    /// The earliest is the greatest, so that the heap gives it first.
    fn cmp(&self, other: &Self) -> Order {
        other.at.cmp(&self.at)
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Item {}

const MAX_CALLS: usize = 64;
const CROWDED: usize = 1024;
const SOON: Duration = Duration::from_secs(5);
const LONGEST_DEAF: Duration = Duration::from_secs(15);
