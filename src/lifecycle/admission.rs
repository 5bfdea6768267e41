//! Admission: whether a session may be created just now, as far as this node knows, and what operators are told of it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use http::HeaderValue;
use tokio::time::Instant;

use super::Lifecycle;
use crate::{
    session::{
        Owner, Session,
        times::{self, Tick, ticks},
    },
    store::{AtLimit, Limit, SessionFilter, Terms},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

#[derive(Default)]
pub(super) struct Admission {
    /// Until when no session is created because there was no room: for anonymous callers, for others.
    closed_until: Mutex<[Option<Instant>; 2]>,
    /// Whose sessions were all ended by this node lately, and when: for sessions that began to be created before.
    revoked: Mutex<VecDeque<(Instant, SessionFilter)>>,
    under_way: Arc<Mutex<UnderWay>>,
    /// When that was looked for, and when there may be room.
    room_at: Mutex<Option<(Instant, Instant)>>,
    said_that_ids_are_issued_here: AtomicBool,
    said_that_none_is_opened: AtomicBool,
    said_that_a_part_is_wrapped: AtomicBool,
}

/// How many sessions are being created: from before the inner service is asked until the store has them.
#[derive(Default)]
struct UnderWay {
    all: u64,
    of_principals: HashMap<Owner, u64>,
}

/// The place of a session that is being created, until it is dropped. So the limits hold although the store does not know
/// of the session yet.
pub(super) struct Slot {
    under_way: Arc<Mutex<UnderWay>>,
    owner: Owner,
    /// How many others there were, and how many of them of the same principal.
    ahead: [u64; 2],
}

impl Slot {
    pub(super) fn has_others_ahead(&self) -> bool {
        self.ahead[0] > 0
    }

    /// The terms on which the store has to have room: the others under way count.
    ///
    /// # Errors
    ///
    /// The limit that the others alone reach.
    pub(super) fn within(&self, mut terms: Terms) -> Result<Terms, Limit> {
        let limits = [
            (Limit::Total, &mut terms.total),
            (Limit::PerPrincipal, &mut terms.per_principal),
        ];
        for ((limit, most), ahead) in limits.into_iter().zip(self.ahead) {
            if let Some(number) = *most {
                *most = number
                    .get()
                    .checked_sub(ahead)
                    .and_then(|left| left.try_into().ok());
                if most.is_none() {
                    return Err(limit);
                }
            }
        }
        Ok(terms)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock();
        under_way.all -= 1;
        if let Some(count) = under_way.of_principals.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                under_way.of_principals.remove(&self.owner);
            }
        }
    }
}

impl Admission {
    pub(super) fn reserve(&self, owner: &Owner) -> Slot {
        let mut under_way = self.under_way.lock();
        let all = under_way.all;
        under_way.all += 1;
        let of_principal = match owner.principal {
            Some(_) => {
                let count = under_way.of_principals.entry(owner.clone()).or_default();
                *count += 1;
                *count - 1
            }
            None => 0,
        };
        Slot {
            under_way: Arc::clone(&self.under_way),
            owner: owner.clone(),
            ahead: [all, of_principal],
        }
    }

    pub(super) fn is_closed(&self, owner: &Owner) -> bool {
        let closed_until = self.closed_until.lock()[kind(owner)];
        closed_until.is_some_and(|until| Instant::now() < until)
    }

    /// For a moment: there was no room just now. So a store that is full is not asked by each of those who are refused.
    pub(super) fn close(&self, owner: &Owner) {
        self.closed_until.lock()[kind(owner)] = Some(Instant::now() + CLOSED_FOR);
    }

    /// A session has ended, so that there is room again.
    pub(super) fn open(&self) {
        *self.closed_until.lock() = [None; 2];
    }

