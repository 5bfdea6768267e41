//! Runs a story: one or two nodes, their inner services and their clients, in paused time, beside the reference.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::Response;
use mcp_session_layer::{
    CreationRates, MemoryStore, Principal, SessionEvent, SessionEvents, Sessions,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, advance, sleep},
};
use tower::Layer as _;

use self::look::is_over;
use crate::{
    inner::{Inner, InnerService},
    reference::{During, Judgement, Pending, Reference, Time, Whose, ensure},
    steps::{Fault, Step, Store, Story, Verbs, What, World},
    support::{
        layer::{SessionService, layer, user_header},
        sessions::reference,
        store::{self, AWAY, TestStore, VERBS},
    },
};

mod look;
mod requests;

struct Node {
    service: SessionService<InnerService>,
    sessions: Sessions,
    events: SessionEvents,
    inner: Arc<Inner>,
}

/// A client's request, under way.
type Call = JoinHandle<Response<Body>>;

struct Run {
    start: Instant,
    world: World,
    memory: MemoryStore,
    store: TestStore,
    nodes: Vec<Node>,
    reference: Reference,
    /// How many requests there were.
    number: u64,
    /// Requests under way, by number and node, and what is to come of each, if its client is still there.
    held: Vec<(u64, usize, Option<Call>)>,
    streams: Vec<(u64, usize, Body)>,
    /// Events that have come and were not looked at.
    heard: Vec<(usize, SessionEvent)>,
}

/// Runs a story to its end, and answers what is wrong.
pub(crate) async fn run(story: &Story) -> Judgement {
    let mut run = Run::new(story.world);
    for (nth, step) in story.steps.iter().enumerate() {
        let judged = run.step(*step).await;
        judged.map_err(|wrong| format!("step {nth}, {step:?}: {wrong}"))?;
    }
    let judged = run.finish().await;
    judged.map_err(|wrong| format!("at the end: {wrong}"))
}

impl Run {
    fn new(world: World) -> Self {
        let memory = MemoryStore::new();
        let store = TestStore::over(&memory);
        let store = match world.store {
            Store::Memory => store,
            Store::Shared => store.remote(),
            Store::Deaf => store.remote().without_feed(),
        };
        let mut run = Self {
            start: Instant::now(),
            world,
            memory,
            store,
            nodes: Vec::new(),
            reference: Reference::new(world),
            number: 0,
            held: Vec::new(),
            streams: Vec::new(),
            heard: Vec::new(),
        };
        run.nodes = (0..world.nodes()).map(|_| run.node()).collect();
        run
    }

    fn node(&self) -> Node {
        let world = self.world;
        let mut layer = layer(self.store.clone())
            .with_paths(["/mcp"])
            .with_principal(user_header)
            .with_idle_timeout(world.idle())
            .with_creation_rates(CreationRates::unlimited());
        if let Some(life) = world.life {
            layer = layer.with_max_lifetime(Duration::from_secs(life));
        }
        if world.claims {
            layer = layer.with_claim_on_login();
        }
        if let Some(at_most) = world.at_most {
            let at_most = at_most.try_into().expect("more than none");
            layer = layer
                .with_max_sessions_per_principal(at_most)
                .without_eviction();
        }
        let inner = Inner::new(&self.memory);
        Node {
            service: layer.layer(inner.service()),
            sessions: layer.sessions(),
            events: layer.sessions().subscribe(),
            inner,
        }
    }

    fn now(&self) -> Time {
        self.start.elapsed()
    }

    fn since(&self, from: Time) -> During {
        During {
            from,
            to: self.now(),
        }
    }

