//! Answers: what a request that came to the inner service, or did not, is answered.

use std::time::Duration;

use mcp_session_layer::{RejectionKind, store::EndReason};

use super::{Came, During, End, Judgement, Open, Pending, Reference, ensure};
use crate::{
    inner::{issued, stray},
    steps::{Fault, Flow, Request, Says, User, Verbs, What},
};

/// An answer as its client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) kind: Option<RejectionKind>,
    pub(crate) ids: Vec<String>,
}

impl Reference {
    /// The answer to a request has come.
    pub(crate) fn answer(&mut self, number: u64, seen: &Seen, time: During) -> Judgement {
        let pending = self.under_way.remove(&number).expect("a request");
        let judged = match (pending.came, pending.session) {
            (Came::Refused(why), _) => {
                ensure!(why.is(seen), "refused as {seen:?}, not for {why:?}");
                ensure!(seen.ids.is_empty(), "a refusal brings an id: {seen:?}");
                Ok(())
            }
            (Came::In, Some(index)) => self.answer_on(number, index, pending, seen, time),
            (Came::In, None) if pending.request.what == What::Initialize => {
                self.answer_initialize(number, pending, seen, time)
            }
            (Came::In, None) => self.answer_beside(number, pending.request, seen),
        };
        if let (Some(index), Came::In) = (pending.session, pending.came)
            && pending.request.flow == Flow::Held
        {
            self.end_use(index, pending.request.node, pending.begun, time);
        }
        judged
    }

    /// A request whose client has gone is answered all the same. `is_created`: a session was announced.
    pub(crate) fn answer_nobody(
        &mut self,
        number: u64,
        is_created: bool,
        time: During,
    ) -> Judgement {
        use RejectionKind::*;
        let pending = self.under_way[&number];
        let (status, kind) = match pending.session {
            Some(_) if self.fault_of(Verbs::Delete).is_some() => (503, Some(StoreUnavailable)),
            Some(index) if self.sessions[index].may(time).0 => (204, None),
            Some(_) => (404, Some(Unknown)),
            None if is_created => (200, None),
            None if self.fault_of(Verbs::Create).is_some() => (503, Some(StoreUnavailable)),
            None if pending.is_revoked => (503, Some(Revoked)),
            None => (503, Some(Full)),
        };
        let ids = is_created.then(|| issued(number)).into_iter().collect();
        self.answer(number, &Seen { status, kind, ids }, time)
    }

    /// To a request that has nothing to do with sessions.
    fn answer_beside(&mut self, number: u64, request: Request, seen: &Seen) -> Judgement {
        let status = status_of(request.says);
        let mut ids = Vec::new();
        if status == 200 && request.says != Says::Silent {
            match (request.what, request.says) {
                (What::Aside(_), Says::Stray) => ids.push(stray(number)),
                (What::Aside(index), _) => ids.push(self.sessions[index].id.clone()),
                (_, Says::Stray) => {}
                // Removed, and taken back.
                _ => self.tell(request.node, issued(number), 1, 1),
            }
        }
        let right = (status, None, ids);
        let seen = (seen.status, seen.kind, seen.ids.clone());
        ensure!(seen == right, "answered {seen:?}, not {right:?}");
        Ok(())
    }

    fn answer_on(
        &mut self,
        number: u64,
        index: usize,
        pending: Pending,
        seen: &Seen,
        time: During,
    ) -> Judgement {
        let Request { node, says, .. } = pending.request;
        if pending.is_delete() {
            return self.answer_delete(index, pending.request, seen, time);
        }
        let is_stream = matches!(pending.request.what, What::Open(_));
        let (knows_end, may_not_know) = self.knows_end(index, node, time);
        let session = &mut self.sessions[index];
        let is_forgotten = !session.is_layers && session.on[node].is_forgotten;
        let status = if is_forgotten { 404 } else { status_of(says) };
        if status >= 400 {
            return self.answer_failed(index, node, status, seen, time);
        }
        session.on[node].is_served = true;
        session.on[node].is_marked = false;
        let echo = match says {
            Says::Result | Says::Error if !session.is_layers => vec![session.id.clone()],
            // The layer issued it, so the inner service issues another.
            Says::Result | Says::Error => {
                self.tell(node, issued(number), 1, 1);
                Vec::new()
            }
            Says::Stray if !session.is_layers => {
                self.tell(node, stray(number), 1, 1);
                Vec::new()
            }
            _ => Vec::new(),
        };
        let session = &self.sessions[index];
        if is_stream && seen.status == 404 {
            let is_taken = session.claimed.is_some() && !pending.begun.is_claimed;
            let is_right = match seen.kind {
                Some(RejectionKind::Ended) => knows_end,
                Some(RejectionKind::Unknown) => is_taken,
                _ => false,
            };
            ensure!(is_right && seen.ids.is_empty(), "no stream, and {seen:?}");
            return Ok(());
        }
        if is_stream {
            let is_taken = session.on[node].knows_claim && !pending.begun.is_claimed;
            ensure!(
                may_not_know && !is_taken,
                "a stream of a session that is gone"
            );
        }
        let right = Seen {
            status,
            kind: None,
            ids: echo,
        };
        ensure!(*seen == right, "answered {seen:?}, not {right:?}");
        if is_stream {
            let stream = Open {
                node,
                session: index,
                begun: pending.begun,
                is_over: false,
            };
            self.streams.insert(number, stream);
        }
        Ok(())
    }

