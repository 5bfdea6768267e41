//! What is open on this node: the sessions it serves, their streams, and the requests being answered.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, broadcast, mpsc},
    time::Instant,
};

use crate::{
    drain::Drain,
    handle::SessionEvent,
    id::SessionRef,
    inner::Route,
    session::Session,
    store::{EndReason, Found},
    watch::{Stream, StreamKind},
};

/// What is alive in this process for one layer. All clones of the layer share it.
pub(crate) struct Live {
    shards: Box<[Mutex<Shard>]>,
    /// Refused requests' bodies, being swallowed.
    pub(crate) drain: Drain,
    /// Bytes that bodies may take while the layer looks at them.
    pub(crate) body_bytes: Arc<Semaphore>,
    /// Births and deaths under way: they go on when their client hangs up, so they are bounded here.
    pub(crate) works: Arc<Semaphore>,
    /// Callers of the store.
    pub(crate) store_calls: Semaphore,
    /// Requests to inner services about sessions that ended elsewhere.
    pub(crate) tells: Arc<Semaphore>,
    /// Births are refused.
    pub(crate) draining: AtomicBool,
    /// GET streams are refused too.
    pub(crate) closing: AtomicBool,
    pub(crate) said_ids_are_ours: AtomicBool,
    /// Until when births are refused because there was no room.
    full_until: Mutex<Option<Instant>>,
    pub(crate) events: broadcast::Sender<SessionEvent>,
    /// What the keeper should look at, and when.
    pub(crate) agenda: mpsc::UnboundedSender<Errand>,
    /// The keeper's end of the agenda, until there is a keeper.
    pub(crate) errands: Mutex<Option<mpsc::UnboundedReceiver<Errand>>>,
    pub(crate) is_kept: AtomicBool,
}

/// Something for the keeper to look at.
pub(crate) enum Errand {
    /// A session that this node serves from now on.
    Keep(Arc<LiveSession>),
    /// Its last use ended just now: its idle time starts now.
    Rest(Arc<LiveSession>),
    /// It may have been ended elsewhere just now.
    Look(Arc<LiveSession>),
}

/// A session that this node has served and has not heard the end of.
pub(crate) struct LiveSession {
    /// What the layer gives to handlers. Replaced when the session's owner changes.
    session: Mutex<Session>,
    reference: SessionRef,
    ended: AtomicBool,
    /// Requests being answered and streams that are open.
    uses: AtomicUsize,
    resting: AtomicBool,
    streams: Mutex<Streams>,
    /// Where the inner service saw it last.
    route: Mutex<Option<Route>>,
    /// When its time is up, as far as this node has been told. Never too late.
    pub(crate) due: Mutex<Due>,
}

/// When a session's time is up unless somebody extends it.
#[derive(Clone, Copy)]
pub(crate) struct Due {
    pub(crate) idle: Instant,
    pub(crate) life: Option<Instant>,
}

#[derive(Default)]
struct Streams {
    next: u64,
    open: HashMap<u64, Arc<Stream>>,
}

#[derive(Default)]
struct Shard {
    sessions: HashMap<SessionRef, Arc<LiveSession>, foldhash::fast::RandomState>,
    /// Sessions whose end this node knows of while a look-up that began before may still come back.
    ended: HashMap<SessionRef, Memory>,
    forget: VecDeque<(Instant, SessionRef)>,
}

#[derive(PartialEq)]
enum Memory {
    /// For as long as a look-up may take.
    Fading,
    /// Until the store has forgotten it too.
    Condemned,
}

