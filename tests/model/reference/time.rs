//! What passing time does, and what the store may then show.

use std::time::Duration;

use mcp_session_layer::store::EndReason;

use super::{
    AT_ONCE, Begun, Came, During, End, Judgement, Known, Loss, Reference, Row, Time, ensure,
};
use crate::steps::{Store, User, World};

impl World {
    /// How often a session in use is touched at least.
    pub(super) fn beat(&self) -> Duration {
        let beat = self.idle() / 3;
        match self.store {
            Store::Memory | Store::Shared => beat,
            Store::Deaf => beat.min(Duration::from_secs(15)),
        }
    }

    /// How much less than the idle time a session may have left when its last use ends.
    pub(super) fn rounding(&self) -> Duration {
        let short = self.idle() / 64;
        short.clamp(Duration::from_millis(50), Duration::from_secs(10))
    }
}

impl Known {
    /// Whether it may be live at some time then, and whether it may be over.
    pub(super) fn may(&self, time: During) -> (bool, bool) {
        if self.end.is_some() {
            return (false, true);
        }
        let is_lost = self.lost.is_some_and(|(at, _)| at <= time.to);
        let may_end = self.until.from <= time.to || self.doomed.is_some() || is_lost;
        (time.from < self.until.to, may_end)
    }

    /// Its time is up no earlier than this, and no later than that.
    pub(super) fn extend(&mut self, earliest: Time, latest: Time) {
        let end = self.end_of_life.unwrap_or(During {
            from: Time::MAX,
            to: Time::MAX,
        });
        self.until.from = self.until.from.max(earliest.min(end.from));
        self.until.to = self.until.to.max(latest.min(end.to));
    }

    /// Why it is over if its time is up.
    fn reasons_of_time(&self, is_exact: bool) -> Vec<EndReason> {
        match self.end_of_life {
            None => vec![EndReason::Idle],
            Some(end) if is_exact && self.until.to + AT_ONCE < end.from => vec![EndReason::Idle],
            Some(end) if is_exact && self.until.from == end.from => vec![EndReason::Lifetime],
            Some(_) => vec![EndReason::Idle, EndReason::Lifetime],
        }
    }
}

impl Reference {
    /// `is_stopped`: nobody could do anything meanwhile.
    pub(crate) fn pass(&mut self, time: During, is_stopped: bool) {
        let is_troubled = self.is_troubled(time);
        let idle = self.world.idle();
        if is_stopped {
            self.stopped_until = time.to;
            if is_troubled {
                // What is to be tried again is not, meanwhile.
                self.troubled_until += time.to - time.from;
            }
        }
        for index in 0..self.sessions.len() {
            let is_in_use = self.is_in_use(index);
            let is_kept = self.is_kept_in_use(index);
            let beat = self.world.beat() + AT_ONCE;
            let session = &mut self.sessions[index];
            if is_kept && !is_troubled && !is_stopped {
                session.extend((time.to + idle).saturating_sub(beat), time.to + idle);
            } else if is_in_use || session.owes_touch {
                session.extend(Time::ZERO, time.to + idle);
            }
            if !is_troubled {
                session.owes_touch = false;
            }
        }
    }

    /// The last use of a session ended then, if it was the last.
    pub(super) fn end_use(&mut self, index: usize, node: usize, begun: Begun, time: During) {
        if self.is_in_use(index) {
            return;
        }
        let (idle, short) = (self.world.idle(), self.world.rounding());
        let is_troubled = self.is_troubled(time);
        let session = &mut self.sessions[index];
        let is_owners = begun.is_claimed == session.claimed.is_some();
        if is_troubled || session.on[node].is_marked || !is_owners {
            session.owes_touch = is_troubled;
            session.extend(Time::ZERO, time.to + idle + AT_ONCE);
        } else if session.until.to.saturating_sub(time.from) > AT_ONCE * 2 {
            session.extend(
                (time.from + idle).saturating_sub(short),
                time.to + idle + AT_ONCE,
            );
        } else {
            session.extend(Time::ZERO, time.to + idle + AT_ONCE);
        }
    }

