//! Requests being answered and streams that are open: what keeps sessions in use, and what a shutdown waits for.

use std::{sync::Arc, task::Waker, time::Duration};

use http::Method;
use slab::Slab;
use tokio::sync::mpsc;

use super::{
    Session,
    times::{self, Tick, ticks},
};
use crate::{
    protocol::RejectionKind,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

/// A use of a session: until this is dropped the session is not idle.
pub(crate) struct InFlight {
    session: Session,
    tracker: Arc<Tracker>,
    is_use: bool,
    is_claimed: bool,
    has_waited: bool,
}

impl InFlight {
    /// A use that has been counted already by [`begin_use`](super::State::begin_use). `is_claimed` is what the session was
    /// when its caller was found to be its owner.
    pub(crate) fn counted(session: Session, tracker: &Arc<Tracker>, is_claimed: bool) -> Self {
        tracker.count.fetch_add(1, SeqCst);
        Self {
            is_claimed,
            session,
            tracker: Arc::clone(tracker),
            is_use: true,
            has_waited: false,
        }
    }

    /// The answer that creates a session. It is no use of it: the client has yet to show that it got the id.
    pub(crate) fn creating(session: Session, tracker: &Arc<Tracker>) -> Self {
        let mut in_flight = Self::counted(session, tracker, false);
        in_flight.is_use = false;
        in_flight
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// It was not answered at once, so that its end may be long after its beginning.
    pub(crate) fn waited(&mut self) {
        self.has_waited = true;
    }

    /// Whether its answer may be a stream.
    ///
    /// # Errors
    ///
    /// When the session has ended, is somebody else's by now, or the process is about to stop.
    pub(super) fn may_stream(&self, kind: StreamKind) -> Result<(), RejectionKind> {
        if self.session.has_ended() {
            Err(RejectionKind::Ended)
        } else if self.session.is_claimed() != self.is_claimed {
            Err(RejectionKind::Unknown)
        } else if self.tracker.refuses(kind) {
            Err(RejectionKind::Draining)
        } else {
            Ok(())
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.tracker.count.fetch_sub(1, SeqCst);
        if !self.is_use {
            return;
        }
        let before = self.session.state().end_use();
        if self.has_waited
            && before.uses() == 1
            && !before.has_ended()
            && !before.is_marked()
            && self.tracker.needs_touch(&self.session)
            && self.session.state().ask_for_touch()
        {
            self.tracker.wake(Wake::Touch(self.session.clone()));
        }
    }
}

/// What opened a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// A GET: it stays open until somebody ends it.
    Standing,
    /// Any other request: it ends with its answer.
    Answer,
}

impl StreamKind {
    /// Of the stream that a request with this method opens.
    pub(crate) fn of(method: &Method) -> Self {
        if method == Method::GET {
            Self::Standing
        } else {
            Self::Answer
        }
    }
}

/// Something for the keeper of sessions to look at.
pub(crate) enum Wake {
    /// A session that this node serves from now on.
    Keep(Session),
    /// Its last use ended just now: a touch starts its idle time.
    Touch(Session),
    /// It may have been ended elsewhere just now.
    Check(Session),
    /// The answer with its id seems not to have reached its client.
    Undelivered(Session),
}

/// Counts what is in flight, and says when it has to end.
pub(crate) struct Tracker {
    count: AtomicUsize,
    /// GET streams are refused.
    is_closing: AtomicBool,
    /// The time for answers in flight is up.
    is_cut: AtomicBool,
    waiters: Mutex<Slab<Waker>>,
    /// A use that ends with less idle time left than this asks for a touch.
    touch_below: AtomicU64,
    keeper: mpsc::UnboundedSender<Wake>,
}

impl Tracker {
    pub(crate) fn new(keeper: mpsc::UnboundedSender<Wake>) -> Self {
        Self {
            count: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            waiters: Mutex::default(),
            touch_below: AtomicU64::new(0),
            keeper,
        }
    }

    /// How long sessions may be idle.
    pub(crate) fn set_idle(&self, idle: Duration) {
        // Short beside the idle time: what the touch that a use began with says is nearly the same.
        let short = (idle / 64).clamp(Duration::from_millis(50), Duration::from_secs(10));
        self.touch_below
            .store(ticks(idle.saturating_sub(short)), SeqCst);
    }

    /// Something in flight that is on no session yet.
    pub(crate) fn begin(self: &Arc<Self>) -> Counted {
        self.count.fetch_add(1, SeqCst);
        Counted(Arc::clone(self))
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.count.load(SeqCst)
    }

    pub(crate) fn wake(&self, wake: Wake) {
        // An error says that the layer is gone.
        let _ = self.keeper.send(wake);
    }

    /// Refuses GET streams from now on.
    pub(crate) fn close(&self) {
        self.is_closing.store(true, SeqCst);
    }

    /// Refuses every stream, and cuts off answers that are waited for, now and from now on.
    pub(crate) fn cut_off(&self) {
        self.is_cut.store(true, SeqCst);
        let waiters: Vec<_> = self
            .waiters
            .lock()
            .iter()
            .map(|(_, waker)| waker.clone())
            .collect();
        for waiter in waiters {
            waiter.wake();
        }
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(SeqCst)
    }

    /// Has this waiter woken at [`cut_off`](Self::cut_off), unless it is dropped before.
    pub(crate) fn wait_for_cut(self: &Arc<Self>, waker: &Waker) -> CutWaiter {
        let key = self.waiters.lock().insert(waker.clone());
        CutWaiter {
            tracker: Arc::clone(self),
            key,
        }
    }

    fn refuses(&self, kind: StreamKind) -> bool {
        self.is_cut() || kind == StreamKind::Standing && self.is_closing.load(SeqCst)
    }

    fn needs_touch(&self, session: &Session) -> bool {
        let until: Tick = session.times().until();
        until < session.times().end_of_life()
            && until.saturating_sub(times::now()) < self.touch_below.load(SeqCst)
    }
}

/// An answer that is waited for and may be cut off.
pub(crate) struct CutWaiter {
    tracker: Arc<Tracker>,
    key: usize,
}

impl CutWaiter {
    /// Whoever waits now is woken by this.
    pub(crate) fn renew(&self, waker: &Waker) {
        if let Some(kept) = self.tracker.waiters.lock().get_mut(self.key) {
            kept.clone_from(waker);
        }
    }
}

impl Drop for CutWaiter {
    fn drop(&mut self) {
        let waker = self.tracker.waiters.lock().try_remove(self.key);
        drop(waker);
    }
}

/// A request that shutting down waits for.
pub(crate) struct Counted(Arc<Tracker>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, SeqCst);
    }
}
