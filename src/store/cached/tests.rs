use std::sync::atomic::Ordering::Relaxed;

use futures_util::FutureExt as _;
use tokio::{
    sync::broadcast,
    task::{JoinHandle, yield_now},
    time::advance,
};

use self::primary::Primary;
use super::*;
use crate::{
    session::{Issuer, Principal, Scope, SessionRecord},
    store::{AtLimit, FeedEvent, SessionFilter},
};

mod absences;
mod answers;
mod bounds;
mod claims;
mod ends;
mod feed;
mod in_flight;
mod outages;
mod primary;

pub(super) const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_nanos(1);
const STALENESS: Duration = Duration::from_secs(30);

type Cached = CachedStore<Arc<Primary>>;

fn cached_over(primary: Primary) -> (Arc<Primary>, Arc<Cached>) {
    let primary = Arc::new(primary);
    let cached = CachedStore::new(Arc::clone(&primary), STALENESS);
    (primary, Arc::new(cached))
}

fn cached() -> (Arc<Primary>, Arc<Cached>) {
    cached_over(Primary::default())
}

fn with_feed() -> Primary {
    Primary {
        feed: Some(broadcast::Sender::new(16)),
        ..Primary::default()
    }
}

pub(super) fn owner(principal: impl Into<Option<&'static str>>) -> Owner {
    Owner {
        scope: Scope::default(),
        principal: principal.into().map(Principal::new),
    }
}

pub(super) fn session_of(owner: &Owner) -> Session {
    let record = SessionRecord::new(owner.clone(), Issuer::Layer);
    Session::new(SessionId::issue(), record)
}

fn session() -> Session {
    session_of(&owner("me"))
}

pub(super) fn terms() -> Terms {
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
async fn created_elsewhere(primary: &Primary, terms: &Terms) -> Session {
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

#[test]
fn what_the_primary_has_not_is_not_promised() {
    let (_, cached) = cached();
    assert!(cached.directory().is_none());
    assert!(cached.feed().is_none());
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
    let mine = created_elsewhere(&primary, &terms()).await;
    is_live(&cached, &mine).await;
    let shown = format!("{cached:?}");
    assert!(shown.starts_with("CachedStore { max_staleness: 30s"));
    assert!(!shown.contains(mine.id().expose()) && !shown.contains("SessionRef"));
}