    /// The inner service's answer was an error.
    fn answer_failed(
        &mut self,
        index: usize,
        node: usize,
        status: u16,
        seen: &Seen,
        time: During,
    ) -> Judgement {
        let (knows_end, may_not_know) = self.knows_end(index, node, time);
        let session = &mut self.sessions[index];
        let on = &mut session.on[node];
        ensure!(seen.ids.is_empty(), "an error brings an id: {seen:?}");
        match seen.kind {
            Some(RejectionKind::Ended) => {
                ensure!(knows_end && seen.status == 404, "ended: {seen:?}");
            }
            Some(RejectionKind::InnerGone) => {
                let is_repeated = time.from < on.gone_until;
                ensure!(
                    may_not_know && seen.status == 404 && !session.is_layers,
                    "gone inside: {seen:?}"
                );
                ensure!(on.is_forgotten || is_repeated, "the inner service knows it");
                on.gone_until = time.to + VERDICT;
                let is_believed = session.owner != User::Nobody || on.was_created;
                match is_believed && (on.was_created || on.is_served) {
                    true => self.end_by(index, node, EndReason::InnerGone, time),
                    false => on.is_marked = true,
                }
            }
            None => {
                let is_known = session.is_layers || !on.is_forgotten || time.from < on.lives_until;
                ensure!(
                    may_not_know && is_known,
                    "relayed, of a session that is gone: {seen:?}"
                );
                ensure!(seen.status == status, "{} instead of {status}", seen.status);
                on.lives_until = time.to + VERDICT;
            }
            _ => return Err(format!("the inner service failed, and {seen:?}")),
        }
        Ok(())
    }

    fn answer_delete(
        &mut self,
        index: usize,
        request: Request,
        seen: &Seen,
        time: During,
    ) -> Judgement {
        let Request { node, says, .. } = request;
        let session = &mut self.sessions[index];
        let is_forgotten = !session.is_layers && session.on[node].is_forgotten;
        let status = match says {
            _ if session.is_layers => 204,
            _ if is_forgotten => 404,
            Says::Refused => 405,
            Says::Broken => 500,
            _ => 204,
        };
        if status >= 500 || status == 405 {
            return self.answer_failed(index, node, status, seen, time);
        }
        let (is_live, may_be_over) = session.may(time);
        let on = &mut session.on[node];
        let is_believed = session.owner != User::Nobody || on.was_created;
        let has_served = on.was_created || on.is_served;
        let is_of_others = matches!(seen.kind, None | Some(RejectionKind::Ended));
        if status == 404 && (is_of_others || !is_believed) {
            let is_done = seen.status == 204 && is_believed && !has_served && is_live;
            if !is_done {
                return self.answer_failed(index, node, status, seen, time);
            }
        }
        on.inner_knows_end = true;
        let (is_layers, has_ended) = (session.is_layers, session.end.is_some());
        let fault = self.fault_of(Verbs::Delete);
        if has_ended {
            self.may_not_tell(index, node);
        }
        ensure!(seen.ids.is_empty(), "the id of nothing: {seen:?}");
        match (seen.status, seen.kind) {
            (204, None) | (404, Some(RejectionKind::InnerGone)) => {
                ensure!(fault.is_none() && is_live, "deleted: {seen:?}");
                let is_gone = seen.status == 404;
                ensure!(
                    is_gone == (status == 404 && has_served),
                    "deleted as {seen:?}"
                );
            }
            (404, Some(RejectionKind::Unknown | RejectionKind::Ended)) if is_layers => {
                ensure!(may_be_over, "it was there: {seen:?}");
                return Ok(());
            }
            (404, Some(RejectionKind::Unknown)) => {
                ensure!(fault.is_none() && may_be_over, "it was there: {seen:?}");
                return Ok(());
            }
            (503, Some(RejectionKind::StoreUnavailable)) => {
                ensure!(fault.is_some(), "the store was there: {seen:?}");
            }
            _ => return Err(format!("a DELETE is answered with {seen:?}")),
        }
        self.end_by(index, node, EndReason::Deleted, time);
        Ok(())
    }

    /// A node ends a session, if it can.
    pub(super) fn end_by(&mut self, index: usize, node: usize, reason: EndReason, time: During) {
        let end = End {
            at: time,
            reasons: vec![reason],
            by: Some(node),
        };
        let fault = self.fault_of(Verbs::Delete);
        let session = &mut self.sessions[index];
        match fault {
            Some(Fault::Away | Fault::Hangs) if session.end.is_none() => {
                session.doomed = Some(reason);
                session.on[node].is_refused = true;
                self.expect_tell(index, node);
            }
            _ => self.end_session(index, end),
        }
    }
}

/// The inner service's status.
pub(super) fn status_of(says: Says) -> u16 {
    match says {
        Says::Refused => 404,
        Says::Broken => 500,
        Says::Result | Says::Silent | Says::Error | Says::Stray => 200,
    }
}

/// For so long the inner service is not asked again.
const VERDICT: Duration = Duration::from_secs(2);