    /// What the store shows now of a session.
    pub(crate) fn observe(&mut self, index: usize, row: Option<&Row>, now: Time) -> Judgement {
        let time = During { from: now, to: now };
        let is_troubled = self.is_troubled(time);
        let session = &mut self.sessions[index];
        let name = session.id.clone();
        let Some(row) = row else {
            return self.observe_end(index, time);
        };
        ensure!(session.end.is_none(), "{name} lives after its end");
        if session.doomed.is_some() {
            // Who is refused may claim it all the same.
            session.owner = User::of(row.principal.as_deref());
        }
        ensure!(
            row.principal.as_deref() == session.owner.name(),
            "{name} is {:?}'s, not {:?}'s",
            row.principal,
            session.owner
        );
        let During { from, to } = session.until;
        ensure!(
            from <= row.until && row.until <= to,
            "{name}: its time is up at {:?}, not between {from:?} and {to:?}",
            row.until
        );
        let is_left = session.doomed.is_some() && !is_troubled;
        ensure!(!is_left, "{name} lives, and was to be deleted");
        ensure!(now < row.until, "{name} lives although its time is up");
        match (session.end_of_life, row.end_of_life) {
            (None, None) => {}
            (Some(end), Some(shown)) if end.from <= shown && shown <= end.to => {
                session.end_of_life = Some(at(shown));
            }
            (end, shown) => return Err(format!("{name}: its life ends at {shown:?}, not {end:?}")),
        }
        session.until = at(row.until);
        session.evictable = None;
        if let Some((due, loss)) = session.lost
            && !is_troubled
            && due + AT_ONCE < now
        {
            ensure!(
                loss == Loss::Possible,
                "{name} lives, and nobody has its id"
            );
            session.lost = None;
        }
        Ok(())
    }

    /// So many sessions the store has that nobody got.
    pub(crate) fn observe_others(&mut self, others: u64, time: During) -> Judgement {
        let most = self.limbo;
        ensure!(
            others <= most,
            "{others} sessions that nobody got, not {most}"
        );
        if !self.is_troubled(time) {
            ensure!(
                others == 0,
                "{others} sessions that nobody got are still there"
            );
            self.limbo = 0;
        }
        Ok(())
    }

    fn observe_end(&mut self, index: usize, time: During) -> Judgement {
        // Whoever looks late may find both times up.
        let is_exact = !self.is_troubled(time) && self.stopped_until < time.from;
        let mut nodes = 0..self.world.nodes();
        let is_being_ended = nodes.any(|node| self.is_being_ended(node, index));
        let session = &mut self.sessions[index];
        if session.end.is_some() {
            return Ok(());
        }
        let lost = session.lost.filter(|(at, _)| *at <= time.to);
        let mut reasons = Vec::new();
        let mut by = None;
        if session.until.from <= time.to {
            reasons = session.reasons_of_time(is_exact);
            reasons.extend(is_being_ended.then_some(EndReason::Deleted));
        }
        if lost.is_some() {
            reasons.push(EndReason::Undelivered);
            by = Some(session.node);
        }
        if session.evictable.is_some() {
            reasons.push(EndReason::Evicted);
            by = session.evictable;
        }
        reasons.extend(session.doomed);
        ensure!(!reasons.is_empty(), "{} is lost", session.id);
        let at = time;
        self.end_session(index, End { at, reasons, by });
        Ok(())
    }

    /// Whether a request on this session would have to wait for another one.
    pub(crate) fn is_being_ended(&self, node: usize, session: usize) -> bool {
        self.under_way.values().any(|pending| {
            pending.session == Some(session)
                && pending.request.node == node
                && pending.came == Came::In
                && pending.is_delete()
        })
    }
}

fn at(time: Time) -> During {
    During {
        from: time,
        to: time,
    }
}
