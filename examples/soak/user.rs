//! A client that creates sessions, uses them, ends them, and tries what is not its own.

use std::{collections::VecDeque, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, Method},
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::{
    Options,
    client::{Answer, CALL, Client, Live},
    judge::Outcome,
    load::CLIENTS,
    stream::Stream,
};

/// One that has sessions which nobody else uses, so that it knows what each has to be answered.
pub(crate) struct User {
    client: Client,
    number: usize,
    /// How many sessions it is to have, and streams.
    sessions: usize,
    streams: usize,
    pause: Option<Duration>,
    pub(crate) live: Vec<(Live, Option<Stream>)>,
    ended: VecDeque<Live>,
    created: usize,
}

impl User {
    pub(crate) fn new(number: usize, client: &Client, options: &Options) -> Self {
        let share = |all: usize| all / CLIENTS + usize::from(number < all % CLIENTS);
        let pause = (options.rate > 0)
            .then(|| Duration::from_secs_f64(CLIENTS as f64 / f64::from(options.rate)));
        Self {
            client: client.clone(),
            number,
            sessions: share(options.sessions),
            streams: share(options.streams),
            pause,
            live: Vec::new(),
            ended: VecDeque::new(),
            created: 0,
        }
    }

    pub(crate) async fn create(mut self) -> Self {
        while self.live.len() < self.sessions {
            let has_stream = self.live.len() < self.streams;
            self.add(has_stream).await;
        }
        self.expect_open_streams("a stream does not open").await;
        self
    }

    /// One more session, which every node has seen then.
    async fn add(&mut self, has_stream: bool) {
        let nth = self.created;
        self.created += 1;
        let name = format!("session {nth} of client {}", self.number);
        // Each principal may create 1,000 at once.
        let user = format!("user {}", (self.number * 16) + nth % 16);
        let Some(session) = self.client.open(nth, name, &user).await else {
            return;
        };
        self.client.initialized(nth, &session).await;
        for node in 1..self.client.nodes() {
            self.client.call(nth + node, &session).await;
        }
        let stream = has_stream.then(|| Stream::open(&self.client, nth / 2, &session));
        self.live.push((session, stream));
    }

    pub(crate) async fn work(mut self, until: Instant) -> Self {
        let mut pace = self.pause.map(interval);
        if let Some(pace) = &mut pace {
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut step = self.number;
        while Instant::now() < until {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            step += 1;
            self.act(step).await;
        }
        // What was refused while the store was away.
        while self.live.len() < self.sessions {
            self.add(false).await;
        }
        self
    }

    /// Of a hundred requests 80 are calls.
    async fn act(&mut self, step: usize) {
        // Steps of a prime pass all sessions by.
        let at = (step * 7919) % self.live.len();
        let (session, _) = &self.live[at];
        let outcome = match step % 100 {
            0..80 => self.client.call(step, session).await,
            80..84 => {
                let unknown =
                    HeaderValue::try_from(uuid::Uuid::new_v4().to_string()).expect("an id");
                self.call_nothing("unknown id", step, &unknown, &session.user)
                    .await
            }
            84..88 => match self.ended.get(step % self.ended.len().max(1)) {
                Some(ended) => {
                    self.call_nothing("ended id", step, &ended.id, &ended.user)
                        .await
                }
                None => return,
            },
            88..92 => {
                self.call_nothing("stranger", step, &session.id, "a stranger")
                    .await
            }
            92..94 => {
                let request = self.client.request(step, Method::POST, CALL);
                self.client.expect("no id", 400, request).await
            }
            94.. => {
                if self.live.len() >= self.sessions {
                    self.end(at, step).await;
                }
                if self.live.len() < self.sessions {
                    let has_stream = self.has_stream_to_spare();
                    self.add(has_stream).await;
                }
                return;
            }
        };
        if let Outcome::Wrong(None) = outcome {
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn has_stream_to_spare(&self) -> bool {
        let streams = self.live.iter().filter(|(_, stream)| stream.is_some());
        streams.count() < self.streams
    }

    /// Ends a session: once. From then on it is not there, and its stream ends with it.
    async fn end(&mut self, at: usize, step: usize) {
        let (session, stream) = self.live.swap_remove(at);
        if let Some(stream) = &stream {
            stream.may_end();
        }
        let delete = |node| {
            let (id, user) = (&session.id, &session.user);
            self.client
                .on(node, Method::DELETE, id, user, Body::empty())
        };
        // What was told "later" may have been done.
        let mut is_told_later = false;
        loop {
            let judge = self.client.judge();
            let is_right = |answer: &Answer| match answer.status {
                404 => is_told_later || judge.is_away(),
                status => (200..300).contains(&status),
            };
            match self.client.send("end", delete(step), is_right).await {
                Outcome::Right(_) => break,
                Outcome::Away => is_told_later = true,
                Outcome::Wrong(_) => return,
            }
            sleep(Duration::from_millis(200)).await;
        }
        self.client.expect("end again", 404, delete(step + 1)).await;
        if let Some(stream) = stream {
            stream.ended(&self.client).await;
        }
        self.ended.push_back(session);
        if self.ended.len() > ENDED {
            self.ended.pop_front();
        }
    }

    /// Looks at everything once more, on every node.
    pub(crate) async fn look(self) -> Self {
        for node in 0..self.client.nodes() {
            for (session, _) in &self.live {
                self.client.call(node, session).await;
            }
            for ended in &self.ended {
                self.call_nothing("ended id", node, &ended.id, &ended.user)
                    .await;
            }
        }
        self.expect_open_streams("a stream is not open at last")
            .await;
        self
    }

    async fn expect_open_streams(&self, otherwise: &str) {
        let until = Instant::now() + PATIENCE;
        for stream in self.live.iter().filter_map(|(_, stream)| stream.as_ref()) {
            if !stream.is_open_by(until).await {
                self.client.judge().unexpected(otherwise.to_owned());
            }
        }
    }

    /// A call on what is not there, or not this user's.
    async fn call_nothing(
        &self,
        what: &'static str,
        node: usize,
        id: &HeaderValue,
        user: &str,
    ) -> Outcome {
        let request = self.client.on(node, Method::POST, id, user, CALL);
        self.client.expect(what, 404, request).await
    }
}

/// How long streams may take to be open.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many sessions that have ended each remembers.
const ENDED: usize = 1000;
