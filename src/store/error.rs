//! Why a store could not answer.

use std::{error::Error, fmt};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};

/// A store could not answer. This never means that a session is absent.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    doing: &'static str,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What kind of failure it was: what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The store is away or slow. Another try may succeed.
    Unavailable,
    /// The store holds something that it cannot read.
    Corrupt,
    /// The store does not support this method.
    Unsupported,
    /// What was to be kept is too much ([`Values`](crate::Values)).
    TooLarge,
    /// The store refused: a wrong password, a missing table, a bug. Another try fails alike.
    Failed,
}

impl StoreErrorKind {
    /// A short name, for labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::TooLarge => "too_large",
            Self::Failed => "failed",
        }
    }
}

impl StoreError {
    /// An error without a cause. `doing` says what was being done, as in "touch a session".
    #[must_use]
    pub fn new(kind: StoreErrorKind, doing: &'static str) -> Self {
        Self {
            kind,
            doing,
            source: None,
        }
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure it was.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            StoreErrorKind::Unavailable => "the session store is away",
            StoreErrorKind::Corrupt => "the session store holds something unreadable",
            StoreErrorKind::Unsupported => "the session store does not support this",
            StoreErrorKind::TooLarge => "it is too much",
            StoreErrorKind::Failed => "the session store refused",
        };
        write!(f, "could not {}: {what}", self.doing)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// 503 with `Retry-After`, for handlers that use [`Sessions`](crate::Sessions) and `?`. What went wrong is logged and not
/// told: it is nobody's business outside.
impl IntoResponse for StoreError {
    fn into_response(self) -> Response {
        tracing::error!(error = &self as &dyn Error, "answered 503");
        let mut response = Response::new(Body::from("Service temporarily unavailable"));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        let headers = response.headers_mut();
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, text);
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
