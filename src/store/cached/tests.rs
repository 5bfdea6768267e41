use std::{
    num::NonZeroU64,
    sync::atomic::{AtomicBool, AtomicUsize},
};

use futures_util::{FutureExt as _, StreamExt as _};
use tokio::{
    sync::{broadcast, watch},
    task::{JoinHandle, yield_now},
    time::advance,
};
use tokio_stream::wrappers::BroadcastStream;

use super::*;
use crate::{
    session::{Issuer, Principal, Scope, SessionRecord},
    store::{FeedEvent, MemoryStore, SessionFilter},
};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_nanos(1);
const STALENESS: Duration = Duration::from_secs(30);

/// A store in memory that counts what it is asked, and can be held up or away.
#[derive(Default)]
struct Primary {
    store: MemoryStore,
    touches: AtomicUsize,
    loads: AtomicUsize,
    last_idle: Mutex<Duration>,
    last_terms: Mutex<Option<Terms>>,
    failing: Mutex<Option<StoreErrorKind>>,
    /// Calls wait here before they take effect.
    before: Gate,
    /// Their answers wait here.
    after: Gate,
    /// New calls do not wait.
    bypass: AtomicBool,
    feed: Option<broadcast::Sender<FeedEvent>>,
    has_directory: bool,
}

struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl Gate {
    fn close(&self) {
        self.0.send_replace(false);
    }

    fn open(&self) {
        self.0.send_replace(true);
    }

    async fn pass(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

impl Primary {
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let bypass = self.bypass.load(Relaxed);
        if !bypass {
            self.before.pass().await;
        }
        let failing = *self.failing.lock();
        if let Some(kind) = failing {
            return Err(StoreError::new(kind, "do anything"));
        }
        let answer = call.await;
        if !bypass {
            self.after.pass().await;
        }
        answer
    }

    fn fail(&self, kind: impl Into<Option<StoreErrorKind>>) {
        *self.failing.lock() = kind.into();
    }

    fn touches(&self) -> usize {
        self.touches.load(Relaxed)
    }

    /// Ends a session as another node does, and says so on the feed, if there is one.
    async fn end_elsewhere(&self, session: &Session) -> FeedEvent {
        let reason = EndReason::Deleted;
        assert!(self.store.delete(session.id(), reason).await.unwrap());
        let reference = *session.reference();
        let ended = FeedEvent::Ended { reference, reason };
        self.announce(ended);
        ended
    }

    fn announce(&self, event: FeedEvent) {
        if let Some(feed) = &self.feed {
            let _ = feed.send(event);
        }
    }
}

impl SessionStore for Primary {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        *self.last_terms.lock() = Some(terms.clone());
        self.call(self.store.create(session, terms)).await
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        self.loads.fetch_add(1, Relaxed);
        self.call(self.store.load(id)).await.map(from_far)
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.touches.fetch_add(1, Relaxed);
        *self.last_idle.lock() = idle;
        self.call(self.store.touch(id, owner, idle))
            .await
            .map(from_far)
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        self.call(self.store.delete(id, reason)).await
    }

    async fn claim(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.call(self.store.claim(id, owner, idle))
            .await
            .map(from_far)
    }

    fn directory(&self) -> Option<&dyn Directory> {
        self.store.directory().filter(|_| self.has_directory)
    }

    fn feed(&self) -> Option<Feed> {
        let events = BroadcastStream::new(self.feed.as_ref()?.subscribe());
        Some(Box::pin(events.map(|event| event.expect("few events"))))
    }
}

/// A store elsewhere shares no handle with this process.
fn from_far(found: Option<Found>) -> Option<Found> {
    found.map(|found| Found {
        session: found.session.twin(),
        ..found
    })
}

type Cached = CachedStore<Arc<Primary>>;

fn cached_over(primary: Primary) -> (Arc<Primary>, Arc<Cached>) {
    let primary = Arc::new(primary);
    let cached = CachedStore::new(Arc::clone(&primary), STALENESS);
    (primary, Arc::new(cached))
}

fn cached() -> (Arc<Primary>, Arc<Cached>) {
    cached_over(Primary::default())
}

fn owner(principal: impl Into<Option<&'static str>>) -> Owner {
    Owner {
        scope: Scope::default(),
        principal: principal.into().map(Principal::new),
    }
}

fn session_of(owner: &Owner) -> Session {
    let record = SessionRecord::new(owner.clone(), Issuer::Layer);
    Session::new(SessionId::issue(), record)
}

fn session() -> Session {
    session_of(&owner("me"))
}