impl Live {
    pub(crate) fn new() -> Self {
        let (agenda, errands) = mpsc::unbounded_channel();
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            drain: Drain::new(),
            body_bytes: Arc::new(Semaphore::new(MAX_BODY_BYTES)),
            works: Arc::new(Semaphore::new(MAX_WORKS)),
            store_calls: Semaphore::new(MAX_STORE_CALLS),
            tells: Arc::new(Semaphore::new(MAX_TELLS)),
            draining: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            said_ids_are_ours: AtomicBool::new(false),
            full_until: Mutex::new(None),
            events: broadcast::Sender::new(EVENTS),
            agenda,
            errands: Mutex::new(Some(errands)),
            is_kept: AtomicBool::new(false),
        }
    }

    /// Lets a request on a session in. `None` if this node knows that the session has ended.
    ///
    /// After a visit longer than `rest_after` the session is touched again, so that its idle time starts at the end
    /// of the visit; after a shorter one the touch that it began with says nearly the same.
    pub(crate) fn enter(self: &Arc<Self>, found: &Found, rest_after: Duration) -> Option<Visit> {
        let reference = found.session.reference();
        let mut shard = self.shard(reference);
        let live = match shard.sessions.get(reference) {
            Some(live) => Arc::clone(live),
            None if shard.ended.contains_key(reference) => return None,
            None => {
                let live = Arc::new(LiveSession::new(found));
                shard.sessions.insert(*reference, Arc::clone(&live));
                let _ = self.agenda.send(Errand::Keep(Arc::clone(&live)));
                live
            }
        };
        drop(shard);
        live.refresh(&found.session);
        live.uses.fetch_add(1, Ordering::Relaxed);
        Some(Visit {
            node: Arc::clone(self),
            live,
            since: Instant::now(),
            rest_after,
        })
    }

    /// Announces a birth. The session may have had a namesake, whose end is forgotten.
    pub(crate) fn born(&self, session: &Session) {
        self.shard(session.reference())
            .ended
            .remove(session.reference());
        let _ = self.events.send(SessionEvent::Born {
            reference: *session.reference(),
            owner: session.owner().clone(),
        });
    }

    /// Ends what is open of a session on this node. `None` if this was known already; the inner service's route to
    /// the session if this node served it.
    pub(crate) fn end(&self, reference: &SessionRef, reason: EndReason) -> Ended {
        let live = {
            let mut shard = self.shard(reference);
            let live = shard.sessions.remove(reference);
            let news = shard.remember(*reference, Memory::Fading);
            if live.is_none() && !news {
                return Ended::Before;
            }
            live
        };
        *self.full_until.lock() = None;
        let _ = self.events.send(SessionEvent::Ended {
            reference: *reference,
            reason,
        });
        match live {
            Some(live) => {
                live.end();
                Ended::Served(live)
            }
            None => Ended::Elsewhere,
        }
    }

    /// As [`end`](Self::end), for ends heard from elsewhere: nothing is remembered or announced of sessions that
    /// this node never served, except that a look-up under way must not let one in.
    pub(crate) fn end_heard(&self, reference: &SessionRef, reason: EndReason) -> Ended {
        if self.shard(reference).sessions.contains_key(reference) {
            return self.end(reference, reason);
        }
        self.shard(reference).remember(*reference, Memory::Fading);
        Ended::Before
    }

    /// Refuses a session from now on, whatever the store says.
    pub(crate) fn condemn(&self, reference: SessionRef) {
        self.shard(&reference)
            .ended
            .insert(reference, Memory::Condemned);
    }

    /// The store has forgotten a condemned session.
    pub(crate) fn pardon(&self, reference: &SessionRef) {
        let mut shard = self.shard(reference);
        shard.ended.remove(reference);
        shard.remember(*reference, Memory::Fading);
    }

    /// Whether births are refused for want of room.
    pub(crate) fn is_full(&self) -> bool {
        self.full_until
            .lock()
            .is_some_and(|until| Instant::now() < until)
    }

    /// Refuses births for a moment: there was no room just now.
    pub(crate) fn full(&self) {
        *self.full_until.lock() = Some(Instant::now() + FULL_FOR);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// All sessions that this node serves.
    pub(crate) fn served(&self) -> Vec<Arc<LiveSession>> {
        let mut served = Vec::new();
        for shard in &self.shards {
            served.extend(shard.lock().sessions.values().cloned());
        }
        served
    }

    /// Ends streams of this kind on all sessions. The sessions go on.
    pub(crate) fn end_streams(&self, which: impl Fn(StreamKind) -> bool) {
        for live in self.served() {
            live.end_streams(|stream| which(stream.kind));
        }
    }

    /// Whether a request is being answered or a stream is open.
    pub(crate) fn is_busy(&self) -> bool {
        self.works.available_permits() < MAX_WORKS
            || self.served().iter().any(|live| live.is_in_use())
    }

    /// Ends what is still open: the streams, and the answers that have not begun.
    pub(crate) fn cut_off(&self) {
        self.end_streams(|_| true);
    }

    fn shard(&self, reference: &SessionRef) -> parking_lot::MutexGuard<'_, Shard> {
        // A digest's bits are as good as any hash's.
        self.shards[usize::from(reference.as_bytes()[31]) % SHARDS].lock()
    }
}

/// What [`Live::end`] found.
pub(crate) enum Ended {
    /// This node knew.
    Before,
    /// This node had never served it.
    Elsewhere,
    /// This node served it until now.
    Served(Arc<LiveSession>),
}

impl Shard {
    /// Remembers an end, and says whether it is news.
    fn remember(&mut self, reference: SessionRef, memory: Memory) -> bool {
        let now = Instant::now();
        while let Some((until, faded)) = self.forget.front().copied()
            && until <= now
        {
            self.forget.pop_front();
            if self.ended.get(&faded) == Some(&Memory::Fading) {
                self.ended.remove(&faded);
            }
        }
        if self.ended.contains_key(&reference) {
            return false;
        }
        self.ended.insert(reference, memory);
        self.forget.push_back((now + REMEMBERED_FOR, reference));
        true
    }
}

