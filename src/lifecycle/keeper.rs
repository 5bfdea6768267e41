//! The keeper: one task per layer and process that keeps sessions in use alive and notices the end of the others.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    future::poll_fn,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Lifecycle,
    delivery::end_undelivered,
    over::{LONGEST_TOUCH, Liveness, liveness},
    terminate::{end_heard, end_this, reason_by_time},
};
use crate::{
    session::{
        Session, Wake, WeakSession,
        times::{self, Tick, ticks},
    },
    store::{EndReason, Feed, FeedEvent, StoreError},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Starts the keeper once.
pub(super) struct KeeperStart {
    has_started: AtomicBool,
    /// The keeper's end of the channel, until there is a keeper.
    woken: Mutex<Option<mpsc::UnboundedReceiver<Wake>>>,
}

impl KeeperStart {
    pub(super) fn new(woken: mpsc::UnboundedReceiver<Wake>) -> Self {
        Self {
            has_started: AtomicBool::new(false),
            woken: Mutex::new(Some(woken)),
        }
    }
}

/// Starts the keeper, if nobody has. A layer is often made before there is a runtime, so this is left to the first request.
#[inline]
pub(crate) fn start(lifecycle: &Arc<Lifecycle>) {
    if !lifecycle.alive.keeper.has_started.load(Relaxed) {
        start_first(lifecycle);
    }
}

#[cold]
fn start_first(lifecycle: &Arc<Lifecycle>) {
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    let start = &lifecycle.alive.keeper;
    let Some(woken) = start.woken.lock().take() else {
        return;
    };
    start.has_started.store(true, Relaxed);
    let keeper = Keeper {
        feed: lifecycle.store.feed(),
        lifecycle: Arc::downgrade(lifecycle),
        woken,
        agenda: BinaryHeap::new(),
        crowded: CROWDED,
        at_once: VecDeque::new(),
        undelivered: VecDeque::new(),
        again: VecDeque::new(),
        calls: JoinSet::new(),
        salt: uuid::Uuid::new_v4().as_bytes()[0],
    };
    runtime.spawn(keeper.run());
}

/// Holds nothing of the layer but a weak reference: when the last clone is gone, the keeper goes too.
struct Keeper {
    lifecycle: Weak<Lifecycle>,
    woken: mpsc::UnboundedReceiver<Wake>,
    feed: Option<Feed>,
    /// Each session once, with the time at which it is looked at next.
    agenda: BinaryHeap<Reverse<Item>>,
    /// At which length the agenda is cleared of sessions that are gone.
    crowded: usize,
    /// Looks besides.
    at_once: VecDeque<(Session, Look)>,
    /// Sessions whose answer seems not to have been taken, and when that is concluded.
    undelivered: VecDeque<(Tick, Session)>,
    /// Looks that failed, with the time of the next try, which comes as long after for all.
    again: VecDeque<(Tick, Session, Look)>,
    calls: JoinSet<Asked>,
    /// So that nodes do not ask for the same session at the same moment.
    salt: u8,
}

/// A session to look at. Two words, since there may be a million.
struct Item {
    at: Tick,
    session: WeakSession,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// One of many, until the session's end.
    Regular,
    /// One besides, which is a touch.
    Touch,
    /// One besides, which extends nothing. If the session is over, this is why.
    Ask(EndReason),
    /// One that ends it, unless it has been used: nobody got its id.
    Undelivered,
}

/// What the store said of a session.
struct Asked {
    session: Session,
    look: Look,
    answer: Result<Liveness, StoreError>,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let may_call = self.calls.len() < MAX_CALLS;
            let next = self.next_look();
            tokio::select! {
                wake = self.woken.recv() => match wake {
                    Some(wake) => self.wake(wake),
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
                () = until(next), if may_call => self.look_at_next(),
            }
            if self.lifecycle.strong_count() == 0 {
                return;
            }
        }
    }

    fn wake(&mut self, wake: Wake) {
        match wake {
            Wake::Keep(session) => self.schedule(&session),
            Wake::Touch(session) => {
                session.state().touch_taken();
                self.at_once.push_back((session, Look::Touch));
            }
            Wake::Check(session) => {
                let look = Look::Ask(EndReason::Revoked);
                self.at_once.push_back((session, look));
            }
            Wake::Undelivered(session) => {
                let at = times::now() + ticks(UNDELIVERED_FOR);
                self.undelivered.push_back((at, session));
            }
        }
    }

    fn hear(&mut self, event: FeedEvent) {
        let Some(lifecycle) = self.lifecycle.upgrade() else {
            return;
        };
        match event {
            FeedEvent::Ended { reference, reason } => end_heard(&lifecycle, &reference, reason),
            FeedEvent::Changed { reference } => {
                let session = lifecycle.alive.registry.get(&reference);
                let look = Look::Ask(EndReason::Deleted);
                self.at_once.extend(session.map(|session| (session, look)));
            }
            FeedEvent::Gap => {
                let sessions = lifecycle.alive.registry.sessions();
                let in_use = sessions.into_iter().filter(Session::is_in_use);
                let look = Look::Ask(EndReason::Deleted);
                self.at_once.extend(in_use.map(|session| (session, look)));
            }
        }
    }

    /// When to look next; zero is at once.
    fn next_look(&self) -> Option<Tick> {
        if !self.at_once.is_empty() {
            return Some(0);
        }
        let again = self.again.front().map(|(at, ..)| *at);
        let undelivered = self.undelivered.front().map(|(at, _)| *at);
        let regular = self.agenda.peek().map(|Reverse(item)| item.at);
        [again, undelivered, regular].into_iter().flatten().min()
    }

    fn look_at_next(&mut self) {
        let again = self.again.front();
        let is_due = again.is_some_and(|(at, ..)| *at <= times::now());
        let undelivered = self.undelivered.front();
        let is_undelivered = undelivered.is_some_and(|(at, _)| *at <= times::now());
        let next = if let Some(next) = self.at_once.pop_front() {
            Some(next)
        } else if is_undelivered && let Some((_, session)) = self.undelivered.pop_front() {
            Some((session, Look::Undelivered))
        } else if is_due && let Some((_, session, look)) = self.again.pop_front() {
            Some((session, look))
        } else {
            let item = self.agenda.pop().map(|Reverse(item)| item.session);
            let session = item.and_then(|session| session.upgrade());
            session.map(|session| (session, Look::Regular))
        };
        if let Some((session, look)) = next
            && !session.has_ended()
        {
            self.look_at(session, look);
        }
    }

    /// Touches a session if it is in use, asks for it if its time should be up.
    fn look_at(&mut self, session: Session, look: Look) {
        let Some(lifecycle) = self.lifecycle.upgrade() else {
            return;
        };
        let touches = match look {
            Look::Regular => session.is_in_use(),
            Look::Touch => true,
            Look::Ask(_) => false,
            Look::Undelivered if session.state().now().is_undelivered() => {
                self.calls.spawn(async move {
                    let answer = end_undelivered(&lifecycle, &session).await;
                    Asked {
                        session,
                        look,
                        answer,
                    }
                });
                return;
            }
            Look::Undelivered => return,
        };
        if look == Look::Regular && !touches && times::now() < session.times().until() {
            return self.schedule(&session);
        }
        self.calls.spawn(async move {
            let (store, idle) = (&lifecycle.store, lifecycle.settings.idle);
            let touched = match touches {
                true => store.touch(session.id(), session.owner(), idle).await,
                false => Ok(None),
            };
            let answer = match touched {
                Ok(Some(found)) => Ok(Liveness::Live(found)),
                // It may have become somebody else's on another node.
                Ok(None) => liveness(store, &session, reason_of(&session, look)).await,
                Err(error) => Err(error),
            };
            Asked {
                session,
                look,
                answer,
            }
        });
    }

    fn conclude(&mut self, asked: Asked) {
        let Some(lifecycle) = self.lifecycle.upgrade() else {
            return;
        };
        let Asked {
            session,
            look,
            answer,
        } = asked;
        match answer {
            Ok(Liveness::Live(found)) => {
                // An old answer about its owner is no less an answer about its time.
                session.claim(found.session.owner());
                lifecycle.alive.registry.note(&session, &found);
                if look == Look::Regular {
                    self.schedule(&session);
                }
            }
            Ok(Liveness::Over) => {
                let reason = reason_of(&session, look);
                end_this(&lifecycle, &session, reason);
            }
            Ok(Liveness::Unknown) if look == Look::Regular => {
                let up = session.times().until().max(times::now());
                self.put_on_agenda(&session, up.saturating_add(ticks(LONGEST_TOUCH)));
            }
            Ok(Liveness::Unknown) => {}
            Err(error) => {
                tracing::warn!(session = %session.reference(), error = &error as &dyn std::error::Error, "could not keep a session");
                // A store that is briefly away is not the end of anything.
                let soon = (lifecycle.settings.beat() / 4).min(SOON);
                let at = times::now() + ticks(soon);
                self.again.push_back((at, session, look));
            }
        }
    }

    fn schedule(&mut self, session: &Session) {
        let Some(lifecycle) = self.lifecycle.upgrade() else {
            return;
        };
        let beat = match self.feed {
            Some(_) => lifecycle.settings.beat(),
            // Without a feed nothing announces an end elsewhere, so the store is asked for the sake of open streams.
            None => lifecycle.settings.beat().min(LONGEST_WITHOUT_FEED),
        };
        let jitter = u32::from(session.reference().as_bytes()[0] ^ self.salt);
        let beat = beat - beat / 4 * jitter / 256;
        let now = times::now();
        let at = session.times().until().min(now + ticks(beat));
        // A store that calls a session live without any time left is not asked again and again without a pause.
        self.put_on_agenda(session, at.max(now + ticks(SHORTEST)));
    }

    fn put_on_agenda(&mut self, session: &Session, at: Tick) {
        // Sessions that are gone must not pile up until their turn would have come.
        if self.agenda.len() >= self.crowded {
            self.agenda.retain(|Reverse(item)| !item.session.is_gone());
            // They keep their memory until then, so not many are left to.
            self.crowded = CROWDED.max(self.agenda.len() / 4 * 5);
        }
        let session = session.downgrade();
        self.agenda.push(Reverse(Item { at, session }));
    }
}

/// Why a session is gone, where no reason was given.
fn reason_of(session: &Session, look: Look) -> EndReason {
    reason_by_time(session).unwrap_or(match look {
        Look::Ask(reason) => reason,
        Look::Undelivered => EndReason::Undelivered,
        Look::Regular | Look::Touch => EndReason::Deleted,
    })
}

async fn hear(feed: &mut Option<Feed>) -> Option<FeedEvent> {
    match feed {
        Some(feed) => poll_fn(|cx| feed.as_mut().poll_next(cx)).await,
        None => std::future::pending().await,
    }
}

async fn until(next: Option<Tick>) {
    match next {
        Some(0) => {}
        Some(at) => sleep_until(Instant::now() + times::between(times::now(), at)).await,
        None => std::future::pending().await,
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Item {}

/// Whoever got the id after all, although the answer's body was dropped, has used it by then.
const UNDELIVERED_FOR: Duration = Duration::from_secs(1);
const MAX_CALLS: usize = 64;
const CROWDED: usize = 1024;
const SHORTEST: Duration = Duration::from_millis(1);
const SOON: Duration = Duration::from_secs(5);
const LONGEST_WITHOUT_FEED: Duration = Duration::from_secs(15);