fn terms() -> Terms {
    Terms {
        idle: HOUR,
        initial_idle: 5 * MINUTE,
        life: None,
        total: None,
        per_principal: None,
        at_limit: AtLimit::Refuse,
        started_ago: Duration::ZERO,
    }
}

/// A session that another node created.
async fn born_elsewhere(primary: &Primary, terms: &Terms) -> Session {
    let session = session();
    let created = primary.store.create(&session, terms).await.unwrap();
    assert!(matches!(created, Created::New { .. }));
    session
}

/// Touches as a request does: at once if that is possible.
async fn request(cached: &Cached, session: &Session) -> Result<bool, StoreError> {
    match cached.touch_now(session.id(), session.owner(), HOUR) {
        Now::Live(_) => Ok(true),
        Now::Absent => Ok(false),
        Now::Unknown => {
            let found = cached.touch(session.id(), session.owner(), HOUR).await?;
            Ok(found.is_some())
        }
    }
}

async fn is_live(cached: &Cached, session: &Session) -> bool {
    request(cached, session).await.unwrap()
}

async fn is_anonymous(cached: &Cached, session: &Session) -> bool {
    let found = cached.touch(session.id(), &owner(None), HOUR).await;
    found.unwrap().is_some()
}

fn now(cached: &Cached, session: &Session) -> Now {
    cached.touch_now(session.id(), session.owner(), HOUR)
}

async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

fn request_later(cached: &Arc<Cached>, session: &Session) -> JoinHandle<Result<bool, StoreError>> {
    let (cached, session) = (Arc::clone(cached), session.clone());
    tokio::spawn(async move { request(&cached, &session).await })
}

