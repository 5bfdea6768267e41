//! A stream that a client holds open for as long as its session lives.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{body::Body, http::Method};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::client::{Client, Live};

/// It is opened again as often as the store is away, and complains if it ends before its session does.
pub(crate) struct Stream {
    /// Its session is about to be ended.
    may_end: Arc<AtomicBool>,
    is_open: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Stream {
    pub(crate) fn open(client: &Client, node: usize, session: &Live) -> Self {
        let (may_end, is_open) = (Arc::default(), Arc::default());
        let listening = listen(
            client.clone(),
            node,
            session.clone(),
            Arc::clone(&may_end),
            Arc::clone(&is_open),
        );
        Self {
            may_end,
            is_open,
            task: tokio::spawn(listening),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Relaxed) && !self.task.is_finished()
    }

    pub(crate) async fn is_open_by(&self, until: Instant) -> bool {
        while !self.is_open() && Instant::now() < until {
            sleep(Duration::from_millis(10)).await;
        }
        self.is_open()
    }

    pub(crate) fn may_end(&self) {
        self.may_end.store(true, Relaxed);
    }

    /// Once its session has ended. It ends with it, although it may be open on another node.
    pub(crate) async fn ended(mut self, client: &Client) {
        let since = Instant::now();
        let is_away = client.judge().is_away();
        if timeout(AT_LAST, &mut self.task).await.is_err() {
            self.task.abort();
            let what = format!("a stream goes on {AT_LAST:?} after the end of its session");
            client.judge().unexpected(what);
        } else if since.elapsed() > SOON && !is_away && !client.judge().is_away() {
            let took = since.elapsed();
            client
                .judge()
                .unexpected(format!("a stream ended {took:?} after its session"));
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(
    client: Client,
    node: usize,
    session: Live,
    may_end: Arc<AtomicBool>,
    is_open: Arc<AtomicBool>,
) {
    loop {
        let request = client.on(node, Method::GET, &session.id, &session.user, Body::empty());
        let was_away = client.judge().is_away();
        let answer = client.head(request).await;
        let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
        client.judge().count("stream", status);
        match answer {
            Ok(answer) if status == 200 => {
                is_open.store(true, Relaxed);
                read(answer.into_body(), &client, &session).await;
                is_open.store(false, Relaxed);
            }
            // Its session may have ended before it was open.
            _ if may_end.load(Relaxed) => return,
            _ if status == 503 && (was_away || client.judge().is_away()) => {}
            answer => return client.judge().unexpected(format!("stream: {answer:?}")),
        }
        if may_end.load(Relaxed) {
            return;
        }
        if status == 200 {
            let what = "a stream ended before its session".to_owned();
            client.judge().unexpected(what);
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Reads until the end. Each event has to be the session's own.
async fn read(mut body: Incoming, client: &Client, session: &Live) {
    let expected = format!("data: {}\n\n", session.name);
    while let Some(Ok(frame)) = body.frame().await {
        let data = frame.into_data().unwrap_or_default();
        if !data.is_empty() && data != expected.as_bytes() {
            client.judge().unexpected(format!("a stream said {data:?}"));
        }
    }
}

/// Streams end within a second of their session; the machine may be busy.
const SOON: Duration = Duration::from_secs(3);
const AT_LAST: Duration = Duration::from_secs(30);
