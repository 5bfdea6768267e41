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
    sync::{Notify, Semaphore, broadcast, futures::OwnedNotified, mpsc},
    time::Instant,
};

use crate::{
    handle::SessionEvent,
    lifecycle::discard::Drain,
    lifecycle::upstream::Route,
    protocol::SessionRef,
    protocol::rejection::RejectionKind,
    session::stream::{Stream, StreamKind},
    session::{Owner, Session},
    store::{EndReason, Found, SessionFilter},
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
    closing: AtomicBool,
    /// The time for answers in flight is up.
    is_cut: AtomicBool,
    cut: Arc<Notify>,
    /// Requests on their way through the layer, and watched streams.
    underway: AtomicUsize,
    pub(crate) said_ids_are_ours: AtomicBool,
    /// SessionFilter sessions were all ended by this node lately, and since when: for births that began before.
    revoked: Mutex<VecDeque<(Instant, SessionFilter)>>,
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
    route: Mutex<Noted>,
    /// When its time is up, as far as this node has been told. Never too late.
    pub(crate) due: Mutex<Due>,
}

/// When a session's time is up unless somebody extends it.
#[derive(Clone, Copy)]
pub(crate) struct Due {
    pub(crate) idle: Instant,
    pub(crate) life: Option<Instant>,
}

