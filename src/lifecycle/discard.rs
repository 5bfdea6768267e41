//! Swallowing the rest of a refused request's body, bounded.
//!
//! A refusal is decided from the headers, so the client may still be sending. When a server drops
//! an unread body, hyper closes the connection under the client's hands; the client then sees a
//! failed write or a reset instead of the answer. So the answer goes out first, and what is left of
//! the body is read and thrown away meanwhile, on a task of its own unless all of it is there
//! already. Then the connection is whole again and takes the next request.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::body::Body;
use http::{HeaderMap, header::EXPECT};
use http_body::Body as _;
use tokio::{runtime::Handle, sync::Semaphore, task::coop::consume_budget, time::timeout};

/// The tails that are being swallowed. Clones count together.
pub(super) struct Discards {
    places: Arc<Semaphore>,
}

impl Default for Discards {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_TAILS)),
        }
    }
}

impl Discards {
    /// Takes what is left of a refused request's body and returns at once.
    ///
    /// The tail is read until its end, an error, 8 MiB or 5 s. It is dropped unread where there is
    /// nothing to gain (it is at its end), where reading would do harm (see
    /// [`expects_100_continue`]), and where there is no room or no runtime. Giving up costs the
    /// client its connection, which hyper then closes.
    pub(super) fn swallow(&self, headers: &HeaderMap, mut body: Body) {
        if body.is_end_stream() || expects_100_continue(headers) || is_read_at_once(&mut body) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return;
        };
        runtime.spawn(async move {
            // Cut off or not: the refusal has been answered, nobody asks any more.
            let _ = timeout(MAX_TIME, read(body)).await;
            drop(place);
        });
    }
}

