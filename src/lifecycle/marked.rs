//! Sessions whose requests are looked at twice: those that the inner service seems to have forgotten, where that is no reason
//! to end them, and those on which it opens others.

use std::collections::{BTreeMap, HashMap};

use crate::{
    protocol::SessionId,
    session::{Owner, Session},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

/// Those of this node. A request on one that seems forgotten does not extend it, and where there is no room they are the first
/// to go. A request on one that is closed is read: another `initialize` would leave one more session inside.
#[derive(Default)]
pub(crate) struct Marked {
    number: AtomicUsize,
    list: Mutex<List>,
}

/// Live sessions only, so their number has a bound.
#[derive(Default)]
struct List {
    by_age: BTreeMap<u64, Mark>,
    ages: HashMap<SessionId, u64, foldhash::fast::RandomState>,
    next: u64,
    closed: HashMap<SessionId, Session, foldhash::fast::RandomState>,
}

/// A session that is marked.
#[derive(Clone)]
pub(super) struct Mark {
    pub(super) session: Session,
    /// No stranger can have brought this about while its owner uses it.
    pub(super) is_credible: bool,
}

impl Marked {
    #[inline]
    pub(crate) fn contains(&self, id: &SessionId) -> bool {
        !self.is_empty() && self.has(id, |_| true)
    }

    /// Whether it is this owner's, too. To a stranger it is as good as unknown, also by how long that takes to be told.
    #[inline]
    pub(crate) fn contains_of(&self, id: &SessionId, owner: &Owner) -> bool {
        !self.is_empty() && self.has(id, |session| session.owner() == owner)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.number.load(SeqCst) == 0
    }

    #[cold]
    fn has(&self, id: &SessionId, is_meant: impl FnOnce(&Session) -> bool) -> bool {
        let list = self.list.lock();
        let marked = list.ages.get(id).and_then(|age| list.by_age.get(age));
        let session = marked.map(|mark| &mark.session);
        session
            .or_else(|| list.closed.get(id))
            .is_some_and(is_meant)
    }

    /// Whether it seems to be forgotten.
    pub(crate) fn seems_forgotten(&self, id: &SessionId) -> bool {
        !self.is_empty() && self.list.lock().ages.contains_key(id)
    }

    /// Whether no further `initialize` goes inward on it.
    pub(crate) fn is_closed(&self, id: &SessionId) -> bool {
        !self.is_empty() && self.list.lock().closed.contains_key(id)
    }

    /// Lets no further `initialize` inward on this session.
    pub(super) fn close(&self, session: &Session) {
        let mut list = self.list.lock();
        list.closed.insert(session.id().clone(), session.clone());
        self.number.store(list.len(), SeqCst);
        drop(list);
        if session.has_ended() {
            self.forget(session);
        }
    }

    /// It has ended.
    pub(super) fn forget(&self, session: &Session) {
        let closed = self.list.lock().closed.remove(session.id());
        drop(closed);
        self.remove(session);
    }

    pub(super) fn add(&self, session: &Session, is_credible: bool) {
        let mut list = self.list.lock();
        session.state().mark();
        match list.ages.get(session.id()).copied() {
            Some(age) => {
                if let Some(mark) = list.by_age.get_mut(&age) {
                    mark.is_credible |= is_credible;
                }
            }
            None => list.add(session, is_credible),
        }
        self.number.store(list.len(), SeqCst);
        drop(list);
        // Whoever ends it from here on finds it here.
        if session.has_ended() {
            self.forget(session);
        }
    }

    /// It has been served.
    pub(super) fn remove(&self, session: &Session) {
        let mut list = self.list.lock();
        session.state().unmark();
        let age = list.ages.remove(session.id());
        let mark = age.and_then(|age| list.by_age.remove(&age));
        self.number.store(list.len(), SeqCst);
        drop(list);
        drop(mark);
    }

    /// Some of those that were marked first.
    pub(super) fn oldest(&self, which: impl Fn(&Session) -> bool) -> Vec<Mark> {
        let list = self.list.lock();
        let picked = list.by_age.values().filter(|mark| which(&mark.session));
        picked.take(LOOKS).cloned().collect()
    }
}

impl List {
    fn len(&self) -> usize {
        self.ages.len() + self.closed.len()
    }

    fn add(&mut self, session: &Session, is_credible: bool) {
        let session = session.clone();
        self.next += 1;
        self.ages.insert(session.id().clone(), self.next);
        let mark = Mark {
            session,
            is_credible,
        };
        self.by_age.insert(self.next, mark);
    }
}

/// How many are looked at to make room for one session.
const LOOKS: usize = 16;
