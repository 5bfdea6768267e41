//! A body that is looked at before it is handed on.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::coop::consume_budget,
    time::timeout,
};

/// The bytes that all bodies together may take while they are looked at. Clones count together.
#[derive(Clone)]
pub(crate) struct BodyBudget(Arc<Semaphore>);

impl Default for BodyBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BODY_BUDGET)))
    }
}

/// A body that is being read, as far as it has been.
pub(crate) struct Buffered {
    head: BytesMut,
    /// Why there is no more, if it broke off.
    error: Option<axum::Error>,
    rest: Body,
    held: Option<OwnedSemaphorePermit>,
    limit: usize,
}

/// How the reading of a body went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadEnd {
    /// All of it was read.
    Complete,
    /// It is longer than the limit.
    TooLong,
    /// It did not arrive in time.
    TooSlow,
    /// It broke off.
    Broken,
    /// The budget that all bodies share is spent.
    OverBudget,
}

impl Buffered {
    pub(crate) fn new(body: Body) -> Self {
        Self::limited(body, DEFAULT_BODY_LIMIT)
    }

    /// As [`new`](Self::new), with a limit of so many bytes.
    pub(crate) fn limited(body: Body, limit: usize) -> Self {
        Self {
            head: BytesMut::new(),
            error: None,
            rest: body,
            held: None,
            limit,
        }
    }

    /// Reads up to a limit of bytes and time. Whatever comes of it, what was read is part of what is handed on.
    pub(crate) async fn read(&mut self, budget: &BodyBudget) -> ReadEnd {
        let read = timeout(READ_TIME, self.read_on(budget)).await;
        read.unwrap_or(ReadEnd::TooSlow)
    }

    async fn read_on(&mut self, budget: &BodyBudget) -> ReadEnd {
        if self.rest.size_hint().lower() > self.limit as u64 {
            return ReadEnd::TooLong;
        }
        loop {
            let frame = poll_fn(|cx| Pin::new(&mut self.rest).poll_frame(cx)).await;
            let data = match frame {
                None => return ReadEnd::Complete,
                Some(Err(error)) => {
                    self.error = Some(error);
                    return ReadEnd::Broken;
                }
                // Trailers say nothing that matters here, and no inner service of ours would read them.
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            // First of all, for it has been taken out of the body.
            self.head.extend_from_slice(&data);
            let Ok(more) = Arc::clone(&budget.0).try_acquire_many_owned(data.len() as u32) else {
                return ReadEnd::OverBudget;
            };
            match &mut self.held {
                Some(held) => held.merge(more),
                none => *none = Some(more),
            }
            if self.head.len() > self.limit {
                return ReadEnd::TooLong;
            }
            // A body that always has a frame ready, an empty one at that, must not keep others from running.
            consume_budget().await;
        }
    }

    /// What has been read.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.head
    }

    /// The whole body again, byte for byte. What was read leaves the budget when it has been handed on.
    pub(crate) fn into_body(self) -> Body {
        Body::new(Replayed {
            head: Some((self.head.freeze(), self.held)),
            error: self.error,
            is_error_due: false,
            rest: self.rest,
        })
    }
}

struct Replayed {
    head: Option<(Bytes, Option<OwnedSemaphorePermit>)>,
    error: Option<axum::Error>,
    is_error_due: bool,
    rest: Body,
}

impl HttpBody for Replayed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.head.take() {
            Some((head, _)) if !head.is_empty() => Poll::Ready(Some(Ok(Frame::data(head)))),
            // A server drops what it has not sent yet when a body breaks off, and sends it when a body has to wait.
            _ if self.error.is_some() && !self.is_error_due => {
                self.is_error_due = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ => match self.error.take() {
                Some(error) => Poll::Ready(Some(Err(error))),
                None => Pin::new(&mut self.rest).poll_frame(cx),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.head.as_ref().is_none_or(|(head, _)| head.is_empty())
            && self.error.is_none()
            && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let head = self.head.as_ref().map_or(0, |(head, _)| head.len() as u64);
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + head);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + head);
        }
        hint
    }
}

