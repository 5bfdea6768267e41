//! The verbs.

use std::time::Duration;

use mcp_session_layer::{
    Change, Issuer, Owner, Session, SessionId, SessionRecord, SessionRef, SessionStore,
    store::{
        AtLimit, Created, Directory, EndReason, Expiry, Feed, FeedEvent, Found, Now, StoreError,
        StoreErrorKind, Terms,
    },
};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};
use tokio_stream::{StreamExt as _, wrappers::BroadcastStream};

use super::{NaiveStore, Row, State, defect::Defect::*};

impl SessionStore for NaiveStore {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.dawdle().await;
        let (key, owner) = (self.key(session.id()), session.owner());
        let mut terms = terms.clone();
        match self.defect {
            Some(CreateKeepsItsPlace) => self.take_a_place_for_a_moment(owner).await,
            Some(CreateInTwoSteps) => {
                if self.state().rows.contains_key(&key) {
                    return Ok(Created::Exists);
                }
                yield_now().await;
                self.state().rows.remove(&key);
            }
            Some(CreateInHalves) if !self.state().rows.contains_key(&key) => {
                let half = SessionRecord::new(owner.clone(), Issuer::Inner);
                let half = self.row(&Session::new(session.id().clone(), half), &terms);
                self.state().rows.insert(key, half);
                yield_now().await;
                self.state().rows.remove(&key);
            }
            Some(LimitsInTwoSteps) if terms.at_limit == AtLimit::Refuse => {
                if let Err(refused) = self.admit(&mut self.state(), owner, &terms) {
                    return Ok(refused);
                }
                yield_now().await;
                (terms.total, terms.per_principal) = (None, None);
            }
            _ => {}
        }
        let created = self.insert(&mut self.state(), session, &terms);
        self.dawdle().await;
        Ok(created)
    }

    async fn make_room(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.dawdle().await;
        let created = self.make_place_for(session, terms);
        self.dawdle().await;
        Ok(created)
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        self.dawdle().await;
        let found = {
            let mut state = self.state();
            let row = state.rows.get_mut(&self.key(id));
            row.filter(|row| self.is_live(row)).map(|row| {
                if self.has(LoadExtends) {
                    self.extend(row, Duration::from_secs(1));
                }
                self.found(row)
            })
        };
        self.dawdle().await;
        Ok(found)
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.dawdle().await;
        let key = self.key(id);
        let before = match self.defect {
            Some(TouchTakesItOut) => self.state().rows.remove(&key),
            Some(TouchRevives) => self.state().rows.get(&key).cloned(),
            _ => None,
        };
        if let Some(row) = before {
            yield_now().await;
            self.state().rows.insert(key, row);
        }
        if self.has(ExpireIsARead)
            && let Some(touched) = self.touch_late(&key, owner, idle).await
        {
            return Ok(Some(touched));
        }
        if self.has(TouchInserts) {
            let now = Instant::now();
            let record = SessionRecord::new(owner.clone(), Issuer::Layer);
            self.state().rows.entry(key).or_insert(Row {
                session: Session::new(id.clone(), record),
                created: now,
                touched: Some(now),
                idle_ends: Some(now + idle),
                life_ends: None,
            });
        }
        let found = {
            let mut state = self.state();
            let row = state.rows.get_mut(&key).filter(|row| self.is_live(row));
            row.and_then(|row| {
                let is_owner = self.is_owner(row, owner);
                if is_owner || self.has(StrangersExtend) {
                    self.extend(row, idle);
                }
                is_owner.then(|| self.found(row))
            })
        };
        self.dawdle().await;
        Ok(found)
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        self.dawdle().await;
        let key = self.key(id);
        if self.has(DeleteInTwoSteps) {
            let was_live = self.state().rows.contains_key(&key);
            yield_now().await;
            self.remove(&mut self.state(), &key, reason);
            return Ok(was_live);
        }
        let owner = {
            let mut state = self.state();
            let row = state.rows.get(&key);
            let Some(row) = row.filter(|row| self.is_live(row) || self.has(DeleteFindsTheExpired))
            else {
                if self.has(AnnouncesTwice) {
                    self.announce(key, reason);
                }
                return Ok(false);
            };
            let owner = row.session.owner().clone();
            self.remove(&mut state, &key, reason);
            owner
        };
        if self.has(DeleteKeepsItsPlace) {
            self.take_a_place_for_a_moment(&owner).await;
        }
        self.dawdle().await;
        Ok(true)
    }

    async fn delete_idle(
        &self,
        id: &SessionId,
        left: Duration,
        reason: EndReason,
    ) -> Result<bool, StoreError> {
        let is_idle = {
            let state = self.state();
            let row = state.rows.get(&self.key(id));
            row.is_some_and(|row| self.found(row).idle_left <= left)
        };
        // It has been read, and may have been touched: in a store that is used by many this is wrong.
        match is_idle || self.has(DeleteIdleEndsTheTouched) {
            true => self.delete(id, reason).await,
            false => Ok(false),
        }
    }

    async fn expire(&self, id: &SessionId) -> Result<Expiry, StoreError> {
        self.dawdle().await;
        let key = self.key(id);
        let expiry = {
            let mut state = self.state();
            match state.rows.get_mut(&key).filter(|row| self.is_live(row)) {
                Some(row) => {
                    if self.has(ExpireExtends) {
                        self.extend(row, Duration::from_secs(1));
                    }
                    Expiry::Left(self.found(row))
                }
                None => Expiry::Over,
            }
        };
        if self.has(ExpireEndsTheLive) {
            self.state().rows.remove(&key);
        }
        self.dawdle().await;
        Ok(expiry)
    }

    async fn change(
        &self,
        id: &SessionId,
        owner: &Owner,
        change: &Change,
    ) -> Result<Option<Found>, StoreError> {
        self.dawdle().await;
        let key = self.key(id);
        let before = self.state().rows.get(&key).cloned();
        if self.has(ChangeInTwoSteps) {
            yield_now().await;
        }
        let found = {
            let mut state = self.state();
            let Some(row) = state.rows.get_mut(&key).filter(|row| self.is_live(row)) else {
                return Ok(None);
            };
            if !self.is_owner(row, owner) && !self.has(ChangeIgnoresTheOwner) {
                return Ok(None);
            }
            if self.has(ChangeExtends) {
                self.extend(row, Duration::from_secs(1));
            }
            if let Some(before) = before.filter(|_| self.has(ChangeInTwoSteps)) {
                *row = before;
            }
            let mut record = row.session.record();
            match record.values.changed(change) {
                Ok(None) => {}
                Ok(Some(values)) => {
                    record.values = values;
                    row.session = Session::new(id.clone(), record);
                    if !self.has(ChangeIsSilent) {
                        _ = self.ends.send(FeedEvent::Changed { reference: key });
                    }
                }
                Err(_) if self.has(ChangeIgnoresTheLimit) => {}
                Err(error) => {
                    let kind = StoreErrorKind::TooLarge;
                    return Err(StoreError::new(kind, "change").with_source(error));
                }
            }
            self.found(row)
        };
        self.dawdle().await;
        Ok(Some(found))
    }

    fn touch_now(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Now {
        if self.is_slow {
            return Now::Unknown;
        }
        let mut state = self.state();
        let row = state.rows.get_mut(&self.key(id));
        match row.filter(|row| self.is_live(row)) {
            Some(row) if self.is_owner(row, owner) || self.has(TouchNowIgnoresTheOwner) => {
                if !self.has(TouchNowNeverExtends) {
                    self.extend(row, idle);
                }
                Now::Live(self.found(row))
            }
            _ => Now::Absent,
        }
    }

    async fn claim(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.dawdle().await;
        let key = self.key(id);
        let anonymous = Owner {
            principal: None,
            ..owner.clone()
        };
        let may_claim = |row: &Row| {
            let held = row.session.owner();
            *held == anonymous || held == owner || self.has(ClaimTakesOthers)
        };
        let live = |state: &State| {
            let row = state.rows.get(&key).filter(|row| self.is_live(row));
            row.is_some_and(may_claim)
        };
        if !live(&self.state()) {
            return Ok(None);
        }
        if self.has(ClaimInTwoSteps) {
            yield_now().await;
        }
        let found = {
            let mut state = self.state();
            if !live(&state) && !self.has(ClaimInTwoSteps) {
                return Ok(None);
            }
            state.rows.get_mut(&key).map(|row| {
                let mut record = row.session.record();
                if record.owner != *owner && !self.has(ClaimIsSilent) {
                    _ = self.ends.send(FeedEvent::Changed { reference: key });
                }
                record.owner = owner.clone();
                if !self.has(ClaimKeepsTheOwner) {
                    row.session = Session::new(row.session.id().clone(), record);
                }
                if !self.has(ClaimDoesNotExtend) {
                    self.extend(row, idle);
                }
                self.found(row)
            })
        };
        if self.has(ClaimCountsAsAnonymous)
            && let Some(found) = &found
        {
            self.state().taken.push(anonymous);
            self.state().taken.push(found.session.owner().clone());
        }
        self.dawdle().await;
        Ok(found)
    }

    fn directory(&self) -> Option<&dyn Directory> {
        Some(self)
    }

    fn feed(&self) -> Option<Feed> {
        let ends = BroadcastStream::new(self.ends.subscribe());
        Some(Box::pin(ends.map(|event| event.unwrap_or(FeedEvent::Gap))))
    }
}

impl NaiveStore {
    /// A touch in the last moments of a session, as a database makes it: decided now, and to be seen a little later.
    async fn touch_late(&self, key: &SessionRef, owner: &Owner, idle: Duration) -> Option<Found> {
        let mut row = self.state().rows.get(key).cloned()?;
        let left = row.deadline()?.checked_duration_since(Instant::now())?;
        if left.is_zero() || left > LAST_MOMENTS || !self.is_owner(&row, owner) {
            return None;
        }
        self.extend(&mut row, idle);
        let found = self.found(&row);
        sleep(LAST_MOMENTS).await;
        self.state().rows.insert(*key, row);
        Some(found)
    }
}

const LAST_MOMENTS: Duration = Duration::from_millis(3);
