//! An inner service that writes down what reaches it, and answers as it is told.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use futures_util::{StreamExt as _, future::BoxFuture, stream};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body_util::BodyExt as _;
use mcp_session_layer::Session;
use parking_lot::Mutex;
use tower::Service;

use crate::support::{
    answers::{RESULT, lines, question_of, result_of},
    time::settled,
};

#[derive(Clone)]
pub(crate) struct Inner {
    calls: Arc<Mutex<Vec<Call>>>,
    tells: Arc<Mutex<Vec<Call>>>,
    questions: Arc<Mutex<Vec<Call>>>,
    answer: Arc<AnswerTo>,
    /// What it answers when it is asked whether it knows a session, if it does not know all.
    answer_question: Option<Arc<AnswerTo>>,
}

type AnswerTo = dyn Fn(&Call) -> BoxFuture<'static, Response<Body>> + Send + Sync;

/// A request that reached the inner service.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) session: Option<Session>,
    pub(crate) claims: Option<Claims>,
}

/// What an authentication in front has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claims(pub(crate) &'static str);

impl Inner {
    pub(crate) fn new(answer: impl Fn(&Call) -> Response<Body> + Send + Sync + 'static) -> Self {
        Self::slow(move |call| Box::pin(std::future::ready(answer(call))))
    }

    pub(crate) fn slow(
        answer: impl Fn(&Call) -> BoxFuture<'static, Response<Body>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            calls: Arc::default(),
            tells: Arc::default(),
            questions: Arc::default(),
            answer: Arc::new(answer),
            answer_question: None,
        }
    }

    /// Answers like this when it is asked whether it knows a session.
    pub(crate) fn questioned(
        self,
        answer: impl Fn(&Call) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let answer = move |call: &Call| -> BoxFuture<'static, Response<Body>> {
            Box::pin(std::future::ready(answer(call)))
        };
        Self {
            answer_question: Some(Arc::new(answer)),
            ..self
        }
    }

    /// Answers as it answers everything when it is asked whether it knows a session.
    pub(crate) fn questioned_as_others(self) -> Self {
        Self {
            answer_question: Some(Arc::clone(&self.answer)),
            ..self
        }
    }

    /// The questions that have reached the service since this was asked last.
    pub(crate) async fn questions(&self) -> Vec<Call> {
        settled().await;
        std::mem::take(&mut self.questions.lock())
    }

    /// Answers everything with a JSON-RPC result and no session id.
    pub(crate) fn silent() -> Self {
        Self::new(|_| json(200, RESULT))
    }

    /// Answers everything with a JSON-RPC result and these session ids.
    pub(crate) fn issuing(ids: &'static [&'static str]) -> Self {
        Self::new(|_| with_ids(json(200, RESULT), ids))
    }

    /// The clients' requests that have reached the service since this was asked last.
    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock())
    }

    /// The layer's own requests that have reached the service since this was asked last.
    pub(crate) async fn tells(&self) -> Vec<Call> {
        settled().await;
        std::mem::take(&mut self.tells.lock())
    }

    /// The ids of sessions that the layer has told the service to end since this was asked last.
    pub(crate) async fn told(&self) -> Vec<String> {
        let tells = self.tells().await;
        assert!(tells.iter().all(|call| call.method == Method::DELETE));
        tells.iter().map(Call::id).collect()
    }
}

impl Call {
    /// The one session id that came with it.
    pub(crate) fn id(&self) -> String {
        let ids = lines(&self.headers, "mcp-session-id");
        assert_eq!(ids.len(), 1, "not one session id: {ids:?}");
        ids[0].clone()
    }
}

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let inner = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes());
            let call = Call {
                method: parts.method,
                uri: parts.uri,
                headers: parts.headers,
                body: body.unwrap_or_default(),
                session: parts.extensions.get().cloned(),
                claims: parts.extensions.get().cloned(),
            };
            if let Some(id) = question_of(&call.body) {
                inner.questions.lock().push(call.clone());
                return Ok(match &inner.answer_question {
                    Some(answer) => answer(&call).await,
                    None => json(200, &result_of(&id)),
                });
            }
            // Every client here sends this header; the layer has no reason to.
            let log = match call.headers.contains_key(ACCEPT) {
                true => &inner.calls,
                false => &inner.tells,
            };
            log.lock().push(call.clone());
            Ok((inner.answer)(&call).await)
        })
    }
}

pub(crate) fn json(status: u16, body: &str) -> Response<Body> {
    let mut response = plain(status, body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn plain(status: u16, body: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

pub(crate) fn with_ids(mut response: Response<Body>, ids: &[&str]) -> Response<Body> {
    for id in ids {
        let value = HeaderValue::from_bytes(id.as_bytes()).unwrap();
        response.headers_mut().append("mcp-session-id", value);
    }
    response
}

/// A body that arrives byte by byte and says nothing of its length.
pub(crate) fn byte_by_byte(body: &[u8]) -> Body {
    let bytes: Vec<_> = body.iter().map(|byte| vec![*byte]).collect();
    Body::from_stream(stream::iter(bytes).map(Ok::<_, Infallible>))
}