/// Whether the client holds its body back until it is told to go on.
///
/// Asking for such a body makes hyper send `100 Continue`, and a client that is refused instead
/// does not send it at all: whatever it sends next would be taken for the body (RFC 9110, 10.1.1).
fn expects_100_continue(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(EXPECT).iter();
    lines.any(|line| line.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Reads a body that is there already: most are, and need no task.
fn is_read_at_once(body: &mut Body) -> bool {
    let mut nobody_waits = Context::from_waker(Waker::noop());
    for _ in 0..MAX_AT_ONCE {
        match Pin::new(&mut *body).poll_frame(&mut nobody_waits) {
            Poll::Ready(Some(Ok(_))) if body.is_end_stream() => return true,
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(_) => return true,
            // The task asks again, with a waker of its own.
            Poll::Pending => return false,
        }
    }
    false
}

async fn read(mut body: Body) {
    let mut bytes = 0;
    // Asked before every frame: on an idle connection hyper does not close a body that has all the
    // bytes its `Content-Length` promised, and a further frame would be waited for in vain.
    while bytes <= MAX_BYTES && !body.is_end_stream() {
        let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await else {
            return;
        };
        bytes += frame.data_ref().map_or(0, |data| data.len());
        // A body that always has a frame ready, an empty one at that, must not outrun the clock.
        consume_budget().await;
    }
}

/// In frames.
const MAX_AT_ONCE: usize = 4;
const MAX_TAILS: usize = 1024;
const MAX_BYTES: usize = 8 * 1024 * 1024;
const MAX_TIME: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use bytes::Bytes;
    use http::HeaderValue;
    use http_body::Frame;
    use tokio::{
        task::yield_now,
        time::{Instant, advance, sleep},
    };

    use super::*;

    type Next = Poll<Option<Result<Frame<Bytes>, &'static str>>>;

    /// A body that says how often it was asked and when it was dropped.
    struct Probe<F> {
        next: F,
        frames: Option<usize>,
        seen: Arc<Seen>,
    }

    #[derive(Default)]
    struct Seen {
        polls: AtomicUsize,
        drops: AtomicUsize,
    }

    impl Seen {
        fn polls(&self) -> usize {
            self.polls.load(Relaxed)
        }

        fn dropped(&self) -> bool {
            self.drops.load(Relaxed) == 1
        }

        async fn dropped_after(&self, start: Instant) -> Duration {
            while !self.dropped() {
                settled().await;
            }
            start.elapsed()
        }
    }

    impl<F> http_body::Body for Probe<F>
    where
        F: FnMut(&mut Context<'_>, usize) -> Next + Unpin,
    {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Next {
            let earlier = self.seen.polls.fetch_add(1, Relaxed);
            (self.next)(cx, earlier)
        }

        fn is_end_stream(&self) -> bool {
            self.frames == Some(self.seen.polls())
        }
    }

    impl<F> Drop for Probe<F> {
        fn drop(&mut self) {
            self.seen.drops.fetch_add(1, Relaxed);
        }
    }

    /// `frames` is the number after which the body knows by itself that it is over.
    fn probe<F>(frames: Option<usize>, next: F) -> (Body, Arc<Seen>)
    where
        F: FnMut(&mut Context<'_>, usize) -> Next + Send + Unpin + 'static,
    {
        let seen = Arc::new(Seen::default());
        let body = Body::new(Probe {
            next,
            frames,
            seen: seen.clone(),
        });
        (body, seen)
    }

    fn data(len: usize) -> Next {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; len])))))
    }

    /// The paused clock moves only when nobody has anything left to do.
    async fn settled() {
        sleep(Duration::from_millis(1)).await;
    }

    fn silent() -> (Body, Arc<Seen>) {
        probe(None, |_, _| Poll::Pending)
    }

    #[tokio::test(start_paused = true)]
    async fn reads_to_the_end() {
        let (body, seen) = probe(None, |_, earlier| match earlier {
            0..3 => data(10),
            _ => Poll::Ready(None),
        });
        Discards::default().swallow(&HeaderMap::new(), body);
        settled().await;
        assert!(seen.dropped());
        assert_eq!(seen.polls(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn asks_no_further_than_a_known_end() {
        let (body, seen) = probe(Some(3), |_, earlier| match earlier {
            0..3 => data(10),
            _ => Poll::Pending,
        });
        Discards::default().swallow(&HeaderMap::new(), body);
        settled().await;
        assert!(seen.dropped());
        assert_eq!(seen.polls(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn stops_at_an_error() {
        let (body, seen) = probe(None, |_, earlier| match earlier {
            0 => data(10),
            _ => Poll::Ready(Some(Err("connection reset"))),
        });
        Discards::default().swallow(&HeaderMap::new(), body);
        settled().await;
        assert!(seen.dropped());
        assert_eq!(seen.polls(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn drops_unasked_what_is_at_its_end() {
        let (body, seen) = probe(Some(0), |_, _| data(10));
        Discards::default().swallow(&HeaderMap::new(), body);
        assert!(seen.dropped());
        assert_eq!(seen.polls(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn drops_unasked_what_waits_for_100_continue() {
        for lines in [
            &["100-continue"][..],
            &["100-Continue"],
            &["other", "100-continue"],
            &["100-continue", "other"],
        ] {
            let headers = lines
                .iter()
                .map(|line| (EXPECT, HeaderValue::from_static(line)))
                .collect();
            let (body, seen) = silent();
            Discards::default().swallow(&headers, body);
            assert!(seen.dropped(), "{lines:?}");
            assert_eq!(seen.polls(), 0, "{lines:?}");
        }
    }

    #[test]
    fn drops_unasked_where_there_is_no_runtime() {
        let (body, seen) = silent();
        Discards::default().swallow(&HeaderMap::new(), body);
        assert!(seen.dropped());
        assert_eq!(seen.polls(), 1, "asked once for what is there");
    }

    #[tokio::test(start_paused = true)]
    async fn drops_unasked_where_there_is_no_room() {
        let drain = Discards::default();
        let start = Instant::now();
        let mut waiting = Vec::new();
        for _ in 0..MAX_TAILS {
            let (body, seen) = silent();
            drain.swallow(&HeaderMap::new(), body);
            waiting.push(seen);
        }
        let (body, seen) = silent();
        drain.swallow(&HeaderMap::new(), body);
        assert!(seen.dropped());
        assert_eq!(seen.polls(), 1);

        settled().await;
        assert!(waiting.iter().all(|seen| seen.polls() == 2));
        for seen in &waiting {
            seen.dropped_after(start).await;
        }
        assert_eq!(drain.places.available_permits(), MAX_TAILS);
    }

    #[tokio::test(start_paused = true)]
    async fn stops_after_8_mib() {
        const FRAME: usize = 64 * 1024;
        let (body, seen) = probe(Some(1000), |_, _| data(FRAME));
        let start = Instant::now();
        Discards::default().swallow(&HeaderMap::new(), body);
        assert!(seen.dropped_after(start).await < MAX_TIME);
        // One frame more, for a body of just 8 MiB may go on to its end.
        assert_eq!(seen.polls(), 8 * 1024 * 1024 / FRAME + 1 + MAX_AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn stops_after_5_s_of_silence() {
        let (body, seen) = silent();
        let start = Instant::now();
        Discards::default().swallow(&HeaderMap::new(), body);
        let time = seen.dropped_after(start).await;
        assert_eq!(time.as_secs(), 5, "{time:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn stops_after_5_s_in_all_however_lively() {
        let mut nap = Box::pin(sleep(Duration::from_secs(1)));
        let (body, seen) = probe(None, move |cx, _| {
            if nap.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            nap.set(sleep(Duration::from_secs(1)));
            data(1)
        });
        let start = Instant::now();
        Discards::default().swallow(&HeaderMap::new(), body);
        let time = seen.dropped_after(start).await;
        assert_eq!(time.as_secs(), 5, "{time:?}");
        assert!(seen.polls() > 5, "a byte a second was read");
    }

    #[tokio::test(start_paused = true)]
    async fn stops_after_5_s_of_empty_frames() {
        const MANY: usize = 100_000;
        let (body, seen) = probe(Some(MANY), |_, _| data(0));
        Discards::default().swallow(&HeaderMap::new(), body);
        yield_now().await;
        advance(MAX_TIME).await;
        yield_now().await;
        assert!(seen.dropped());
        assert!(seen.polls() < MANY, "others had their turn meanwhile");
    }
}
