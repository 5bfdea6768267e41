//! Sends requests, and takes or drops their answers.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::Response;
use http_body_util::BodyExt as _;
use mcp_session_layer::SessionEvent;
use tokio::time::sleep;
use tower::ServiceExt as _;

use super::{Run, pick};
use crate::{
    inner::{Orders, issued},
    reference::{Judgement, Seen, Time, ensure},
    steps::{Flow, Request, Says, What},
    support::{
        answers::{kind_of, lines},
        requests::{self, as_user, with_header},
        sessions::reference,
    },
};

impl Run {
    /// The request as it can be made now. `None` if it would have to wait for another one.
    fn possible(&self, mut request: Request) -> Option<Request> {
        request.node %= self.nodes.len();
        if let Some(session) = request.what.session() {
            let Some(index) = pick(session, self.reference.sessions.len()) else {
                request.what = What::Unknown;
                return Some(request);
            };
            request.what = request.what.of(index);
            if request.is_owners {
                request.user = self.reference.sessions[index].owner;
            }
            if self.would_wait(request, index) {
                return None;
            }
        }
        Some(request)
    }

    fn would_wait(&self, request: Request, index: usize) -> bool {
        let on = &self.reference.sessions[index].on[request.node];
        let has_doubts = on.is_forgotten || matches!(request.what, What::Delete(_));
        has_doubts && self.reference.is_being_ended(request.node, index)
    }

    pub(super) async fn send(&mut self, request: Request, from: Time) -> Judgement {
        let Some(request) = self.possible(request) else {
            return Ok(());
        };
        self.number += 1;
        let number = self.number;
        let node = &self.nodes[request.node];
        let call = node.service.clone().oneshot(self.of(request, number));
        let mut call = tokio::spawn(async move { call.await.expect("it never fails") });
        let inner = Arc::clone(&node.inner);
        let is_held = request.flow == Flow::Held;
        let answer = tokio::select! {
            answer = &mut call => Some(answer.expect("it does not panic")),
            () = inner.until_reached(number), if is_held => None,
        };
        let reached = inner.reached(number);
        self.reference
            .arrive(number, request, reached.as_ref(), self.since(from))?;
        match answer {
            Some(answer) => self.take(number, request, answer, from).await,
            None => {
                self.held.push((number, request.node, Some(call)));
                Ok(())
            }
        }
    }

    /// Takes an answer.
    async fn take(
        &mut self,
        number: u64,
        request: Request,
        response: Response<Body>,
        from: Time,
    ) -> Judgement {
        let seen = Seen {
            status: response.status().as_u16(),
            kind: kind_of(&response),
            ids: lines(response.headers(), "mcp-session-id"),
        };
        let is_stream = lines(response.headers(), "content-type") == ["text/event-stream"];
        if request.flow == Flow::Lost {
            drop(response);
        } else if is_stream {
            self.streams
                .push((number, request.node, response.into_body()));
        } else {
            let body = response.into_body().collect().await;
            ensure!(body.is_ok(), "half an answer");
        }
        self.reference.answer(number, &seen, self.since(from))?;
        if request.flow == Flow::Lost {
            self.reference.close(number, self.since(from));
        }
        Ok(())
    }

    /// Lets the inner service answer a request that it held, unless that would wait for another one, or too much might come of it.
    pub(super) async fn release(&mut self, nth: usize, from: Time) -> Judgement {
        let (number, node, _) = self.held[nth];
        let pending = self.reference.under_way[&number];
        let request = pending.request;
        if let Some(index) = request.what.session()
            && !matches!(request.what, What::Modern(_) | What::Aside(_))
        {
            let session = &self.reference.sessions[index];
            let is_delete = matches!(request.what, What::Delete(_));
            let would_wait = !is_delete && self.would_wait(request, index);
            let is_open = pending.has_hung_up || session.is_strange(node);
            if session.on[node].is_forgotten && (would_wait || is_open) {
                return Ok(());
            }
        }
        let (_, _, call) = self.held.swap_remove(nth);
        self.nodes[node].inner.release(number);
        match call {
            Some(call) => {
                let answer = call.await.expect("it does not panic");
                self.take(number, request, answer, from).await
            }
            None => self.release_orphan(number, from).await,
        }
    }

    /// A request whose client has gone is answered all the same.
    async fn release_orphan(&mut self, number: u64, from: Time) -> Judgement {
        // Longer than any time limit.
        let limit = Duration::from_millis(if self.reference.has_fault() { 7_000 } else { 1 });
        sleep(limit).await;
        let node = self.reference.under_way[&number].request.node;
        let born = reference(&issued(number));
        self.drain(node);
        let is_created = self.heard.iter().any(|(_, event)| {
            matches!(event, SessionEvent::Created { reference, .. } if *reference == born)
        });
        self.reference
            .answer_nobody(number, is_created, self.since(from))
    }

    pub(super) async fn hang_up(&mut self, nth: usize, from: Time) {
        let (number, _, call) = &mut self.held[nth];
        let number = *number;
        let request = self.reference.under_way[&number].request;
        let runs_on = matches!(request.what, What::Initialize | What::Delete(_));
        if runs_on && request.says != Says::Result {
            return;
        }
        let Some(call) = call.take() else {
            return;
        };
        call.abort();
        let _ = call.await;
        self.reference.hang_up(number, self.since(from));
        if !runs_on {
            self.held.swap_remove(nth);
        }
    }

    fn of(&self, request: Request, number: u64) -> http::Request<Body> {
        let id = request
            .what
            .session()
            .map(|index| &*self.reference.sessions[index].id);
        let id = id.unwrap_or("nobodys");
        let mut sent = match request.what {
            What::Initialize => requests::initialize(),
            What::Open(_) => requests::get(id),
            What::Delete(_) => requests::delete(id),
            What::Modern(_) => {
                with_header(requests::post(id), "mcp-protocol-version", "2026-07-28")
            }
            _ => requests::post(id),
        };
        match request.what {
            What::Aside(_) => *sent.uri_mut() = "/elsewhere".parse().expect("a path"),
            What::Bare => drop(sent.headers_mut().remove("mcp-session-id")),
            What::Doubled(_) => {
                let again = id.parse().expect("an id");
                sent.headers_mut().append("mcp-session-id", again);
            }
            _ => {}
        }
        if let Some(name) = request.user.name() {
            sent = as_user(sent, name);
        }
        sent.extensions_mut().insert(Orders {
            number,
            says: request.says,
            flow: request.flow,
        });
        sent
    }
}
