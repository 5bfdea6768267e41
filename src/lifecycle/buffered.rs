//! Looking into a body without taking it away.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use http::{HeaderMap, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A body that is being read, as far as it has been.
pub(crate) struct Peek {
    head: BytesMut,
    rest: Body,
    held: Option<OwnedSemaphorePermit>,
}

/// How the reading of a body went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// All of it was read.
    Whole,
    /// It is longer than the limit.
    Beyond,
    /// It broke off.
    Broken,
    /// The budget that all bodies share is spent.
    NoRoom,
}

impl Peek {
    pub(crate) fn new(body: Body) -> Self {
        Self {
            head: BytesMut::new(),
            rest: body,
            held: None,
        }
    }

    /// Reads up to a limit. May be cancelled; what was read until then stays.
    pub(crate) async fn read(&mut self, budget: &Arc<Semaphore>) -> Seen {
        if self.rest.size_hint().lower() > LIMIT as u64 {
            return Seen::Beyond;
        }
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut self.rest).poll_frame(cx)).await;
            let data = match frame {
                None => return Seen::Whole,
                Some(Err(_)) => return Seen::Broken,
                // Trailers say nothing that matters here, and no inner service of ours would read them.
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            let Ok(more) = Arc::clone(budget).try_acquire_many_owned(data.len() as u32) else {
                return Seen::NoRoom;
            };
            match &mut self.held {
                Some(held) => held.merge(more),
                none => *none = Some(more),
            }
            self.head.extend_from_slice(&data);
            if self.head.len() > LIMIT {
                return Seen::Beyond;
            }
        }
    }

    /// What has been read.
    pub(crate) fn seen(&self) -> &[u8] {
        &self.head
    }

    /// What has not been read.
    pub(crate) fn into_rest(self) -> Body {
        self.rest
    }

    /// The whole body again, byte for byte. What was read leaves the budget when it has been handed on.
    pub(crate) fn into_body(self) -> Body {
        if self.rest.is_end_stream() && self.held.is_none() {
            return Body::from(self.head.freeze());
        }
        Body::new(Replayed {
            head: Some((self.head.freeze(), self.held)),
            rest: self.rest,
        })
    }
}

/// Whether a body claims to be JSON that can be read as it is.
pub(crate) fn is_plain_json(headers: &HeaderMap) -> bool {
    has_content_type(headers, "application/json") && !headers.contains_key(header::CONTENT_ENCODING)
}

/// Whether a body is a stream of events.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    has_content_type(headers, "text/event-stream")
}

fn has_content_type(headers: &HeaderMap, expected: &str) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return false;
    };
    let essence = value.as_bytes().split(|byte| *byte == b';').next();
    essence.is_some_and(|essence| {
        essence
            .trim_ascii()
            .eq_ignore_ascii_case(expected.as_bytes())
    })
}

struct Replayed {
    head: Option<(Bytes, Option<OwnedSemaphorePermit>)>,
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
            _ => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.head.as_ref().is_none_or(|(head, _)| head.is_empty()) && self.rest.is_end_stream()
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

/// The longest body that is read in order to decide, in bytes.
const LIMIT: usize = 64 << 10;

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
        let budget = Arc::new(Semaphore::new(1 << 20));
        let mut peek = Peek::new(in_pieces(&[b"ab", b"", b"c"]));
        assert_eq!(peek.read(&budget).await, Seen::Whole);
        assert_eq!(peek.seen(), b"abc");
        let body = peek.into_body();
        assert_eq!(body.size_hint().lower(), 3);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        assert_eq!(budget.available_permits(), 1 << 20);
    }

    #[tokio::test]
    async fn a_long_body_is_replayed_too() {
        let budget = Arc::new(Semaphore::new(1 << 20));
        static PIECE: [u8; 40_000] = [7; 40_000];
        let mut peek = Peek::new(in_pieces(&[&PIECE, &PIECE, &PIECE]));
        assert_eq!(peek.read(&budget).await, Seen::Beyond);
        let body = peek.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), 120_000);
    }

    #[tokio::test]
    async fn all_bodies_share_one_budget() {
        let budget = Arc::new(Semaphore::new(4));
        let mut first = Peek::new(in_pieces(&[b"abc"]));
        assert_eq!(first.read(&budget).await, Seen::Whole);
        let mut second = Peek::new(in_pieces(&[b"de"]));
        assert_eq!(second.read(&budget).await, Seen::NoRoom);
        drop(first);
        let mut third = Peek::new(in_pieces(&[b"de"]));
        assert_eq!(third.read(&budget).await, Seen::Whole);
    }

    #[test]
    fn a_content_type_is_what_stands_before_its_parameters() {
        let mut headers = HeaderMap::new();
        assert!(!is_plain_json(&headers));
        headers.insert(
            "content-type",
            "Application/JSON; charset=utf-8".parse().unwrap(),
        );
        assert!(is_plain_json(&headers));
        headers.insert("content-encoding", "gzip".parse().unwrap());
        assert!(!is_plain_json(&headers));
        headers.insert("content-type", "text/event-stream".parse().unwrap());
        assert!(is_event_stream(&headers));
    }
}