/// Where the inner service saw a session last, and whether it knows of its end.
#[derive(Default)]
struct Noted {
    route: Option<Route>,
    is_told: bool,
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
    ended: HashMap<SessionRef, Memory, foldhash::fast::RandomState>,
    forget: VecDeque<(Instant, SessionRef)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Memory {
    /// Ended here and announced. Remembered until then.
    Announced(Instant),
    /// Heard from elsewhere, and not announced. Remembered until then.
    Heard(Instant),
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
            is_cut: AtomicBool::new(false),
            cut: Arc::default(),
            underway: AtomicUsize::new(0),
            said_ids_are_ours: AtomicBool::new(false),
            revoked: Mutex::default(),
            full_until: Mutex::new(None),
            events: broadcast::Sender::new(EVENTS),
            agenda,
            errands: Mutex::new(Some(errands)),
            is_kept: AtomicBool::new(false),
        }
    }

    /// Lets a request on a session in. `None` if this node knows that the session has ended, or has become somebody
    /// else's since it was looked up.
    ///
    /// After a visit longer than `rest_after` the session is touched again, so that its idle time starts at the end
    /// of the visit; after a shorter one the touch that it began with says nearly the same.
    pub(crate) fn enter(self: &Arc<Self>, found: &Found, rest_after: Duration) -> Option<Visit> {
        let reference = found.session.reference();
        let mut shard = self.shard(reference);
        let live = match shard.sessions.get(reference) {
            Some(live) => Arc::clone(live),
            None if shard.ended.contains_key(reference) => return None,
            None => self.serve(&mut shard, found),
        };
        drop(shard);
        let session = live.refresh(&found.session)?;
        live.uses.fetch_add(1, Ordering::Relaxed);
        Some(Visit {
            underway: self.underway(),
            live,
            session,
            since: Instant::now(),
            rest_after: Some(rest_after),
        })
    }

    /// Announces a birth and lets its answer out. `None` if the session has been ended already.
    ///
    /// This visit is no use of the session: its client has yet to show that it got the id.
    pub(crate) fn bear(self: &Arc<Self>, newborn: &Found) -> Option<Visit> {
        let session = newborn.session.clone();
        let mut shard = self.shard(session.reference());
        if shard.ended.contains_key(session.reference()) {
            return None;
        }
        let live = self.serve(&mut shard, newborn);
        // Under the lock, so that nobody hears of its end before.
        self.announce(SessionEvent::Created {
            reference: *session.reference(),
            owner: session.owner().clone(),
        });
        drop(shard);
        Some(Visit {
            underway: self.underway(),
            live,
            session,
            since: Instant::now(),
            rest_after: None,
        })
    }

    fn serve(&self, shard: &mut Shard, found: &Found) -> Arc<LiveSession> {
        let live = Arc::new(LiveSession::new(found));
        let reference = *found.session.reference();
        shard.sessions.insert(reference, Arc::clone(&live));
        let _ = self.agenda.send(Errand::Keep(Arc::clone(&live)));
        live
    }

    /// Forgets the end of a session of whose name another is about to be born.
    pub(crate) fn forget_namesake(&self, reference: &SessionRef) {
        let mut shard = self.shard(reference);
        if shard.ended.get(reference) != Some(&Memory::Condemned) {
            shard.ended.remove(reference);
        }
    }

    /// Ends what is open of a session on this node.
    pub(crate) fn end(&self, reference: &SessionRef, reason: EndReason) -> Ended {
        let live = {
            let mut shard = self.shard(reference);
            let live = shard.sessions.remove(reference);
            let before = shard.remember(reference, Memory::Announced);
            if live.is_none() && matches!(before, Some(Memory::Announced(_) | Memory::Condemned)) {
                return Ended::Before;
            }
            live
        };
        *self.full_until.lock() = None;
        self.announce(SessionEvent::Ended {
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

    /// As [`end`](Self::end), for ends heard from elsewhere: nothing is announced of sessions that this node never
    /// served, and a look-up under way must not let one in.
    pub(crate) fn end_heard(&self, reference: &SessionRef, reason: EndReason) -> Ended {
        {
            let mut shard = self.shard(reference);
            if !shard.sessions.contains_key(reference) {
                shard.remember(reference, Memory::Heard);
                return Ended::Before;
            }
        }
        self.end(reference, reason)
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
        shard.remember(reference, Memory::Announced);
    }

    fn announce(&self, event: SessionEvent) {
        // An error says that nobody listens.
        let _ = self.events.send(event);
    }

    /// Refuses births of these sessions that began before now. To be called before the store ends them.
    ///
    /// The store does so too, on all nodes, but reckons from the moment at which it hears of the birth: what began just
    /// before the call here, and was slow to reach the store, it takes for younger than it is.
    pub(crate) fn revoke(&self, filter: &SessionFilter) {
        let mut revoked = self.revoked.lock();
        let now = Instant::now();
        while let Some((at, _)) = revoked.front()
            && *at + REMEMBERED_FOR <= now
        {
            revoked.pop_front();
        }
        revoked.push_back((now, filter.clone()));
    }

    /// Whether this owner's sessions were all ended since a birth began. To be asked after the store has recorded it.
    pub(crate) fn is_revoked(&self, owner: &Owner, begun: Instant) -> bool {
        let revoked = self.revoked.lock();
        let mut since = revoked.iter().rev().take_while(|(at, _)| *at > begun);
        since.any(|(_, filter)| filter.includes(owner))
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
    fn end_streams(&self, which: impl Fn(StreamKind) -> bool) {
        for live in self.served() {
            live.end_streams(|stream| which(stream.kind));
        }
    }

    /// Counts a request, until what this answers is dropped.
    pub(crate) fn underway(self: &Arc<Self>) -> Underway {
        self.underway.fetch_add(1, Ordering::Relaxed);
        Underway(Arc::clone(self))
    }

    /// Whether a request is being answered, a stream is open, or something goes on whose client has hung up.
    pub(crate) fn is_busy(&self) -> bool {
        self.underway.load(Ordering::Relaxed) > 0 || self.works.available_permits() < MAX_WORKS
    }

    /// Ends GET streams, and refuses them from now on.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.end_streams(|kind| kind == StreamKind::Standing);
    }

    /// Ends what is still open, streams and answers that have not begun, and whatever begins to wait from now on.
    pub(crate) fn cut_off(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        self.cut.notify_waiters();
        self.end_streams(|_| true);
    }

    /// Whether answers that are not ready are cut off.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    /// Waits for [`cut_off`](Self::cut_off), if it has not happened yet.
    pub(crate) fn cut(&self) -> OwnedNotified {
        Arc::clone(&self.cut).notified_owned()
    }

    fn refuses(&self, kind: StreamKind) -> bool {
        self.is_cut() || kind == StreamKind::Standing && self.closing.load(Ordering::SeqCst)
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
    /// Remembers an end for a while, unless it is condemned for longer, and answers what was remembered before.
    fn remember(
        &mut self,
        reference: &SessionRef,
        memory: impl FnOnce(Instant) -> Memory,
    ) -> Option<Memory> {
        self.fade();
        let before = self.ended.get(reference).copied();
        let until = Instant::now() + REMEMBERED_FOR;
        let memory = match (before, memory(until)) {
            (Some(Memory::Condemned | Memory::Announced(_)), Memory::Heard(_))
            | (Some(Memory::Condemned), _) => return before,
            (_, memory) => memory,
        };
        self.ended.insert(*reference, memory);
        self.forget.push_back((until, *reference));
        before
    }

    /// Forgets what was remembered long enough.
    fn fade(&mut self) {
        let now = Instant::now();
        while let Some((until, reference)) = self.forget.front().copied()
            && until <= now
        {
            self.forget.pop_front();
            let memory = self.ended.get(&reference);
            // It may have been remembered anew since.
            if matches!(memory, Some(Memory::Announced(at) | Memory::Heard(at)) if *at == until) {
                self.ended.remove(&reference);
            }
        }
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
            route: Mutex::default(),
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

    /// Where the inner service saw it last.
    pub(crate) fn route(&self) -> Option<Route> {
        self.route.lock().route.clone()
    }

    /// Where the inner service has to be told of the session's end. Answered once.
    pub(crate) fn route_to_tell(&self) -> Option<Route> {
        let mut noted = self.route.lock();
        if noted.is_told {
            return None;
        }
        noted.is_told = noted.route.is_some();
        noted.route.clone()
    }

    /// The inner service knows of the session's end: it said so itself.
    pub(crate) fn inner_knows_of_end(&self) {
        self.route.lock().is_told = true;
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

    /// Takes over the store's word on whose session it is, and answers the handle that its requests get. The
    /// node-local values stay. `None` if the word is old: a session may become somebody's, and stays theirs.
    pub(crate) fn refresh(&self, found: &Session) -> Option<Session> {
        let mut session = self.session.lock();
        if session.owner() == found.owner() {
            return Some(session.clone());
        }
        if session.owner().principal.is_some() {
            return None;
        }
        let claimed = session.with_record(found.record());
        *session = claimed.clone();
        drop(session);
        // What nobody opened is not the new owner's.
        self.end_streams(|_| true);
        Some(claimed)
    }

    /// Takes a stream off the list: it is over.
    pub(crate) fn unwatch(&self, key: u64) {
        let stream = self.streams.lock().open.remove(&key);
        drop(stream);
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
    underway: Underway,
    live: Arc<LiveSession>,
    session: Session,
    since: Instant,
    /// `None`: this is no use of the session.
    rest_after: Option<Duration>,
}

impl Visit {
    /// The handle to give to the inner service, of the owner who was let in.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn live(&self) -> &Arc<LiveSession> {
        &self.live
    }

    /// Notes where the inner service is told of the session's end, if it changed since the last request, and answers
    /// whether that is now: the session has ended before this was noted.
    pub(crate) fn note_route(
        &self,
        is_known: impl FnOnce(&Route) -> bool,
        route: impl FnOnce() -> Route,
    ) -> bool {
        let mut noted = self.live.route.lock();
        if noted.route.as_ref().is_some_and(is_known) {
            return false;
        }
        noted.route = Some(route());
        drop(noted);
        self.live.has_ended()
    }

    /// Watches a stream, so that it ends with the session, with its owner's tenure and with the process.
    ///
    /// # Errors
    ///
    /// When one of them has ended already.
    pub(crate) fn watch(&self, stream: &Arc<Stream>) -> Result<u64, RejectionKind> {
        let mut streams = self.live.streams.lock();
        let key = streams.next;
        streams.next += 1;
        streams.open.insert(key, Arc::clone(stream));
        drop(streams);
        // Looked at after the stream is in the list: whoever ends it from here on finds it there.
        let refusal = if self.live.has_ended() {
            RejectionKind::Ended
        } else if self.live.session.lock().owner() != self.session.owner() {
            RejectionKind::Unknown
        } else if self.underway.0.refuses(stream.kind) {
            RejectionKind::Draining
        } else {
            return Ok(key);
        };
        self.live.unwatch(key);
        Err(refusal)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Some(rest_after) = self.rest_after else {
            return;
        };
        let last = self.live.uses.fetch_sub(1, Ordering::Relaxed) == 1;
        if last
            && self.since.elapsed() >= rest_after
            && !self.live.has_ended()
            && !self.live.resting.swap(true, Ordering::SeqCst)
        {
            let agenda = &self.underway.0.agenda;
            let _ = agenda.send(Errand::Rest(Arc::clone(&self.live)));
        }
    }
}

/// A request that shutting down waits for.
pub(crate) struct Underway(Arc<Live>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.underway.fetch_sub(1, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use tokio::time::{advance, error::Elapsed, timeout};

    use super::*;

    fn session() -> SessionRef {
        SessionRef::from_bytes([7; 32])
    }

    fn remembered(live: &Live) -> usize {
        let shard = live.shard(&session());
        assert_eq!(shard.ended.len(), shard.forget.len());
        shard.ended.len()
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_announced_once_although_it_was_heard_before() -> Result<(), Elapsed> {
        let live = Live::new();
        let mut events = live.events.subscribe();
        live.end_heard(&session(), EndReason::Revoked);
        assert!(matches!(
            live.end(&session(), EndReason::Revoked),
            Ended::Elsewhere
        ));
        assert!(matches!(
            live.end(&session(), EndReason::Revoked),
            Ended::Before
        ));
        live.end_heard(&session(), EndReason::Revoked);
        let ended = SessionEvent::Ended {
            reference: session(),
            reason: EndReason::Revoked,
        };
        assert_eq!(timeout(REMEMBERED_FOR, events.recv()).await?, Ok(ended));
        assert!(events.is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn ends_are_forgotten_in_time_and_not_before() {
        let live = Live::new();
        live.end_heard(&session(), EndReason::Deleted);
        advance(REMEMBERED_FOR / 2).await;
        // A namesake was born and has ended.
        live.forget_namesake(&session());
        live.end_heard(&session(), EndReason::Deleted);
        advance(REMEMBERED_FOR / 2).await;
        live.shard(&session()).fade();
        assert_eq!(remembered(&live), 1);
        advance(REMEMBERED_FOR / 2).await;
        live.shard(&session()).fade();
        assert_eq!(remembered(&live), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_condemned_is_refused_until_it_is_pardoned() {
        let live = Live::new();
        live.condemn(session());
        live.end(&session(), EndReason::Deleted);
        live.forget_namesake(&session());
        advance(REMEMBERED_FOR * 2).await;
        live.shard(&session()).fade();
        assert!(live.shard(&session()).ended.contains_key(&session()));
        live.pardon(&session());
        advance(REMEMBERED_FOR * 2).await;
        live.shard(&session()).fade();
        assert_eq!(remembered(&live), 0);
    }
}