#[tokio::test(start_paused = true)]
async fn a_hit_asks_nobody_until_the_answer_is_as_old_as_it_may_be() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    assert!(is_live(&cached, &mine).await);
    advance(STALENESS - TICK).await;
    let Now::Live(found) = now(&cached, &mine) else {
        panic!("a hit");
    };
    assert_eq!(found.age, STALENESS - TICK);
    assert_eq!(found.idle_left, HOUR + TICK);
    // The keeper, which asks with a future, is answered from memory too.
    let found = cached.touch(mine.id(), mine.owner(), HOUR).await.unwrap();
    assert!(found.is_some());
    assert_eq!(primary.touches(), 1);
    advance(TICK).await;
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    assert!(is_live(&cached, &mine).await);
    assert_eq!(primary.touches(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_staleness_means_that_every_touch_is_asked() {
    let primary = Arc::new(Primary::default());
    let cached = Arc::new(CachedStore::new(Arc::clone(&primary), Duration::ZERO));
    let mine = born_elsewhere(&primary, &terms()).await;
    let absent = session();
    for nth in 1..4 {
        assert!(is_live(&cached, &mine).await);
        assert!(!is_live(&cached, &absent).await);
        assert_eq!(primary.touches(), 2 * nth);
    }
    // Nor does anybody take over an answer to a question that was asked before his own.
    primary.before.close();
    let both = [&mine, &mine].map(|mine| request_later(&cached, mine));
    settle().await;
    assert_eq!(primary.touches(), 8);
    primary.before.open();
    for one in both {
        assert!(one.await.unwrap().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn nobodys_idle_time_gets_shorter_and_the_primary_is_touched_once_an_interval() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    // A request every seven seconds: five in each interval.
    for _ in 0..200 {
        assert!(is_live(&cached, &mine).await);
        let left = primary.store.load(mine.id()).await.unwrap().unwrap();
        assert!(left.idle_left >= HOUR, "{left:?}");
        advance(7 * SECOND).await;
    }
    assert_eq!(primary.touches(), 40);
    assert_eq!(*primary.last_idle.lock(), HOUR + STALENESS);
    // The last request is seven seconds old.
    advance(HOUR - 7 * SECOND - TICK).await;
    assert!(primary.store.load(mine.id()).await.unwrap().is_some());
    advance(STALENESS + TICK).await;
    assert!(primary.store.load(mine.id()).await.unwrap().is_none());
    assert!(!is_live(&cached, &mine).await);
}

#[tokio::test(start_paused = true)]
async fn a_touch_for_longer_than_the_last_one_is_asked() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    let longer = cached.touch_now(mine.id(), mine.owner(), 2 * HOUR);
    assert!(matches!(longer, Now::Unknown));
    let found = cached.touch(mine.id(), mine.owner(), 2 * HOUR).await;
    assert_eq!(found.unwrap().unwrap().idle_left, 2 * HOUR + STALENESS);
    let longer = cached.touch_now(mine.id(), mine.owner(), 2 * HOUR);
    assert!(matches!(longer, Now::Live(_)));
    let shorter = cached.touch_now(mine.id(), mine.owner(), SECOND);
    assert!(matches!(shorter, Now::Live(_)));
}

#[tokio::test(start_paused = true)]
async fn every_entry_has_an_end_of_its_own() {
    let (primary, cached) = cached();
    let life = Some(MINUTE);
    let mine = born_elsewhere(&primary, &Terms { life, ..terms() }).await;
    advance(MINUTE - STALENESS / 2).await;
    assert!(is_live(&cached, &mine).await);
    advance(STALENESS / 2 - TICK).await;
    let Now::Live(found) = now(&cached, &mine) else {
        panic!("a hit");
    };
    assert_eq!((found.idle_left, found.life_left), (TICK, Some(TICK)));
    assert_eq!(primary.touches(), 1);
    advance(TICK).await;
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    assert!(!is_live(&cached, &mine).await);
}

#[tokio::test(start_paused = true)]
async fn a_birth_is_remembered_and_its_first_touch_is_asked() {
    let (primary, cached) = cached();
    let mine = session();
    let terms = Terms {
        initial_idle: HOUR,
        ..terms()
    };
    cached.create(&mine, &terms).await.unwrap();
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    primary.fail(StoreErrorKind::Unavailable);
    assert!(is_live(&cached, &mine).await);
    // What was not created is not remembered.
    let other = session();
    let failed = cached.create(&other, &terms).await;
    assert!(failed.is_err());
    primary.fail(None);
    primary.store.create(&other, &terms).await.unwrap();
    let exists = cached.create(&other, &terms).await.unwrap();
    assert_eq!(exists, Created::Exists);
    primary.fail(StoreErrorKind::Unavailable);
    assert!(request(&cached, &other).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_session_in_use_does_not_look_untouched_to_the_primary() {
    let (primary, cached) = cached();
    let terms = Terms {
        total: NonZeroU64::new(1),
        at_limit: AtLimit::Evict { untouched: MINUTE },
        ..terms()
    };
    let mine = session();
    cached.create(&mine, &terms).await.unwrap();
    assert!(is_live(&cached, &mine).await);
    let told = primary.last_terms.lock().clone().unwrap();
    let untouched = MINUTE + STALENESS;
    assert_eq!(told.at_limit, AtLimit::Evict { untouched });
}

#[tokio::test(start_paused = true)]
async fn what_is_evicted_for_a_newcomer_is_forgotten() {
    let (_, cached) = cached();
    let terms = Terms {
        total: NonZeroU64::new(1),
        at_limit: AtLimit::Evict {
            untouched: Duration::ZERO,
        },
        ..terms()
    };
    let mine = session();
    cached.create(&mine, &terms).await.unwrap();
    assert!(is_live(&cached, &mine).await);
    advance(STALENESS).await;
    let evicted = Some(*mine.reference());
    let left = Some(0);
    let created = cached.create(&session(), &terms).await.unwrap();
    assert_eq!(created, Created::New { left, evicted });
    assert_eq!(cached.cache.entries.len().0, 1, "one came, one went");
}

#[tokio::test(start_paused = true)]
async fn misses_at_the_same_moment_become_one_call() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    let other = born_elsewhere(&primary, &terms()).await;
    primary.before.close();
    let many: Vec<_> = (0..50).map(|_| request_later(&cached, &mine)).collect();
    let another = request_later(&cached, &other);
    settle().await;
    assert_eq!(primary.touches(), 2);
    primary.before.open();
    for one in many.into_iter().chain([another]) {
        assert!(one.await.unwrap().unwrap());
    }
    assert_eq!(primary.touches(), 2);
    assert_eq!(cached.cache.calls.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_told_to_all_who_waited() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    primary.fail(StoreErrorKind::Failed);
    primary.before.close();
    let both = [&mine, &mine].map(|mine| request_later(&cached, mine));
    settle().await;
    primary.before.open();
    for one in both {
        let error = one.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Failed);
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("do anything"), "{source}");
    }
    assert_eq!(primary.touches(), 1);
    primary.fail(None);
    assert!(is_live(&cached, &mine).await);
}

#[tokio::test(start_paused = true)]
async fn whoever_waited_is_answered_though_the_first_hangs_up() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    primary.before.close();
    let all: [_; 3] = std::array::from_fn(|_| request_later(&cached, &mine));
    settle().await;
    let [first, second, third] = all;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    settle().await;
    second.abort();
    settle().await;
    primary.before.open();
    assert!(third.await.unwrap().unwrap());
    // Its answer is remembered, and nothing is left of the others.
    assert!(matches!(now(&cached, &mine), Now::Live(_)));
    assert_eq!(cached.cache.calls.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_waits_for_is_not_under_way() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    primary.before.close();
    let both = [&mine, &mine].map(|mine| request_later(&cached, mine));
    settle().await;
    assert_eq!(cached.cache.calls.len(), 1);
    both.iter().for_each(JoinHandle::abort);
    settle().await;
    assert_eq!(cached.cache.calls.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_absence_is_remembered_for_a_second_and_for_its_owner_only() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    let stranger = owner("you");
    let touch = |owner: &Owner| cached.touch_now(mine.id(), owner, HOUR);
    let answer = cached.touch(mine.id(), &stranger, HOUR).await.unwrap();
    assert!(answer.is_none());
    assert!(matches!(touch(&stranger), Now::Absent));
    assert!(matches!(touch(mine.owner()), Now::Unknown));
    assert!(is_live(&cached, &mine).await);
    assert!(matches!(touch(mine.owner()), Now::Live(_)));
    // Nor does a stranger's question push out what is known.
    let answer = cached.touch(mine.id(), &stranger, HOUR).await.unwrap();
    assert!(answer.is_none());
    assert!(matches!(touch(mine.owner()), Now::Live(_)));

    let other = session();
    assert!(!is_live(&cached, &other).await);
    let asked = primary.touches();
    advance(SECOND - TICK).await;
    assert!(matches!(now(&cached, &other), Now::Absent));
    assert!(!is_live(&cached, &other).await);
    assert_eq!(primary.touches(), asked);
    advance(TICK).await;
    assert!(matches!(now(&cached, &other), Now::Unknown));
}

#[tokio::test(start_paused = true)]
async fn a_birth_ends_an_absence_whoever_hears_of_it_first() {
    let (primary, cached) = cached();
    let mine = session();
    assert!(!is_live(&cached, &mine).await);
    cached.create(&mine, &terms()).await.unwrap();
    assert!(is_live(&cached, &mine).await);

    // Asked before the birth, answered after it.
    let mine = session();
    primary.after.close();
    let early = request_later(&cached, &mine);
    settle().await;
    primary.bypass.store(true, Relaxed);
    cached.create(&mine, &terms()).await.unwrap();
    primary.bypass.store(false, Relaxed);
    primary.after.open();
    assert!(!early.await.unwrap().unwrap());
    assert!(is_live(&cached, &mine).await);

    // Deleted before the birth, answered after it.
    primary.after.close();
    let delete = cached.delete(mine.id(), EndReason::Deleted);
    let mut delete = std::pin::pin!(delete);
    assert!(delete.as_mut().now_or_never().is_none());
    primary.bypass.store(true, Relaxed);
    cached.create(&mine, &terms()).await.unwrap();
    primary.bypass.store(false, Relaxed);
    primary.after.open();
    assert!(delete.await.unwrap());
    assert!(is_live(&cached, &mine).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_bounded() {
    let primary = Arc::new(Primary::default());
    for most in [0, 1, 10, 1000] {
        let cached = CachedStore::new(Arc::clone(&primary), STALENESS).with_max_entries(most);
        for _ in 0..3000 {
            let mine = born_elsewhere(&primary, &terms()).await;
            assert!(is_live(&cached, &mine).await);
            let kept = matches!(now(&cached, &mine), Now::Live(_));
            assert!(kept || most == 0, "the newest is kept");
        }
        let (known, names, _) = cached.cache.entries.len();
        assert!(known <= most, "{known} of {most}");
        assert!(known >= most / 2, "{known} of {most}");
        assert_eq!(names, known);
    }
    let cached = CachedStore::new(primary, STALENESS);
    for _ in 0..20_000 {
        assert!(!is_live(&cached, &session()).await);
    }
    let (.., absences) = cached.cache.entries.len();
    assert!((1..=8192).contains(&absences), "{absences}");
}

#[tokio::test(start_paused = true)]
async fn the_oldest_answer_makes_room() {
    let primary = Arc::new(Primary::default());
    let cached = CachedStore::new(Arc::clone(&primary), HOUR).with_max_entries(8);
    let mut all = Vec::new();
    for _ in 0..9 {
        let mine = born_elsewhere(&primary, &terms()).await;
        assert!(is_live(&cached, &mine).await);
        advance(SECOND).await;
        all.push(mine);
    }
    assert!(matches!(now(&cached, &all[0]), Now::Unknown));
    for mine in &all[1..] {
        assert!(matches!(now(&cached, mine), Now::Live(_)));
    }
}

fn with_feed() -> Primary {
    Primary {
        feed: Some(broadcast::Sender::new(16)),
        ..Primary::default()
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_heard_on_the_feed_counts_at_once() {
    let (primary, cached) = cached_over(with_feed());
    let mine = born_elsewhere(&primary, &terms()).await;
    let other = born_elsewhere(&primary, &terms()).await;
    for session in [&mine, &other] {
        assert!(is_live(&cached, session).await);
    }
    primary.end_elsewhere(&mine).await;
    settle().await;
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    assert!(!is_live(&cached, &mine).await);
    assert!(matches!(now(&cached, &other), Now::Live(_)));
}

#[tokio::test(start_paused = true)]
async fn an_end_without_a_feed_counts_when_the_answer_is_as_old_as_it_may_be() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    primary.end_elsewhere(&mine).await;
    advance(STALENESS - TICK).await;
    assert!(is_live(&cached, &mine).await);
    advance(TICK).await;
    assert!(!is_live(&cached, &mine).await);
}

#[tokio::test(start_paused = true)]
async fn after_a_gap_everything_is_asked_again_and_subscribers_hear_of_it() {
    let (primary, cached) = cached_over(with_feed());
    let mut feed = cached.feed().unwrap();
    let mine = born_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    primary.announce(FeedEvent::Gap);
    settle().await;
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    assert_eq!(feed.next().now_or_never(), Some(Some(FeedEvent::Gap)));
    assert!(is_live(&cached, &mine).await);
    let ended = primary.end_elsewhere(&mine).await;
    // Forgotten before a subscriber hears of it.
    assert_eq!(feed.next().now_or_never(), Some(Some(ended)));
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    assert_eq!(cached.cache.entries.len(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_listener_goes_with_the_store_and_comes_back_with_the_next_runtime() {
    let (primary, cached) = cached_over(with_feed());
    let listeners = || primary.feed.as_ref().unwrap().receiver_count();
    let mine = born_elsewhere(&primary, &terms()).await;
    let other_runtime = std::thread::spawn({
        let (cached, mine) = (Arc::clone(&cached), mine.clone());
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            assert!(runtime.block_on(is_live(&cached, &mine)));
        }
    });
    other_runtime.join().unwrap();
    assert_eq!(listeners(), 0);
    // Nobody listened since.
    primary.end_elsewhere(&mine).await;
    assert!(!is_live(&cached, &mine).await);
    assert_eq!(listeners(), 1);
    let weak = Arc::downgrade(&cached.cache);
    drop(cached);
    settle().await;
    assert_eq!(listeners(), 0);
    assert!(weak.upgrade().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_delete_goes_to_the_primary_first_and_counts_at_once() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    let asked = primary.touches();
    assert!(cached.delete(mine.id(), EndReason::Deleted).await.unwrap());
    assert!(matches!(now(&cached, &mine), Now::Absent));
    let stranger = cached.touch_now(mine.id(), &owner("you"), HOUR);
    assert!(matches!(stranger, Now::Absent));
    assert_eq!(primary.touches(), asked);
    assert!(!cached.delete(mine.id(), EndReason::Deleted).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn after_a_delete_that_failed_or_was_given_up_memory_says_nothing() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    primary.fail(StoreErrorKind::Failed);
    let failed = cached.delete(mine.id(), EndReason::Deleted).await;
    assert!(failed.is_err());
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    primary.fail(None);
    assert!(is_live(&cached, &mine).await);
    // Sent, and perhaps done, but nobody waited for the answer.
    primary.after.close();
    let deleted = cached.delete(mine.id(), EndReason::Deleted);
    assert!(deleted.now_or_never().is_none());
    primary.after.open();
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    assert!(!is_live(&cached, &mine).await);
}

#[tokio::test(start_paused = true)]
async fn a_touch_under_way_does_not_bring_back_what_was_ended_meanwhile() {
    let (primary, cached) = cached_over(Primary {
        has_directory: true,
        ..with_feed()
    });
    is_live(&cached, &session()).await;
    for how in ["delete", "feed", "gap", "directory", "directory, all"] {
        let mine = born_elsewhere(&primary, &terms()).await;
        primary.after.close();
        let early = request_later(&cached, &mine);
        settle().await;
        // The primary has answered, but nobody here has heard it yet. Meanwhile:
        let end = async {
            let filter = SessionFilter::Owner(mine.owner().clone());
            let directory = cached.directory().unwrap();
            match how {
                "delete" => {
                    let ended = cached.delete(mine.id(), EndReason::Deleted).await;
                    assert!(ended.unwrap());
                }
                "feed" => drop(primary.end_elsewhere(&mine).await),
                "gap" => {
                    primary
                        .store
                        .delete(mine.id(), EndReason::Deleted)
                        .await
                        .unwrap();
                    primary.announce(FeedEvent::Gap);
                }
                "directory" => {
                    let scope = Scope::default();
                    let ended = directory.end(&scope, mine.reference(), EndReason::Revoked);
                    assert!(ended.await.unwrap());
                }
                _ => {
                    let ended = directory.end_all(&filter, EndReason::Revoked).await;
                    assert_eq!(ended.unwrap(), 1);
                }
            }
        };
        // Held up is only the touch: the end has a way of its own.
        primary.bypass.store(true, Relaxed);
        end.await;
        primary.bypass.store(false, Relaxed);
        settle().await;
        // Nor does a request that comes after the end wait for the touch from before it.
        let late = request_later(&cached, &mine);
        settle().await;
        primary.after.open();
        assert!(early.await.unwrap().unwrap(), "{how}: it was live");
        assert!(!late.await.unwrap().unwrap(), "{how}: it is not");
        assert!(!is_live(&cached, &mine).await, "{how}");
    }
}

#[tokio::test(start_paused = true)]
async fn nor_does_a_birth_or_a_claim_under_way() {
    let (primary, cached) = cached_over(with_feed());
    is_live(&cached, &session()).await;
    let (newborn, terms) = (session(), terms());
    primary.after.close();
    let mut birth = Box::pin(cached.create(&newborn, &terms));
    assert!(birth.as_mut().now_or_never().is_none());
    primary.end_elsewhere(&newborn).await;
    settle().await;
    primary.after.open();
    assert!(matches!(birth.await, Ok(Created::New { .. })));
    assert_eq!(cached.cache.entries.len().0, 0);

    let (me, nobodys) = (owner("me"), session_of(&owner(None)));
    primary.store.create(&nobodys, &terms).await.unwrap();
    primary.after.close();
    let mut claim = Box::pin(cached.claim(nobodys.id(), &me, HOUR));
    assert!(claim.as_mut().now_or_never().is_none());
    primary.end_elsewhere(&nobodys).await;
    settle().await;
    primary.after.open();
    assert!(claim.await.unwrap().is_some(), "it was live");
    let now = cached.touch_now(nobodys.id(), &me, HOUR);
    assert!(matches!(now, Now::Unknown));
}

#[tokio::test(start_paused = true)]
async fn a_birth_ends_an_absence_even_if_something_may_have_been_missed_meanwhile() {
    let (primary, cached) = cached_over(with_feed());
    let (mine, terms) = (session(), terms());
    assert!(!is_live(&cached, &mine).await);
    primary.after.close();
    let mut birth = Box::pin(cached.create(&mine, &terms));
    assert!(birth.as_mut().now_or_never().is_none());
    primary.announce(FeedEvent::Gap);
    settle().await;
    primary.after.open();
    assert!(matches!(birth.await, Ok(Created::New { .. })));
    assert!(is_live(&cached, &mine).await);
}

#[tokio::test(start_paused = true)]
async fn what_was_found_live_is_not_absent() {
    let (primary, cached) = cached();
    // Asked for a shorter and for a longer time; between the two answers another node creates it.
    let mine = session();
    primary.before.close();
    let short = cached.touch(mine.id(), mine.owner(), MINUTE);
    let long = cached.touch(mine.id(), mine.owner(), HOUR);
    let (mut short, mut long) = (Box::pin(short), Box::pin(long));
    assert!(long.as_mut().now_or_never().is_none());
    assert!(short.as_mut().now_or_never().is_none());
    primary.before.open();
    assert!(long.await.unwrap().is_none());
    primary.store.create(&mine, &terms()).await.unwrap();
    assert!(short.await.unwrap().is_some());
    assert!(matches!(now(&cached, &mine), Now::Unknown));
}

#[tokio::test(start_paused = true)]
async fn only_the_same_touch_is_waited_for() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    primary.before.close();
    let stranger = owner("you");
    let mut same = Box::pin(cached.touch(mine.id(), mine.owner(), HOUR));
    let mut theirs = Box::pin(cached.touch(mine.id(), &stranger, HOUR));
    let mut longer = Box::pin(cached.touch(mine.id(), mine.owner(), 2 * HOUR));
    for touch in [&mut same, &mut theirs, &mut longer] {
        assert!(touch.as_mut().now_or_never().is_none());
    }
    assert_eq!(primary.touches(), 3);
    primary.before.open();
    assert!(same.await.unwrap().is_some());
    assert!(theirs.await.unwrap().is_none());
    let longer = longer.await.unwrap().unwrap();
    assert_eq!(longer.idle_left, 2 * HOUR + STALENESS);
}

#[tokio::test(start_paused = true)]
async fn a_load_is_always_asked_and_believed() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    assert!(cached.load(mine.id()).await.unwrap().is_some());
    assert!(matches!(now(&cached, &mine), Now::Live(_)));
    primary.end_elsewhere(&mine).await;
    assert!(cached.load(mine.id()).await.unwrap().is_none());
    assert_eq!(primary.loads.load(Relaxed), 2);
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    primary.fail(StoreErrorKind::Unavailable);
    assert!(cached.load(mine.id()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_claim_replaces_what_is_remembered() {
    let (primary, cached) = cached();
    let nobodys = session_of(&owner(None));
    primary.store.create(&nobodys, &terms()).await.unwrap();
    let me = owner("me");
    assert!(is_anonymous(&cached, &nobodys).await);
    let mine = cached.touch(nobodys.id(), &me, HOUR).await.unwrap();
    assert!(mine.is_none());
    advance(SECOND / 2).await;
    let claimed = cached.claim(nobodys.id(), &me, HOUR).await.unwrap();
    assert_eq!(claimed.unwrap().session.owner(), &me);
    let mine = cached.touch_now(nobodys.id(), &me, HOUR);
    assert!(matches!(mine, Now::Live(_)));
    assert!(matches!(
        cached.touch_now(nobodys.id(), &owner(None), HOUR),
        Now::Unknown
    ));
    assert!(!is_anonymous(&cached, &nobodys).await);
    let left = primary.store.load(nobodys.id()).await.unwrap().unwrap();
    assert_eq!(left.idle_left, HOUR + STALENESS);

    // Claimed on another node: a load shows it.
    let other = session_of(&owner(None));
    primary.store.create(&other, &terms()).await.unwrap();
    assert!(is_anonymous(&cached, &other).await);
    primary.store.claim(other.id(), &me, HOUR).await.unwrap();
    assert!(matches!(
        cached.touch_now(other.id(), &owner(None), HOUR),
        Now::Live(_)
    ));
    cached.load(other.id()).await.unwrap();
    assert!(matches!(
        cached.touch_now(other.id(), &owner(None), HOUR),
        Now::Unknown
    ));
}

#[tokio::test(start_paused = true)]
async fn after_a_claim_that_did_not_succeed_memory_says_nothing() {
    let (primary, cached) = cached();
    let nobodys = session_of(&owner(None));
    primary.store.create(&nobodys, &terms()).await.unwrap();
    let (me, you) = (owner("me"), owner("you"));
    assert!(is_anonymous(&cached, &nobodys).await);
    primary.fail(StoreErrorKind::Failed);
    assert!(cached.claim(nobodys.id(), &me, HOUR).await.is_err());
    assert!(matches!(
        cached.touch_now(nobodys.id(), &owner(None), HOUR),
        Now::Unknown
    ));
    primary.fail(None);
    assert!(is_anonymous(&cached, &nobodys).await);
    // Sent, and done, but nobody waited for the answer.
    primary.after.close();
    let claim = cached.claim(nobodys.id(), &me, HOUR);
    assert!(claim.now_or_never().is_none());
    primary.after.open();
    assert!(matches!(
        cached.touch_now(nobodys.id(), &owner(None), HOUR),
        Now::Unknown
    ));

    // Too late: on another node somebody was faster.
    let other = session_of(&owner(None));
    primary.store.create(&other, &terms()).await.unwrap();
    assert!(is_anonymous(&cached, &other).await);
    primary.store.claim(other.id(), &you, HOUR).await.unwrap();
    let claimed = cached.claim(other.id(), &me, HOUR).await.unwrap();
    assert!(claimed.is_none());
    assert!(!is_anonymous(&cached, &other).await);
}

#[tokio::test(start_paused = true)]
async fn what_the_directory_ends_is_forgotten_without_a_feed() {
    let (primary, cached) = cached_over(Primary {
        has_directory: true,
        ..Primary::default()
    });
    let all: [_; 3] = [owner("me"), owner("me"), owner("you")].map(|owner| session_of(&owner));
    for session in &all {
        primary.store.create(session, &terms()).await.unwrap();
        assert!(is_live(&cached, session).await);
    }
    let directory = cached.directory().unwrap();
    let everybody = SessionFilter::Scope(Scope::default());
    assert_eq!(directory.count(&everybody).await.unwrap(), 3);
    assert_eq!(directory.list(&everybody, None, 2).await.unwrap().len(), 2);
    let scope = Scope::default();
    let ended = directory.end(&scope, all[0].reference(), EndReason::Revoked);
    assert!(ended.await.unwrap());
    assert!(!is_live(&cached, &all[0]).await);
    let me = SessionFilter::Owner(owner("me"));
    let ended = directory.end_all(&me, EndReason::Revoked).await.unwrap();
    assert_eq!(ended, 1);
    assert!(!is_live(&cached, &all[1]).await);
    assert!(matches!(now(&cached, &all[2]), Now::Live(_)));
}

#[test]
fn what_the_primary_has_not_is_not_promised() {
    let (_, cached) = cached();
    assert!(cached.directory().is_none());
    assert!(cached.feed().is_none());
}

#[tokio::test(start_paused = true)]
async fn while_the_primary_is_away_what_was_live_a_minute_ago_is_served() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    let short = Terms {
        life: Some(50 * SECOND),
        ..terms()
    };
    let short = born_elsewhere(&primary, &short).await;
    let unknown = born_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    assert!(is_live(&cached, &short).await);
    primary.fail(StoreErrorKind::Unavailable);
    advance(STALENESS).await;
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    assert!(is_live(&cached, &mine).await);
    assert_eq!(cached.stale_served(), 1);
    assert!(is_live(&cached, &short).await);
    let error = request(&cached, &unknown).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let stranger = cached.touch(mine.id(), &owner("you"), HOUR).await;
    assert!(stranger.is_err());
    advance(20 * SECOND).await;
    assert!(is_live(&cached, &mine).await);
    // Its own time is up.
    assert!(request(&cached, &short).await.is_err());
    advance(10 * SECOND - TICK).await;
    assert!(is_live(&cached, &mine).await);
    assert_eq!(cached.stale_served(), 4);
    advance(TICK).await;
    assert!(request(&cached, &mine).await.is_err());
    primary.fail(None);
    assert!(is_live(&cached, &mine).await);
    assert_eq!(cached.stale_served(), 4);
}

#[tokio::test(start_paused = true)]
async fn no_other_failure_is_covered_up() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    advance(STALENESS).await;
    for kind in [StoreErrorKind::Failed, StoreErrorKind::Corrupt] {
        primary.fail(kind);
        let error = request(&cached, &mine).await.unwrap_err();
        assert_eq!(error.kind(), kind);
    }
    assert_eq!(cached.stale_served(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_an_outage_bound_nothing_stale_is_served() {
    let primary = Arc::new(Primary::default());
    let cached = CachedStore::new(Arc::clone(&primary), STALENESS).with_max_outage(Duration::ZERO);
    let mine = born_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    primary.fail(StoreErrorKind::Unavailable);
    assert!(is_live(&cached, &mine).await);
    advance(STALENESS).await;
    assert!(request(&cached, &mine).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_says_nothing_is_away_and_asked_again_after_a_second() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    advance(STALENESS).await;
    primary.before.close();
    let start = Instant::now();
    assert!(is_live(&cached, &mine).await);
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!((primary.touches(), cached.stale_served()), (2, 1));
    // It is known to be away, so nobody waits for it.
    assert!(is_live(&cached, &mine).await);
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!((primary.touches(), cached.stale_served()), (2, 2));
    advance(SECOND).await;
    primary.before.open();
    assert!(is_live(&cached, &mine).await);
    assert_eq!((primary.touches(), cached.stale_served()), (3, 2));
    assert!(matches!(now(&cached, &mine), Now::Live(_)));
}

#[tokio::test(start_paused = true)]
async fn where_nothing_can_be_served_instead_a_slow_primary_is_waited_for() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    primary.before.close();
    let slow = request_later(&cached, &mine);
    settle().await;
    advance(2 * SECOND).await;
    settle().await;
    primary.before.open();
    assert!(slow.await.unwrap().unwrap());
}

#[test]
fn it_works_without_a_runtime() {
    let (primary, cached) = cached_over(with_feed());
    let mine = session();
    let wait = |live: bool| {
        assert_eq!(is_live(&cached, &mine).now_or_never(), Some(live));
    };
    wait(false);
    let created = cached.create(&mine, &terms()).now_or_never().unwrap();
    assert!(matches!(created, Ok(Created::New { .. })));
    wait(true);
    wait(true);
    assert_eq!(primary.touches(), 2);
    let deleted = cached.delete(mine.id(), EndReason::Deleted).now_or_never();
    assert!(deleted.unwrap().unwrap());
    wait(false);
    assert_eq!(primary.touches(), 2);
}

#[tokio::test(start_paused = true)]
async fn debug_shows_no_session() {
    let (primary, cached) = cached();
    let mine = born_elsewhere(&primary, &terms()).await;
    is_live(&cached, &mine).await;
    let shown = format!("{cached:?}");
    assert!(shown.starts_with("CachedStore { max_staleness: 30s"));
    assert!(!shown.contains(mine.id().expose()) && !shown.contains("SessionRef"));
}
