//! Compares all that can be seen.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use axum::body::Body;
use futures_util::FutureExt as _;
use http_body::Body as _;
use mcp_session_layer::{Principal, SessionEvent, SessionRef, SessionStore as _};

use super::Run;
use crate::{
    reference::{During, Judgement, Row, Time, ensure},
    steps::Step,
    support::sessions::{reference, session_id},
};

impl Run {
    /// Compares all that can be seen.
    pub(super) async fn look(&mut self, step: Step, from: Time) -> Judgement {
        let time = self.since(from);
        self.reference.pass(time, matches!(step, Step::Sleep(_)));
        let mut live = 0;
        for index in 0..self.reference.sessions.len() {
            let id = session_id(&self.reference.sessions[index].id);
            let found = self.memory.load(&id).await.expect("it has no faults");
            let row = found.map(|found| Row {
                principal: found
                    .session
                    .owner()
                    .principal
                    .as_ref()
                    .map(Principal::to_string),
                until: time.to + found.idle_left,
                end_of_life: found.life_left.map(|left| time.to + left),
            });
            live += u64::from(row.is_some());
            self.reference.observe(index, row.as_ref(), time.to)?;
        }
        // To count them clears away what has expired, and the next request is to find it as it is.
        if !matches!(step, Step::Edge(..)) {
            let all = self.nodes[0]
                .sessions
                .count()
                .await
                .expect("it has no faults");
            self.reference.observe_others(all - live, time)?;
        }
        let now = During {
            from: time.to,
            to: time.to,
        };
        let mut open = Vec::new();
        for (number, node, mut body) in std::mem::take(&mut self.streams) {
            let is_over = is_over(&mut body)?;
            self.reference.see_stream(number, is_over, now)?;
            let has_body = self.nodes[node].inner.has_body(number);
            ensure!(has_body != is_over, "a stream is over, and its body is not");
            if is_over {
                self.reference.close(number, now);
            } else {
                open.push((number, node, body));
            }
        }
        self.streams = open;
        for node in 0..self.nodes.len() {
            self.hear(node, time)?;
        }
        Ok(())
    }

    fn hear(&mut self, node: usize, time: During) -> Judgement {
        self.drain(node);
        for (node, event) in std::mem::take(&mut self.heard) {
            match event {
                SessionEvent::Created { reference, .. } => {
                    let index = self.index_of(&reference);
                    self.reference.hear_created(node, index)?;
                }
                SessionEvent::Ended { reference, reason } => {
                    let index = self.index_of(&reference);
                    self.reference.hear_ended(node, index, reason, time)?;
                }
                event => return Err(format!("{event:?}")),
            }
        }
        let inner = Arc::clone(&self.nodes[node].inner);
        for (id, is_live) in inner.take_told() {
            self.reference.hear_tell(node, &id, is_live)?;
        }
        let wrong = inner.take_wrong();
        ensure!(wrong.is_empty(), "{wrong:?}");
        Ok(())
    }

    pub(super) fn drain(&mut self, node: usize) {
        while let Some(Some(event)) = self.nodes[node].events.next().now_or_never() {
            self.heard.push((node, event));
        }
    }

    fn index_of(&self, meant: &SessionRef) -> Option<usize> {
        let sessions = &self.reference.sessions;
        sessions
            .iter()
            .position(|session| reference(&session.id) == *meant)
    }
}

/// Whether a stream has ended. Events are none of ours.
pub(super) fn is_over(body: &mut Body) -> Result<bool, String> {
    let mut context = Context::from_waker(Waker::noop());
    match Pin::new(body).poll_frame(&mut context) {
        Poll::Pending => Ok(false),
        Poll::Ready(None) => Ok(true),
        Poll::Ready(Some(frame)) => Err(format!("out of a stream came {frame:?}")),
    }
}
