//! The reasons for which a request is refused.

use std::fmt;

use http::StatusCode;

/// Why a request was refused.
///
/// The client learns no more than the [status](Self::status) of it; the kind is for logs, metrics
/// and custom renderings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// The request needs a session and carries no id, or an empty one. 400: "servers that require a
    /// session ID SHOULD respond to requests without an `MCP-Session-Id` header (other than
    /// initialization) with HTTP 400 Bad Request" (2025-11-25, transports, Session Management).
    MissingSession,
    /// The request carries more than one `Mcp-Session-Id` line. 400, whatever they hold: two
    /// readers of such a request could see two sessions.
    DuplicateSessionHeader,
    /// The request carries more than one `MCP-Protocol-Version` line. 400: two readers of such a
    /// request could see two revisions, one of them without sessions.
    DuplicateVersionHeader,
    /// The request claims a protocol revision that the inner service does not speak. 400
    /// (2026-07-28, Streamable HTTP, Protocol Version Header).
    UnsupportedProtocolVersion,
    /// What the request carries cannot be a session id, so none was looked up. 404, as for
    /// [`Unknown`](Self::Unknown).
    Malformed,
    /// Session ids are signed, and what the request carries was not issued to its caller, so none was looked up. 404, as
    /// for [`Unknown`](Self::Unknown).
    Forged,
    /// The store does not hold this session for this caller: it was never issued, has expired, was
    /// ended, or is somebody else's. 404.
    Unknown,
    /// This process knows that the session has ended, whatever the store says. 404, as for
    /// [`Unknown`](Self::Unknown).
    Ended,
    /// The inner service no longer knows a session that the store holds. 404, as for
    /// [`Unknown`](Self::Unknown).
    InnerGone,
    /// An `initialize` request on a session on which an earlier one made the inner service open another session, which
    /// could not be ended there. 400: each of them would leave one more.
    AlreadyInitialized,
    /// The body that had to be read to decide is longer than the limit (`with_body_limit`). 413.
    BodyTooLarge,
    /// The body that had to be read to decide did not arrive in time. 408.
    BodyTimeout,
    /// The body that had to be read to decide broke off. 400.
    BodyUnreadable,
    /// The body that had to be read to decide is not JSON for a strict parser, or has a key twice.
    /// 400.
    BodyNotJson,
    /// The session store did not answer, or not in time. 503, and never 404: a 404 tells the client
    /// to throw its session away.
    StoreUnavailable,
    /// There is no room for one more session, in all or for this principal. 503.
    Full,
    /// Sessions are created more often than the rates allow. 429: it is the callers' doing, and no
    /// balancer takes this node for a broken one.
    TooManyCreations,
    /// All sessions of this owner were ended while this one was being created. 503.
    Revoked,
    /// This process opens no more sessions, for it is about to stop. 503.
    Draining,
    /// A bound on background work is reached. 503.
    Busy,
    /// The application's function that names the principal failed. 500.
    PrincipalFailed,
    /// The values that a new session was to get could not be told, or are too many or too long. 500.
    ValuesFailed,
    /// The inner service answered `initialize` with a session id that is ill-formed or already
    /// known. 500.
    InvalidInnerId,
}

impl RejectionKind {
    /// A short name that stays the same from version to version, for labels and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingSession => "missing_session",
            Self::DuplicateSessionHeader => "duplicate_session_header",
            Self::DuplicateVersionHeader => "duplicate_version_header",
            Self::UnsupportedProtocolVersion => "unsupported_protocol_version",
            Self::Malformed => "malformed",
            Self::Forged => "forged",
            Self::Unknown => "unknown",
            Self::Ended => "ended",
            Self::InnerGone => "inner_gone",
            Self::AlreadyInitialized => "already_initialized",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BodyUnreadable => "body_unreadable",
            Self::BodyNotJson => "body_not_json",
            Self::StoreUnavailable => "store_unavailable",
            Self::Full => "full",
            Self::TooManyCreations => "too_many_creations",
            Self::Revoked => "revoked",
            Self::Draining => "draining",
            Self::Busy => "busy",
            Self::PrincipalFailed => "principal_failed",
            Self::ValuesFailed => "values_failed",
            Self::InvalidInnerId => "invalid_inner_id",
        }
    }

    /// The status that the client gets, unless a custom rendering chooses another.
    pub fn status(self) -> StatusCode {
        match self {
            Self::MissingSession
            | Self::DuplicateSessionHeader
            | Self::DuplicateVersionHeader
            | Self::UnsupportedProtocolVersion
            | Self::AlreadyInitialized
            | Self::BodyUnreadable
            | Self::BodyNotJson => StatusCode::BAD_REQUEST,
            Self::Malformed | Self::Forged | Self::Unknown | Self::Ended | Self::InnerGone => {
                StatusCode::NOT_FOUND
            }
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyCreations => StatusCode::TOO_MANY_REQUESTS,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::PrincipalFailed | Self::ValuesFailed | Self::InvalidInnerId => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::StoreUnavailable | Self::Full | Self::Revoked | Self::Draining | Self::Busy => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// What a client is told that gets no JSON: enough to mend the request, nothing of stores and
    /// sessions.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::MissingSession => "Mcp-Session-Id header is required",
            Self::DuplicateSessionHeader => "More than one Mcp-Session-Id header",
            Self::DuplicateVersionHeader => "More than one MCP-Protocol-Version header",
            Self::UnsupportedProtocolVersion => "Unsupported protocol version",
            Self::Malformed | Self::Forged | Self::Unknown | Self::Ended | Self::InnerGone => {
                "Session not found"
            }
            Self::AlreadyInitialized => "Session is already initialized",
            Self::BodyTooLarge => "Request body too large",
            Self::BodyTimeout => "Request body too slow",
            Self::BodyUnreadable => "Request body could not be read",
            Self::BodyNotJson => "Request body is not valid JSON",
            Self::StoreUnavailable | Self::Full | Self::Revoked | Self::Draining | Self::Busy => {
                "Service temporarily unavailable"
            }
            Self::TooManyCreations => "Too many new sessions",
            Self::PrincipalFailed | Self::ValuesFailed | Self::InvalidInnerId => {
                "Internal server error"
            }
        }
    }
}

impl fmt::Display for RejectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
