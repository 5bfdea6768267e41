//! The ends of sessions, heard on one connection for all subscribers of a store.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, OnceLock, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use ::redis::{
    Client, RedisResult,
    aio::{PubSubSink, PubSubStream},
};
use futures_core::Stream;
use tokio::{
    runtime::Handle,
    sync::broadcast::{Receiver, Sender, error::RecvError},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::fields::reference;
use crate::{
    store::{BoxFuture, EndReason, Feed, FeedEvent},
    sync::Mutex,
};

/// The listener of a store, while anybody subscribes.
#[derive(Default)]
pub(super) struct Ends(Mutex<Weak<Listener>>);

impl Ends {
    pub(super) fn subscribe(&self, client: &Client, channel: String) -> Feed {
        let mut current = self.0.lock();
        let listener = current.upgrade().unwrap_or_else(|| {
            let listener = Arc::new(Listener {
                client: client.clone(),
                channel,
                events: Sender::new(BACKLOG),
                task: OnceLock::new(),
            });
            *current = Arc::downgrade(&listener);
            listener
        });
        // Outside a runtime the first poll starts it.
        if Handle::try_current().is_ok() {
            listener.start();
        }
        Box::pin(Subscription {
            next: Box::pin(next(listener.events.subscribe())),
            listener,
        })
    }
}

/// The connection that listens. The last subscription to go takes it along.
struct Listener {
    client: Client,
    channel: String,
    events: Sender<FeedEvent>,
    task: OnceLock<JoinHandle<()>>,
}

impl Listener {
    fn start(&self) {
        self.task.get_or_init(|| {
            let (client, channel, events) = (
                self.client.clone(),
                self.channel.clone(),
                self.events.clone(),
            );
            tokio::spawn(async move {
                let mut heard = Instant::now();
                loop {
                    let listening = listen(&client, &channel, &events, &mut heard);
                    if let Err(error) = listening.await {
                        tracing::debug!(%error, "not listening for the ends of sessions");
                    }
                    // The server that is listened to may be away for long, and the sessions not: those of a cluster are
                    // elsewhere. While nothing is heard, asking is all there is.
                    if heard.elapsed() > DEAF_FOR {
                        heard = Instant::now();
                        let _ = events.send(FeedEvent::Gap);
                    }
                    sleep(RECONNECT_DELAY).await;
                }
            })
        });
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

struct Subscription {
    next: BoxFuture<'static, (FeedEvent, Receiver<FeedEvent>)>,
    listener: Arc<Listener>,
}

impl Stream for Subscription {
    type Item = FeedEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FeedEvent>> {
        self.listener.start();
        let (event, events) = ready!(self.next.as_mut().poll(cx));
        self.next = Box::pin(next(events));
        Poll::Ready(Some(event))
    }
}

async fn next(mut events: Receiver<FeedEvent>) -> (FeedEvent, Receiver<FeedEvent>) {
    let event = match events.recv().await {
        Ok(event) => event,
        Err(RecvError::Lagged(_)) => FeedEvent::Gap,
        Err(RecvError::Closed) => unreachable!("a subscription keeps its listener's sender"),
    };
    (event, events)
}

/// Listens on one connection until it is lost. `heard` is when it was last known to hear.
async fn listen(
    client: &Client,
    channel: &str,
    events: &Sender<FeedEvent>,
    heard: &mut Instant,
) -> RedisResult<()> {
    let subscribe = async {
        let (mut sink, stream) = client.get_async_pubsub().await?.split();
        sink.subscribe(channel).await?;
        Ok((sink, stream))
    };
    let (mut sink, mut stream) = limited(subscribe).await?;
    // What ended before this was not heard, the first time too: a feed may be older than its subscription.
    let _ = events.send(FeedEvent::Gap);
    loop {
        *heard = Instant::now();
        match timeout(PING_AFTER, message(&mut stream)).await {
            Ok(Some(event)) => {
                let _ = events.send(event);
            }
            Ok(None) => return Ok(()),
            // A connection whose other side is gone is silent, as an idle one is. Only an answer tells them apart.
            Err(_) => limited(ping(&mut sink)).await?,
        }
    }
}

async fn ping(sink: &mut PubSubSink) -> RedisResult<()> {
    sink.ping::<::redis::Value>().await.map(drop)
}

/// The next message. One that is not ours to read is a gap.
async fn message(stream: &mut PubSubStream) -> Option<FeedEvent> {
    let message = poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await?;
    Some(ended(message.get_payload_bytes()).unwrap_or(FeedEvent::Gap))
}

/// Reads a message: the reference, a colon, the reason, or that it was changed.
fn ended(message: &[u8]) -> Option<FeedEvent> {
    let (name, reason) = std::str::from_utf8(message).ok()?.split_once(':')?;
    let reference = reference(name)?;
    if reason == "changed" {
        return Some(FeedEvent::Changed { reference });
    }
    Some(FeedEvent::Ended {
        reference,
        reason: EndReason::from_name(reason)?,
    })
}

async fn limited<T>(call: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    timeout(ANSWER_LIMIT, call)
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
}

/// How far a subscriber may fall behind before it is told of a gap.
const BACKLOG: usize = 1024;
const PING_AFTER: Duration = Duration::from_secs(2);
/// How often subscribers are told that nothing is heard.
const DEAF_FOR: Duration = Duration::from_secs(6);
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const RECONNECT_DELAY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_not_ours_is_none() {
        let name = "0a".repeat(32);
        assert!(ended(format!("{name}:deleted").as_bytes()).is_some());
        for message in ["", ":", "x:deleted", &name, &format!("{name}:tired")] {
            assert_eq!(ended(message.as_bytes()), None, "{message}");
        }
        assert_eq!(ended(b"\xff:deleted"), None);
    }
}