    /// Refuses to create sessions of these for whoever began before now. To be called before the store ends them.
    ///
    /// The store does so too, on all nodes, but reckons from the moment at which it hears of the creation: what began just
    /// before the call here, and was slow to reach the store, it takes for younger than it is.
    pub(super) fn revoke(&self, filter: &SessionFilter) {
        let mut revoked = self.revoked.lock();
        let now = Instant::now();
        while let Some((at, _)) = revoked.front()
            && *at + REVOKED_FOR <= now
        {
            revoked.pop_front();
        }
        revoked.push_back((now, filter.clone()));
    }

    /// Whether this owner's sessions were all ended since then. To be asked after the store has recorded the new one.
    pub(super) fn is_revoked(&self, owner: &Owner, started: Instant) -> bool {
        let revoked = self.revoked.lock();
        let mut since = revoked.iter().rev().take_while(|(at, _)| *at > started);
        since.any(|(_, filter)| filter.includes(owner))
    }

    pub(super) fn say_that_ids_are_issued_here(&self) {
        if !self.said_that_ids_are_issued_here.swap(true, Relaxed) {
            tracing::info!("the inner service issues no session ids, so this layer does");
        }
    }

    /// `initialize` succeeded, and its answer is of no type that MCP knows. Said once: it is a mistake of the set-up.
    #[cold]
    pub(super) fn say_that_none_is_opened(&self, content_type: Option<&HeaderValue>) {
        if !self.said_that_none_is_opened.swap(true, Relaxed) {
            tracing::warn!(
                ?content_type,
                "an `initialize` was answered with success, but neither with a JSON-RPC answer as plain `application/json` nor \
                 with an event stream, so no session is opened; either this layer guards something else than the MCP \
                 service, or the handler answers without a `Content-Type`, or what compresses is inside this layer"
            );
        }
    }

    pub(super) fn say_that_a_part_is_wrapped(&self) {
        if !self.said_that_a_part_is_wrapped.swap(true, Relaxed) {
            tracing::warn!(
                "this layer is put on axum's routes one by one (`Router::layer`, `MethodRouter::layer`), so what it sends by \
                 itself may reach another method's handler than it should; name the router as it was before, with `with_inner`"
            );
        }
    }
}

impl Lifecycle {
    /// How long it is likely to last until there is room: until a session here may be evicted, or expires.
    #[cold]
    pub(super) fn room_in(&self) -> Duration {
        let mut room_at = self.alive.admission.room_at.lock();
        let now = Instant::now();
        let known = room_at.filter(|(looked, _)| now < *looked + CLOSED_FOR);
        let (_, at) = *room_at.insert(known.unwrap_or_else(|| {
            let registry = &self.alive.registry;
            let room = registry.least(LOOKED_AT, |session| self.room_after(session));
            let wait = room.map_or(LONGEST_WAIT, |room| times::between(times::now(), room));
            (now, now + wait.clamp(SHORTEST_WAIT, LONGEST_WAIT))
        }));
        at.saturating_duration_since(now)
    }

    /// When this session may go, unless it is used.
    fn room_after(&self, session: &Session) -> Tick {
        if session.is_in_use() {
            return Tick::MAX;
        }
        let until = session.times().until();
        if !self.settings.evicts || session.owner().principal.is_some() {
            return until;
        }
        let terms = self.settings.terms(session.owner(), Duration::ZERO);
        let AtLimit::Evict { unused, untouched } = terms.at_limit else {
            return until;
        };
        let left = times::between(times::now(), until);
        // One that has less than this left was not used yet, or may go anyway.
        let (idle, patience) = match left <= terms.initial_idle {
            true => (terms.initial_idle, unused),
            false => (terms.idle, untouched),
        };
        until.saturating_sub(ticks(idle.saturating_sub(patience)))
    }
}

fn kind(owner: &Owner) -> usize {
    usize::from(owner.principal.is_some())
}

const CLOSED_FOR: Duration = Duration::from_secs(1);
const LOOKED_AT: usize = 16_384;
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Longer than creating a session takes: the longest time limit for a store call is a minute.
const REVOKED_FOR: Duration = Duration::from_secs(90);
