//! Ends: who ends which sessions, who hears of it, and what ends with them.

use mcp_session_layer::store::EndReason;

use super::{AT_ONCE, Came, During, End, Judgement, Known, Reference, Tells, ensure};
use crate::steps::{Fault, Store, User, Verbs, What};

/// Which sessions an operator ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Whose {
    Of(User),
    All,
}

impl Whose {
    fn includes(self, user: User) -> bool {
        match self {
            Self::Of(owner) => owner == user,
            Self::All => true,
        }
    }
}

impl Reference {
    /// How many sessions somebody has, or all have: at least and at most.
    pub(crate) fn count(&self, user: Option<User>, time: During) -> (u64, u64) {
        let (mut least, mut most) = (0, 0);
        let whose = self.sessions.iter();
        for session in whose.filter(|session| user.is_none_or(|user| session.owner == user)) {
            let (may_live, may_be_over) = session.may(time);
            least += u64::from(!may_be_over);
            most += u64::from(may_live);
        }
        (least, most)
    }

    /// Whether a node may know of a session's end, and whether it may not.
    pub(super) fn knows_end(&self, index: usize, node: usize, time: During) -> (bool, bool) {
        let session = &self.sessions[index];
        let Some(end) = &session.end else {
            let is_refused = session.on[node].is_refused;
            return (is_refused || session.may(time).1, !is_refused);
        };
        let is_told = match self.world.store {
            Store::Memory | Store::Shared => true,
            Store::Deaf => end.by.is_none() || end.by == Some(node),
        };
        let delay = if is_told {
            AT_ONCE
        } else {
            self.world.beat() + AT_ONCE
        };
        let may_not = self.is_troubled(time) || time.from < end.at.to + delay;
        (true, may_not)
    }

    pub(super) fn end_session(&mut self, index: usize, mut end: End) {
        let session = &mut self.sessions[index];
        if session.end.is_some() {
            return;
        }
        end.reasons.extend(session.doomed);
        session.end = Some(end);
        for node in 0..self.world.nodes() {
            // Who refuses it already has told all who are to be told.
            if !self.sessions[index].on[node].is_refused {
                self.expect_tell(index, node);
            }
        }
    }

    pub(super) fn expect_tell(&mut self, index: usize, node: usize) {
        let session = &self.sessions[index];
        let on = &session.on[node];
        if on.was_here && !on.inner_knows_end && !session.is_layers {
            self.tell(node, session.id.clone(), 1, 1);
        }
    }

    /// The inner service heard of it by itself, perhaps before it was to be told.
    pub(super) fn may_not_tell(&mut self, index: usize, node: usize) {
        let id = self.sessions[index].id.clone();
        if let Some(tells) = self.tells.get_mut(&(node, id)) {
            tells.least = 0;
        }
    }

    /// The inner service of this node will be told to end the session of this id.
    pub(super) fn tell(&mut self, node: usize, id: String, least: u64, most: u64) {
        let tells = self.tells.entry((node, id)).or_default();
        tells.least += least;
        tells.most += most;
    }

    /// An operator has ended a session.
    pub(crate) fn revoke(
        &mut self,
        node: usize,
        index: usize,
        answer: Result<bool, ()>,
        time: During,
    ) -> Judgement {
        let fault = self.fault_of(Verbs::Delete);
        let (may_live, may_be_over) = self.sessions[index].may(time);
        let mut end = End {
            at: time,
            reasons: vec![EndReason::Revoked],
            by: Some(node),
        };
        match answer {
            Ok(true) => ensure!(may_live, "it ended what is over"),
            Ok(false) => {
                ensure!(may_be_over, "it did not end what lives");
                return Ok(());
            }
            Err(()) => {
                ensure!(fault.is_some(), "it could not end what it could reach");
                if fault != Some(Fault::Lost) || !may_live {
                    return Ok(());
                }
                end.by = Some(NOBODY);
            }
        }
        self.end_session(index, end);
        Ok(())
    }

    /// An operator has ended many.
    pub(crate) fn revoke_all(
        &mut self,
        node: usize,
        whose: Whose,
        ended: u64,
        time: During,
    ) -> Judgement {
        let user = match whose {
            Whose::Of(user) => Some(user),
            Whose::All => None,
        };
        let (least, most) = self.count(user, time);
        ensure!(
            least <= ended && ended <= most + self.limbo,
            "{ended} ended, of {least} to {most}"
        );
        for index in 0..self.sessions.len() {
            let session = &self.sessions[index];
            if whose.includes(session.owner) && session.may(time).0 {
                let mut reasons = vec![EndReason::Revoked];
                if session.may(time).1 {
                    reasons.extend([EndReason::Idle, EndReason::Lifetime]);
                    reasons.extend(session.lost.map(|_| EndReason::Undelivered));
                }
                let by = Some(if session.is_strange(node) {
                    NOBODY
                } else {
                    node
                });
                let at = time;
                self.end_session(index, End { at, reasons, by });
            }
        }
        for pending in self.under_way.values_mut() {
            let request = pending.request;
            if request.what == What::Initialize && pending.came == Came::In {
                pending.is_revoked |= whose.includes(request.user);
            }
        }
        Ok(())
    }

    /// The client of a request has gone.
    pub(crate) fn hang_up(&mut self, number: u64, time: During) {
        let Some(pending) = self.under_way.get_mut(&number) else {
            return;
        };
        pending.has_hung_up = true;
        let pending = *pending;
        if !pending.runs_to_its_end() {
            self.under_way.remove(&number);
            if let Some(index) = pending.session {
                self.end_use(index, pending.request.node, pending.begun, time);
            }
        }
    }

