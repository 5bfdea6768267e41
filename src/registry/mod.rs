//! The sessions that this node serves, by reference, and those whose end it knows of.
//!
//! A request finds its session through the store, and comes here at first sight only: a session that is served here says so
//! itself. Imports `store`, `session` and `protocol`.

use std::sync::Arc;

use tokio::sync::mpsc;

pub(crate) use self::routes::Routes;
use self::tombstones::{Tombstone, Tombstones};
use crate::{
    metrics,
    protocol::{RejectionKind, SessionRef},
    session::{
        InFlight, RegistryId, Session, Table, Tracker, Wake,
        times::{self, Tick},
    },
    store::Found,
    sync::{Mutex, MutexGuard},
};

#[cfg(all(test, shuttle))]
mod permutations;
mod routes;
mod tombstones;

/// What one layer serves in this process. All clones of the layer share it.
pub(crate) struct Registry {
    id: RegistryId,
    shards: Box<[Mutex<Shard>]>,
    pub(crate) routes: Routes,
    pub(crate) tracker: Arc<Tracker>,
}

#[derive(Default)]
struct Shard {
    sessions: Table,
    tombstones: Tombstones,
}

impl Registry {
    /// An empty registry, which wakes the keeper for what it has to look at.
    pub(crate) fn new(keeper: mpsc::UnboundedSender<Wake>) -> Self {
        Self {
            id: RegistryId::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            routes: Routes::default(),
            tracker: Arc::new(Tracker::new(keeper)),
        }
    }

    /// Lets a request in, on a session that the store has found live for its caller, anonymous or not.
    ///
    /// # Errors
    ///
    /// When this node knows that the session has ended, or has become somebody else's since it was looked up.
    #[inline(always)]
    pub(crate) fn enter(
        &self,
        found: Found,
        is_anonymous: bool,
    ) -> Result<InFlight, RejectionKind> {
        let before = found.session.state().begin_use();
        if !before.is_served_by(self.id) {
            found.session.state().end_use();
            return self.enter_by_reference(&found, is_anonymous);
        }
        self.admit(found.session, is_anonymous)
    }

    #[cold]
    fn enter_by_reference(
        &self,
        found: &Found,
        is_anonymous: bool,
    ) -> Result<InFlight, RejectionKind> {
        if found.session.has_ended() {
            return Err(RejectionKind::Ended);
        }
        let reference = found.session.reference();
        let mut shard = self.shard(reference);
        let session = match shard.find(reference) {
            Some(session) => session.clone(),
            None if shard.tombstones.contains(reference) => return Err(RejectionKind::Ended),
            None => self.serve(&mut shard, found),
        };
        drop(shard);
        session.state().clear_undelivered();
        if !session.claim(found.session.owner()) {
            return Err(RejectionKind::Unknown);
        }
        self.note(&session, found);
        if session.state().begin_use().has_ended() {
            session.state().end_use();
            return Err(RejectionKind::Ended);
        }
        self.admit(session, is_anonymous)
    }

    /// For a use that has been counted.
    #[inline]
    fn admit(&self, session: Session, is_anonymous: bool) -> Result<InFlight, RejectionKind> {
        let is_claimed = session.is_claimed();
        if is_claimed && is_anonymous {
            session.state().end_use();
            return Err(RejectionKind::Unknown);
        }
        Ok(InFlight::counted(session, &self.tracker, is_claimed))
    }

    /// Serves a session that has been created, and announces it before anybody can hear of its end. `None` if it has been
    /// ended already.
    ///
    /// `announce` gets the session that had this id before, if nobody has noticed yet that its time is up. It ends here.
    pub(crate) fn insert(
        &self,
        found: &Found,
        announce: impl FnOnce(Option<&Session>),
    ) -> Option<InFlight> {
        let reference = found.session.reference();
        let mut shard = self.shard(reference);
        if found.session.has_ended() || shard.tombstones.contains(reference) {
            return None;
        }
        let before = shard.remove(reference);
        let session = self.serve(&mut shard, found);
        announce(before.as_ref());
        drop(shard);
        if let Some(before) = before {
            metrics::sessions_served(-1);
            before.end();
        }
        Some(InFlight::creating(session, &self.tracker))
    }

    fn serve(&self, shard: &mut Shard, found: &Found) -> Session {
        let mut session = found.session.clone();
        if !session.state().assign(self.id) {
            // Another layer in this process shares the store.
            session = session.twin();
            session.state().assign(self.id);
        }
        self.note(&session, found);
        let reference = session.reference();
        shard.sessions.insert(hash(reference), session.clone());
        metrics::sessions_served(1);
        self.tracker.wake(Wake::Keep(session.clone()));
        session
    }

    /// Takes over the store's word on a session's values and times, unless this is the store's own handle.
    pub(crate) fn note(&self, session: &Session, found: &Found) {
        session.note_values(&found.session);
        if !session.state().now().is_kept() {
            let now = times::now();
            let Found {
                age,
                idle_left,
                life_left,
                ..
            } = *found;
            session.times().note(now, age, idle_left, life_left);
        }
    }

    /// Forgets the end of a session of whose id another is about to be created.
    pub(crate) fn forget_end(&self, reference: &SessionRef) {
        self.shard(reference).tombstones.remove(reference);
    }

