//! Creations: whether there is room for a session, and what an `initialize` is answered.

use std::time::Duration;

use mcp_session_layer::RejectionKind;

use super::{
    Came, During, Judgement, Known, Loss, NEWBORN, On, Pending, Reference, Refusal, Seen,
    answers::status_of, ensure,
};
use crate::{
    inner::issued,
    steps::{Fault, Flow, Request, Says, User, Verbs, What},
};

impl Reference {
    /// At the limit of their owner those go first that the inner service seems to have forgotten.
    fn may_evict(&self, request: Request) -> bool {
        let mut sessions = self.sessions.iter();
        self.world.at_most.is_some() && sessions.any(|session| session.may_go_for(request))
    }

    pub(super) fn note_evictable(&mut self, request: Request) {
        for session in &mut self.sessions {
            if self.world.at_most.is_some() && session.may_go_for(request) {
                session.evictable = Some(request.node);
            }
        }
    }

    pub(super) fn ways_of_initialize(&self, request: Request, time: During) -> Vec<Came> {
        let is_away = self.fault_of_all().is_some();
        let Some(at_most) = self.world.at_most.filter(|_| request.user != User::Nobody) else {
            return vec![if is_away {
                Came::Refused(Refusal::Away)
            } else {
                Came::In
            }];
        };
        let under_way = self.under_way.values().filter(|pending| {
            pending.request.what == What::Initialize
                && pending.request.user == request.user
                && pending.request.node == request.node
                && pending.came == Came::In
        });
        let ahead = under_way.count() as u64;
        if is_away && ahead < at_most {
            return vec![Came::Refused(Refusal::Away)];
        }
        let (least, most) = self.count(Some(request.user), time);
        let mut ways = Vec::new();
        if least + ahead < at_most || self.may_evict(request) {
            ways.push(Came::In);
        }
        if most + self.limbo + ahead >= at_most {
            ways.push(Came::Refused(Refusal::Full));
        }
        ways
    }

    pub(super) fn answer_initialize(
        &mut self,
        number: u64,
        pending: Pending,
        seen: &Seen,
        time: During,
    ) -> Judgement {
        let Request {
            node, user, says, ..
        } = pending.request;
        let id = issued(number);
        match says {
            Says::Refused | Says::Broken | Says::Error => {
                if says == Says::Error {
                    self.tell(node, id, 1, 1);
                }
                let right = Seen {
                    status: status_of(says),
                    kind: None,
                    ids: Vec::new(),
                };
                ensure!(*seen == right, "answered {seen:?}, not {right:?}");
                return Ok(());
            }
            Says::Stray => {
                let kind = Some(RejectionKind::InvalidInnerId);
                ensure!(
                    (seen.status, seen.kind) == (500, kind),
                    "an ill-formed id: {seen:?}"
                );
                return Ok(());
            }
            Says::Result | Says::Silent => {}
        }
        let (least, most) = self.count(Some(user), time);
        let at_most = self.world.at_most.filter(|_| user != User::Nobody);
        let must_be_full = at_most.is_some_and(|at_most| least >= at_most);
        let must_be_full = must_be_full && !self.may_evict(pending.request);
        self.note_evictable(pending.request);
        let may_be_full = at_most.is_some_and(|at_most| most + self.limbo >= at_most);
        let fault = self.fault_of(Verbs::Create);
        if seen.kind.is_some() {
            let is_right = match seen.kind {
                Some(RejectionKind::StoreUnavailable) => fault.is_some(),
                Some(RejectionKind::Revoked) => pending.is_revoked,
                Some(RejectionKind::Full) => may_be_full,
                _ => false,
            };
            ensure!(is_right && seen.status == 503, "no session, and {seen:?}");
            ensure!(seen.ids.is_empty(), "a refusal brings an id: {seen:?}");
            if says != Says::Silent {
                self.tell(node, id, 1, 1);
            }
            self.limbo += u64::from(fault == Some(Fault::Lost));
            return Ok(());
        }
        let is_kept = fault.is_none() && !pending.is_revoked && !must_be_full;
        ensure!(is_kept, "a session that could not be created: {seen:?}");
        ensure!(
            seen.status == 200 && seen.ids.len() == 1,
            "no session: {seen:?}"
        );
        let is_layers = says == Says::Silent;
        ensure!(is_layers || seen.ids[0] == id, "another id: {seen:?}");
        self.create(seen.ids[0].clone(), pending, is_layers, time);
        Ok(())
    }

    fn create(&mut self, id: String, pending: Pending, is_layers: bool, time: During) {
        let Request {
            node, user, flow, ..
        } = pending.request;
        let after = |span: Duration| During {
            from: time.from + span,
            to: time.to + span,
        };
        let end_of_life = self.world.life.map(Duration::from_secs).map(after);
        let until = after(self.world.idle().min(NEWBORN));
        let is_lost = flow == Flow::Lost || pending.has_hung_up;
        let mut session = Known {
            id,
            owner: user,
            is_layers,
            node,
            born: time,
            until,
            end_of_life,
            lost: is_lost.then_some((time.from + UNDELIVERED, Loss::Certain)),
            doomed: None,
            owes_touch: false,
            evictable: None,
            claimed: None,
            end: None,
            on: Default::default(),
        };
        session.on[node] = On {
            was_here: true,
            was_created: true,
            ..On::default()
        };
        self.sessions.push(session);
    }
}

impl Known {
    fn may_go_for(&self, request: Request) -> bool {
        self.end.is_none() && self.owner == request.user && self.on[request.node].is_marked
    }
}

/// After this a session ends whose id nobody got.
const UNDELIVERED: Duration = Duration::from_secs(1);