    /// Client or inner service have ended a stream.
    pub(crate) fn close(&mut self, number: u64, time: During) {
        if let Some(stream) = self.streams.remove(&number)
            && !stream.is_over
        {
            self.end_use(stream.session, stream.node, stream.begun, time);
        }
    }

    /// Whether a stream is over, as its client sees it.
    pub(crate) fn see_stream(&mut self, number: u64, is_over: bool, time: During) -> Judgement {
        let stream = &self.streams[&number];
        let (index, node) = (stream.session, stream.node);
        if stream.is_over {
            return Ok(());
        }
        let session = &self.sessions[index];
        let name = &session.id;
        let is_taken = session.claimed.filter(|_| !stream.begun.is_claimed);
        let has_ended = session.end.is_some() || session.on[node].is_refused;
        if is_over {
            ensure!(
                has_ended || is_taken.is_some(),
                "a stream of {name} ended by itself"
            );
            let begun = stream.begun;
            self.streams.get_mut(&number).expect("a stream").is_over = true;
            self.end_use(index, node, begun, time);
            return Ok(());
        }
        let may_stay = self.knows_end(index, node, time).1;
        ensure!(!has_ended || may_stay, "a stream outlives {name}");
        if let Some(claimed) = is_taken {
            let is_late = claimed + self.world.beat() + AT_ONCE < time.from;
            ensure!(
                !session.on[node].knows_claim,
                "nobody's stream on {name}, which is claimed"
            );
            ensure!(
                !is_late || self.is_troubled(time),
                "nobody's stream on {name} still"
            );
        }
        Ok(())
    }

    /// A node has announced that it created a session.
    pub(crate) fn hear_created(&mut self, node: usize, index: Option<usize>) -> Judgement {
        let Some(index) = index else {
            return Err("a session was announced that nobody got".to_owned());
        };
        let session = &mut self.sessions[index];
        let on = &mut session.on[node];
        on.created_events += 1;
        ensure!(
            on.was_created && on.created_events == 1,
            "{} announced",
            session.id
        );
        Ok(())
    }

    /// A node has announced the end of a session.
    pub(crate) fn hear_ended(
        &mut self,
        node: usize,
        index: Option<usize>,
        reason: EndReason,
        time: During,
    ) -> Judgement {
        let Some(index) = index else {
            return Err("the end of nothing was announced".to_owned());
        };
        let is_troubled = self.is_troubled(time);
        let is_deaf = self.world.store == Store::Deaf;
        let was_stopped = time.from < self.stopped_until;
        let session = &mut self.sessions[index];
        // Who looks for itself, as the process goes on or because of a claim, may be ahead of who tells.
        let is_ahead = was_stopped || session.claimed.is_some_and(|at| time.from <= at);
        let on = &mut session.on[node];
        let (mut reasons, by) = match &session.end {
            Some(end) => (end.reasons.clone(), end.by),
            None => (session.doomed.into_iter().collect(), Some(node)),
        };
        let Known { id, .. } = session;
        ensure!(
            session.end.is_some() || on.is_refused,
            "the end of {id} was announced, which lives"
        );
        ensure!(
            on.was_here || by == Some(node),
            "the end of {id} was announced where it never was"
        );
        if is_troubled || (is_deaf || is_ahead) && by != Some(node) {
            reasons.extend(UNTOLD);
        }
        ensure!(
            reasons.contains(&reason),
            "{id} ended as {reason:?} on node {node}, not as {reasons:?}"
        );
        on.ended_events.push(reason);
        ensure!(
            on.ended_events.len() == 1,
            "the end of {id} was announced twice"
        );
        Ok(())
    }

    /// The layer has told an inner service to end a session, which the store held live at that moment, or not.
    pub(crate) fn hear_tell(&mut self, node: usize, id: &str, is_live: bool) -> Judgement {
        if is_live && let Some(session) = self.sessions.iter().find(|session| session.id == id) {
            ensure!(
                session.doomed.is_some(),
                "told of the end of {id}, which lives"
            );
        }
        let tells = self.tells.entry((node, id.to_owned())).or_default();
        tells.heard += 1;
        let Tells { heard, most, .. } = *tells;
        ensure!(
            heard <= most,
            "told {heard} times of the end of {id}, not {most}"
        );
        Ok(())
    }

    /// That nothing is left to come.
    pub(crate) fn finish(&self) -> Judgement {
        for ((node, id), tells) in &self.tells {
            ensure!(
                tells.least <= tells.heard,
                "node {node} did not tell of the end of {id}"
            );
        }
        for session in &self.sessions {
            let id = &session.id;
            ensure!(session.end.is_some(), "{id} lives");
            for on in &session.on[..self.world.nodes()] {
                let created = u64::from(on.was_created);
                ensure!(on.created_events == created, "{id} was not announced");
                let ended = on.ended_events.len();
                ensure!(
                    ended == 1 || !on.was_here,
                    "the end of {id} was not announced"
                );
            }
        }
        Ok(())
    }
}

/// No node: it was ended, and whoever did it could not hear of it.
const NOBODY: usize = usize::MAX;

/// What a node may say of an end that it was not told the reason of.
const UNTOLD: [EndReason; 5] = [
    EndReason::Deleted,
    EndReason::Idle,
    EndReason::Lifetime,
    EndReason::Revoked,
    EndReason::InnerGone,
];