    /// Ends a session on this node, once, and announces it; with the session, if this node served it.
    pub(crate) fn end(
        &self,
        reference: &SessionRef,
        announce: impl FnOnce(Option<&Session>),
    ) -> Ended {
        self.end_if(reference, |_| true, announce)
    }

    /// As [`end`](Self::end), of this session and no other: its id may have been issued again.
    pub(crate) fn end_this(
        &self,
        session: &Session,
        announce: impl FnOnce(Option<&Session>),
    ) -> Ended {
        self.end_if(session.reference(), |served| served.is(session), announce)
    }

    fn end_if(
        &self,
        reference: &SessionRef,
        is_meant: impl FnOnce(&Session) -> bool,
        announce: impl FnOnce(Option<&Session>),
    ) -> Ended {
        let session = {
            let mut shard = self.shard(reference);
            if shard
                .find(reference)
                .is_some_and(|served| !is_meant(served))
            {
                return Ended::Before;
            }
            let session = shard.remove(reference);
            let before = shard.tombstones.put(reference, Tombstone::Announced);
            let is_known = matches!(
                before,
                Some(Tombstone::Announced(_) | Tombstone::DeletePending)
            );
            if session.is_none() && is_known {
                return Ended::Before;
            }
            session
        };
        announce(session.as_ref());
        match session {
            Some(session) => {
                metrics::sessions_served(-1);
                session.end();
                Ended::Served(session)
            }
            None => Ended::Elsewhere,
        }
    }

    /// As [`end`](Self::end), for ends heard from elsewhere: none is announced of sessions that this node never served, and
    /// a look-up under way must not let one in.
    pub(crate) fn end_heard(
        &self,
        reference: &SessionRef,
        announce: impl FnOnce(Option<&Session>),
    ) -> Ended {
        {
            let mut shard = self.shard(reference);
            if shard.find(reference).is_none() {
                shard.tombstones.put(reference, Tombstone::Heard);
                return Ended::Before;
            }
        }
        self.end(reference, announce)
    }

    /// Refuses a session from now on, whatever the store says, until its delete is done.
    pub(crate) fn delete_pending(&self, reference: &SessionRef) {
        let mut shard = self.shard(reference);
        if let Some(session) = shard.find(reference) {
            // What is served without a look-up here has to hear of it too.
            session.state().end();
        }
        shard
            .tombstones
            .put(reference, |_| Tombstone::DeletePending);
    }

    /// The store has deleted a session whose delete was pending.
    pub(crate) fn delete_done(&self, reference: &SessionRef) {
        self.shard(reference).tombstones.deleted(reference);
    }

    /// The session of this reference, if this node serves it.
    pub(crate) fn get(&self, reference: &SessionRef) -> Option<Session> {
        self.shard(reference).find(reference).cloned()
    }

    /// All sessions that this node serves.
    pub(crate) fn sessions(&self) -> Vec<Session> {
        let mut sessions = Vec::new();
        for shard in &self.shards {
            sessions.extend(shard.lock().sessions.iter().cloned());
        }
        sessions
    }

    /// The least of what this says of sessions that this node serves; of so many at the most.
    pub(crate) fn least(&self, at_most: usize, of: impl Fn(&Session) -> Tick) -> Option<Tick> {
        let mut least = None;
        let mut seen = 0;
        for shard in &self.shards {
            if seen >= at_most {
                break;
            }
            for session in shard.lock().sessions.iter() {
                seen += 1;
                let this = of(session);
                least = Some(least.map_or(this, |least: Tick| least.min(this)));
            }
        }
        least
    }

    fn shard(&self, reference: &SessionRef) -> MutexGuard<'_, Shard> {
        // A digest's bits are as good as any hash's.
        self.shards[usize::from(reference.as_bytes()[31]) % SHARDS].lock()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        for shard in &mut self.shards {
            let left = shard.get_mut().sessions.len();
            metrics::sessions_served(-i32::try_from(left).unwrap_or(i32::MAX));
        }
    }
}

impl Shard {
    fn find(&self, reference: &SessionRef) -> Option<&Session> {
        self.sessions
            .find(hash(reference), |session| session.reference() == reference)
    }

    fn remove(&mut self, reference: &SessionRef) -> Option<Session> {
        self.sessions
            .remove(hash(reference), |session| session.reference() == reference)
    }
}

/// What the end of a session found here.
pub(crate) enum Ended {
    /// This node knew of it.
    Before,
    /// This node had never served it.
    Elsewhere,
    /// This node served it until now.
    Served(Session),
}

fn hash(reference: &SessionRef) -> u32 {
    let (first, _) = reference
        .as_bytes()
        .split_first_chunk()
        .expect("32 bytes are more than 4");
    u32::from_le_bytes(*first)
}

const SHARDS: usize = if cfg!(shuttle) { 1 } else { 64 };

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_end_is_announced_once_although_it_was_heard_before() {
        let registry = Registry::new(mpsc::unbounded_channel().0);
        let session = SessionRef::from_bytes([7; 32]);
        let announced = Cell::new(0);
        let announce = |_: Option<&Session>| announced.set(announced.get() + 1);
        registry.end_heard(&session, announce);
        assert!(matches!(registry.end(&session, announce), Ended::Elsewhere));
        assert!(matches!(registry.end(&session, announce), Ended::Before));
        registry.end_heard(&session, announce);
        assert_eq!(announced.get(), 1);
    }
}