impl LiveSession {
    fn new(found: &Found) -> Self {
        Self {
            session: Mutex::new(found.session.clone()),
            reference: *found.session.reference(),
            ended: AtomicBool::new(false),
            uses: AtomicUsize::new(0),
            resting: AtomicBool::new(false),
            streams: Mutex::default(),
            route: Mutex::new(None),
            due: Mutex::new(Due::of(found)),
        }
    }

    pub(crate) fn reference(&self) -> &SessionRef {
        &self.reference
    }

    /// The handle that requests on this node get.
    pub(crate) fn session(&self) -> Session {
        self.session.lock().clone()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    pub(crate) fn is_in_use(&self) -> bool {
        self.uses.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn route(&self) -> Option<Route> {
        self.route.lock().clone()
    }

    /// The keeper has seen to it that the idle time starts now.
    pub(crate) fn rested(&self) {
        self.resting.store(false, Ordering::SeqCst);
    }

    /// Ends the streams that `which` picks. The session goes on.
    pub(crate) fn end_streams(&self, which: impl Fn(&Stream) -> bool) {
        let picked: Vec<_> = {
            let mut streams = self.streams.lock();
            streams.open.extract_if(|_, stream| which(stream)).collect()
        };
        for (_, stream) in picked {
            stream.end();
        }
    }

    /// Takes over the store's word on whose session it is. The node-local values stay.
    pub(crate) fn refresh(&self, found: &Session) {
        let mut session = self.session.lock();
        if session.owner() != found.owner() {
            *session = session.with_record(found.record().clone());
            drop(session);
            // What somebody else opened is not the new owner's.
            self.end_streams(|_| true);
        }
    }

    fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.end_streams(|_| true);
        self.session().drop_locals();
    }
}

impl Due {
    pub(crate) fn of(found: &Found) -> Self {
        let now = Instant::now();
        Self {
            idle: far(now, found.idle_left),
            life: found.life_left.map(|left| far(now, left)),
        }
    }

    pub(crate) fn at(&self) -> Instant {
        self.life.map_or(self.idle, |life| life.min(self.idle))
    }
}

/// A request being answered, or an open stream: the session is in use until this is dropped.
pub(crate) struct Visit {
    node: Arc<Live>,
    live: Arc<LiveSession>,
    since: Instant,
    rest_after: Duration,
}

impl Visit {
    /// The handle to give to the inner service.
    pub(crate) fn session(&self) -> Session {
        self.live.session()
    }

    /// Where the inner service saw the session last.
    pub(crate) fn route(&self) -> Option<Route> {
        self.live.route()
    }

    /// Whether the session has ended since this visit began.
    pub(crate) fn has_ended(&self) -> bool {
        self.live.has_ended()
    }

    /// Whether GET streams are refused, because the process is shutting down.
    pub(crate) fn is_closing(&self) -> bool {
        self.node.closing.load(Ordering::Relaxed)
    }

    /// Notes where the inner service is told of the session's end, if it changed since the last request.
    pub(crate) fn note_route(
        &self,
        is_known: impl FnOnce(&Route) -> bool,
        route: impl FnOnce() -> Route,
    ) {
        let mut noted = self.live.route.lock();
        if !noted.as_ref().is_some_and(is_known) {
            *noted = Some(route());
        }
    }

    /// Watches a stream, so that it ends with the session. `None` if that has ended already.
    pub(crate) fn watch(&self, stream: &Arc<Stream>) -> Option<u64> {
        let mut streams = self.live.streams.lock();
        let key = streams.next;
        streams.next += 1;
        streams.open.insert(key, Arc::clone(stream));
        drop(streams);
        // Looked at after the stream is in the list: whoever ends the session from here on finds it there.
        if self.has_ended() {
            self.unwatch(key);
            return None;
        }
        Some(key)
    }

    pub(crate) fn unwatch(&self, key: u64) {
        let stream = self.live.streams.lock().open.remove(&key);
        drop(stream);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let last = self.live.uses.fetch_sub(1, Ordering::Relaxed) == 1;
        if last
            && self.since.elapsed() >= self.rest_after
            && !self.live.has_ended()
            && !self.live.resting.swap(true, Ordering::SeqCst)
        {
            let _ = self.node.agenda.send(Errand::Rest(Arc::clone(&self.live)));
        }
    }
}

/// An instant a while from now, also where the while is longer than clocks can count.
pub(crate) fn far(now: Instant, left: Duration) -> Instant {
    now.checked_add(left)
        .unwrap_or_else(|| now + Duration::from_secs(60 * 60 * 24 * 365 * 30))
}

const SHARDS: usize = 64;
const MAX_BODY_BYTES: usize = 16 << 20;
const MAX_WORKS: usize = 4096;
const MAX_STORE_CALLS: usize = 16_384;
const MAX_TELLS: usize = 16;
const EVENTS: usize = 1024;
const FULL_FOR: Duration = Duration::from_secs(1);
/// Longer than any look-up takes: the longest time limit for a store call is a minute.
const REMEMBERED_FOR: Duration = Duration::from_secs(90);