/// The longest body that is read in order to decide, unless set, in bytes.
pub(crate) const DEFAULT_BODY_LIMIT: usize = 64 << 10;
/// What all bodies together may take, in bytes; so a limit beyond it means nothing.
pub(crate) const BODY_BUDGET: usize = 16 << 20;
/// How long a body may take to arrive that must be read to decide.
const READ_TIME: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    fn in_pieces(pieces: &[&'static [u8]]) -> Body {
        let pieces: Vec<Result<&[u8], std::io::Error>> = pieces.iter().map(|p| Ok(*p)).collect();
        Body::from_stream(futures_util::stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_body_is_replayed_byte_for_byte() {
        let budget = BodyBudget(Arc::new(Semaphore::new(1 << 20)));
        let mut body = Buffered::new(in_pieces(&[b"ab", b"", b"c"]));
        assert_eq!(body.read(&budget).await, ReadEnd::Complete);
        assert_eq!(body.bytes(), b"abc");
        let body = body.into_body();
        assert_eq!(body.size_hint().lower(), 3);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        assert_eq!(budget.0.available_permits(), 1 << 20);
    }

    #[tokio::test]
    async fn a_long_body_is_replayed_too() {
        let budget = BodyBudget(Arc::new(Semaphore::new(1 << 20)));
        static PIECE: [u8; 40_000] = [7; 40_000];
        let mut body = Buffered::new(in_pieces(&[&PIECE, &PIECE, &PIECE]));
        assert_eq!(body.read(&budget).await, ReadEnd::TooLong);
        let body = body.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), 120_000);
    }

    #[tokio::test]
    async fn what_was_read_beyond_the_budget_is_handed_on_too() {
        let budget = BodyBudget(Arc::new(Semaphore::new(4)));
        let mut body = Buffered::new(in_pieces(&[b"abc", b"def", b"g"]));
        assert_eq!(body.read(&budget).await, ReadEnd::OverBudget);
        let whole = body.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(whole, "abcdefg");
    }

    #[tokio::test]
    async fn a_body_that_broke_off_breaks_off_again() {
        let budget = BodyBudget::default();
        let pieces = [Ok("abc"), Err(std::io::Error::other("reset")), Ok("d")];
        let mut body = Buffered::new(Body::from_stream(futures_util::stream::iter(pieces)));
        assert_eq!(body.read(&budget).await, ReadEnd::Broken);
        let mut body = body.into_body();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "abc");
        assert!(!body.is_end_stream());
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "reset");
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_of_a_slow_body_is_handed_on_with_the_rest() {
        let budget = BodyBudget::default();
        let pieces = futures_util::stream::unfold(0, |nth| async move {
            tokio::time::sleep(Duration::from_secs(4)).await;
            (nth < 4).then(|| (Ok::<_, std::io::Error>(format!("{nth}")), nth + 1))
        });
        let mut body = Buffered::new(Body::from_stream(pieces));
        let start = tokio::time::Instant::now();
        assert_eq!(body.read(&budget).await, ReadEnd::TooSlow);
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        assert_eq!(body.bytes(), b"01");
        let whole = body.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(whole, "0123");
    }

    /// On a thread that others need too. Without an end of its own the test would hang if the reading did not yield.
    #[tokio::test(start_paused = true)]
    async fn a_body_of_empty_frames_without_end_keeps_nobody_from_running() {
        let others = tokio::spawn(async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            tokio::time::advance(READ_TIME).await;
        });
        let budget = BodyBudget::default();
        let polls = std::sync::atomic::AtomicUsize::new(0);
        let polls = Arc::new(polls);
        let counted = Arc::clone(&polls);
        let frames = futures_util::stream::repeat_with(move || {
            let polls = counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            assert!(polls < 1_000_000, "nobody else runs");
            Ok::<_, std::io::Error>(Bytes::new())
        });
        let mut body = Buffered::new(Body::from_stream(frames));
        assert_eq!(body.read(&budget).await, ReadEnd::TooSlow);
        others.await.unwrap();
    }

    #[tokio::test]
    async fn a_limit_can_be_set() {
        let budget = BodyBudget::default();
        for (limit, expected) in [(2, ReadEnd::TooLong), (3, ReadEnd::Complete)] {
            let mut in_one = Buffered::limited(Body::from("abc"), limit);
            assert_eq!(in_one.read(&budget).await, expected);
            let mut in_pieces = Buffered::limited(in_pieces(&[b"ab", b"c"]), limit);
            assert_eq!(in_pieces.read(&budget).await, expected);
        }
    }

    #[tokio::test]
    async fn all_bodies_share_one_budget() {
        let budget = BodyBudget(Arc::new(Semaphore::new(4)));
        let mut first = Buffered::new(in_pieces(&[b"abc"]));
        assert_eq!(first.read(&budget).await, ReadEnd::Complete);
        let mut second = Buffered::new(in_pieces(&[b"de"]));
        assert_eq!(second.read(&budget).await, ReadEnd::OverBudget);
        drop(first);
        let mut third = Buffered::new(in_pieces(&[b"de"]));
        assert_eq!(third.read(&budget).await, ReadEnd::Complete);
    }
}