    async fn step(&mut self, step: Step) -> Judgement {
        let from = self.now();
        match step {
            Step::Send(request) => self.send(request, from).await?,
            Step::Release(nth) => {
                if let Some(nth) = pick(nth, self.held.len()) {
                    self.release(nth, from).await?;
                }
            }
            Step::HangUp(nth) => {
                if let Some(nth) = pick(nth, self.held.len()) {
                    self.hang_up(nth, from).await;
                }
            }
            Step::Close(nth) => {
                if let Some(nth) = pick(nth, self.streams.len()) {
                    let (number, _, body) = self.streams.swap_remove(nth);
                    drop(body);
                    self.reference.close(number, self.since(from));
                }
            }
            Step::Finish(nth) => {
                if let Some(nth) = pick(nth, self.streams.len()) {
                    let (number, node, mut body) = self.streams.swap_remove(nth);
                    self.nodes[node].inner.finish(number);
                    ensure!(is_over(&mut body)?, "a stream that has ended goes on");
                    self.reference.close(number, self.since(from));
                }
            }
            Step::End(node, session) => {
                if let Some(session) = pick(session, self.reference.sessions.len()) {
                    let node = node % self.nodes.len();
                    let id = reference(&self.reference.sessions[session].id);
                    let ended = self.nodes[node].sessions.end(&id).await.map_err(drop);
                    let time = self.since(from);
                    self.reference.revoke(node, session, ended, time)?;
                }
            }
            Step::EndOf(node, user) => self.end_all(node, Whose::Of(user), from).await?,
            Step::EndAll(node) => self.end_all(node, Whose::All, from).await?,
            Step::Wait(ms) => sleep(Duration::from_millis(ms)).await,
            Step::Edge(session, is_at) => {
                if let Some(session) = pick(session, self.reference.sessions.len()) {
                    let until = self.reference.sessions[session].until.from;
                    let before = if is_at { 0 } else { 1 };
                    let then = until.saturating_sub(Duration::from_millis(before));
                    sleep(then.saturating_sub(from)).await;
                }
            }
            Step::Sleep(ms) => advance(Duration::from_millis(ms)).await,
            Step::Disturb(verbs, fault) => {
                self.store.disturb(verbs.names(), fault.of_store());
                self.reference.disturb(verbs, fault);
            }
            Step::Recover => {
                self.store.recover();
                self.reference.recover(self.now());
            }
            Step::Forget(node) => {
                let node = node % self.nodes.len();
                let ids = self.reference.forget(node);
                self.nodes[node].inner.forget(ids);
            }
            Step::Remember(node) => {
                let node = node % self.nodes.len();
                self.reference.remember(node);
                self.nodes[node].inner.remember();
            }
            Step::Restart(node) => self.restart(node % self.nodes.len(), from).await,
        }
        match step {
            // What comes next comes at this very moment, before anybody looks.
            Step::Edge(..) => {}
            _ => sleep(Duration::from_millis(1)).await,
        }
        self.look(step, from).await
    }

    async fn end_all(&mut self, node: usize, whose: Whose, from: Time) -> Judgement {
        let node = node % self.nodes.len();
        let sessions = self.nodes[node].sessions.clone();
        let ended = match whose {
            Whose::Of(user) => {
                sessions
                    .end_of(user.name().map(Principal::new).as_ref())
                    .await
            }
            Whose::All => sessions.end_all().await,
        };
        let ended = ended.expect("the directory has no faults");
        self.reference
            .revoke_all(node, whose, ended, self.since(from))
    }

    async fn restart(&mut self, node: usize, from: Time) {
        // What goes on by itself would go on in the process that is to be dead.
        let runs_on = |pending: &Pending| {
            pending.request.node == node
                && matches!(pending.request.what, What::Initialize | What::Delete(_))
        };
        if self.reference.under_way.values().any(runs_on) {
            return;
        }
        self.streams.retain(|(_, at, _)| *at != node);
        for (_, _, call) in self.held.extract_if(.., |(_, at, _)| *at == node) {
            if let Some(call) = call {
                call.abort();
                let _ = call.await;
            }
        }
        self.heard.retain(|(at, _)| *at != node);
        self.nodes[node] = self.node();
        self.reference.restart(node, self.since(from));
    }

    /// Nothing is wrong any more, everybody gets an answer, and all sessions run out.
    async fn finish(&mut self) -> Judgement {
        self.step(Step::Recover).await?;
        for node in 0..self.nodes.len() {
            self.step(Step::Remember(node)).await?;
        }
        while !self.held.is_empty() {
            self.step(Step::Release(0)).await?;
        }
        while !self.streams.is_empty() {
            self.step(Step::Close(0)).await?;
        }
        self.step(Step::Wait(20_000)).await?;
        let all = self.world.idle * 2 + 120;
        self.step(Step::Wait(all * 1_000)).await?;
        self.reference.finish()
    }
}

impl Verbs {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::All => VERBS,
            Self::Touch => &["touch"],
            Self::Create => &["create"],
            Self::Delete => &["delete"],
            Self::Expire => &["expire"],
        }
    }
}

impl Fault {
    fn of_store(self) -> store::Fault {
        match self {
            Self::Away => AWAY,
            Self::Lost => store::Fault::FailsAfterEffect,
            Self::Hangs => store::Fault::Hangs,
        }
    }
}

/// One of so many.
fn pick(number: usize, of: usize) -> Option<usize> {
    (of > 0).then(|| number % of)
}
