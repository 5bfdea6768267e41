//! Requests on their way in: whether they come to the inner service.

use std::time::Duration;

use mcp_session_layer::RejectionKind;

use super::{
    AT_ONCE, Begun, Came, During, Judgement, Loss, NEWBORN, Pending, Reached, Reference, Refusal,
    Seen, Time, ensure,
};
use crate::steps::{Fault, Request, Verbs, What};

impl Pending {
    pub(super) fn is_delete(&self) -> bool {
        matches!(self.request.what, What::Delete(_))
    }

    /// Also if its client hangs up.
    pub(super) fn runs_to_its_end(&self) -> bool {
        matches!(self.request.what, What::Delete(_) | What::Initialize)
    }
}

impl Refusal {
    pub(super) fn is(self, seen: &Seen) -> bool {
        use RejectionKind::*;
        let Some(kind) = seen.kind else {
            return false;
        };
        match self {
            Self::Gone => seen.status == 404 && matches!(kind, Unknown | Ended),
            Self::GoneOrAway => Self::Gone.is(seen) || Self::Away.is(seen),
            Self::Away => (seen.status, kind) == (503, StoreUnavailable),
            Self::Full => (seen.status, kind) == (503, Full),
            Self::Missing => (seen.status, kind) == (400, MissingSession),
            Self::Doubled => (seen.status, kind) == (400, DuplicateSessionHeader),
        }
    }
}

impl Reference {
    /// How far this request may come.
    fn ways(&self, request: Request, time: During) -> Vec<Came> {
        let refused = |why| vec![Came::Refused(why)];
        match request.what {
            What::Modern(_) | What::Aside(_) => vec![Came::In],
            What::Bare => refused(Refusal::Missing),
            What::Doubled(_) => refused(Refusal::Doubled),
            What::Unknown => match self.fault_of(Verbs::Touch) {
                Some(_) => refused(Refusal::Away),
                None => refused(Refusal::Gone),
            },
            What::Initialize => self.ways_of_initialize(request, time),
            What::Call(session) | What::Open(session) | What::Delete(session) => {
                self.ways_on(session, request, time)
            }
        }
    }

    fn ways_on(&self, index: usize, request: Request, time: During) -> Vec<Came> {
        let session = &self.sessions[index];
        let on = &session.on[request.node];
        let away = vec![Came::Refused(Refusal::Away)];
        let gone = Came::Refused(Refusal::Gone);
        let is_owner = session.owner == request.user;
        if on.is_marked {
            if self.fault_of_all().is_some() {
                return away;
            }
            let is_away = self.fault_of(Verbs::Touch).is_some();
            if session.may(time).1 && is_away {
                // Its mark goes when its end is noticed.
                let mut ways = vec![Came::Refused(Refusal::GoneOrAway)];
                ways.extend((is_owner && session.may(time).0).then_some(Came::In));
                return ways;
            }
            if !is_owner && is_away {
                return away;
            }
            if session.is_strange(request.node) && is_away {
                return vec![Came::In, Came::Refused(Refusal::Away)];
            }
        } else if self.fault_of(Verbs::Touch).is_some() {
            return away;
        }
        if on.is_refused || !(is_owner || self.claims(index, request.user)) {
            return vec![gone];
        }
        match session.may(time) {
            (true, false) => vec![Came::In],
            (true, true) => vec![Came::In, gone],
            (false, _) => vec![gone],
        }
    }

    /// A request has come, and the inner service has seen it or not.
    pub(crate) fn arrive(
        &mut self,
        number: u64,
        request: Request,
        reached: Option<&Reached>,
        time: During,
    ) -> Judgement {
        let ways = self.ways(request, time);
        let session = match request.what {
            What::Call(session) | What::Open(session) | What::Delete(session) => Some(session),
            _ => None,
        };
        // The inner service does not see the DELETE of a session that it does not know.
        let is_unseen = session.is_some_and(|index| self.sessions[index].is_layers)
            && matches!(request.what, What::Delete(_));
        let may_enter = ways.contains(&Came::In);
        let mut refusals = ways.iter().filter(|way| **way != Came::In);
        let came = match (reached, refusals.next()) {
            (Some(_), _) => Came::In,
            (None, _) if is_unseen && may_enter => Came::In,
            (None, Some(refused)) => *refused,
            (None, None) => return Err("it did not come to the inner service".to_owned()),
        };
        ensure!(
            may_enter || came != Came::In,
            "it came to the inner service: {reached:?}"
        );
        let is_marked =
            session.is_some_and(|index| self.sessions[index].on[request.node].is_marked);
        if request.what == What::Initialize {
            self.note_evictable(request);
        }
        if let (Some(index), Came::In) = (session, came) {
            self.enter(index, request, time);
        } else if let Some(index) = session
            && (self.fault_of(Verbs::Touch) == Some(Fault::Lost)
                || self.sessions[index].doomed.is_some())
            && (self.sessions[index].owner == request.user || self.claims(index, request.user))
        {
            let latest = time.to + self.world.idle();
            let session = &mut self.sessions[index];
            session.extend(Time::ZERO, latest);
            session.lost = session.lost.map(|(at, _)| (at, Loss::Possible));
        }
        if let Some(reached) = reached {
            self.judge_reached(request, reached)?;
        }
        let begun = Begun {
            is_claimed: session.is_some_and(|index| self.sessions[index].claimed.is_some()),
            is_marked,
        };
        let pending = Pending {
            request,
            session,
            came,
            begun,
            is_revoked: false,
            has_hung_up: false,
        };
        self.under_way.insert(number, pending);
        Ok(())
    }

    fn judge_reached(&self, request: Request, reached: &Reached) -> Judgement {
        let (id, session) = match request.what {
            What::Aside(index) => (Some(self.sessions[index].id.clone()), None),
            What::Call(index) | What::Open(index) | What::Delete(index) => {
                let session = &self.sessions[index];
                let owner = session.owner.name().map(str::to_owned);
                let id = (!session.is_layers).then(|| session.id.clone());
                (id, Some((session.id.clone(), owner)))
            }
            _ => (None, None),
        };
        let right = Reached { id, session };
        ensure!(
            *reached == right,
            "it came as {reached:?}, not as {right:?}"
        );
        Ok(())
    }

    /// A request is let in on a live session.
    fn enter(&mut self, index: usize, request: Request, time: During) {
        let idle = self.world.idle();
        let session = &mut self.sessions[index];
        let on = &mut session.on[request.node];
        let is_touched = !on.is_marked || session.owner != request.user;
        on.was_here = true;
        if session.owner != request.user {
            session.owner = request.user;
            session.claimed = Some(time.to);
        }
        on.knows_claim |= session.claimed.is_some();
        let earliest = if is_touched {
            time.from + idle
        } else {
            Time::ZERO
        };
        session.extend(earliest, time.to + idle);
        // A touch so soon after its birth does not show, and neither does a mere look.
        let is_plain = request.node == session.node
            || is_touched && (NEWBORN < idle || session.born.to + SOON < time.from);
        match &mut session.lost {
            Some((_, loss)) if !is_plain => *loss = Loss::Possible,
            lost => *lost = None,
        }
    }
}

/// How precisely stores keep times.
const SOON: Duration = Duration::from_millis(50).saturating_add(AT_ONCE);
