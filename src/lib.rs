//! A Tower layer for axum apps that answers 404 for dead MCP sessions before your MCP service runs.
//!
//! Servers of the Model Context Protocol speak Streamable HTTP. Its revisions 2025-03-26 to 2025-11-25 give a client a
//! session through the `Mcp-Session-Id` header, and say what happens to a session that is no more: the server "MUST respond to
//! requests containing that session ID with HTTP 404 Not Found", and the client "MUST start a new session"
//! ([2025-11-25, transports, session management][spec]). This crate is that check, in front of any MCP service: rmcp, a
//! handler of your own, a reverse proxy.
//!
//! [spec]: https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#session-management
//!
#![doc = concat!("```no_run\n", include_str!("../examples/first.rs"), "```")]
//!
//! In the repository, `cargo run --example quickstart` serves rmcp behind the layer and prints what to try next. Where to put the
//! layer is shown in [`mounting.md`], what else the docs hold in the [README].
//!
//! [`mounting.md`]: https://docs.rs/crate/mcp-session-layer/latest/source/docs/mounting.md
//! [README]: https://docs.rs/crate/mcp-session-layer/latest/source/README.md
//!
//! # What a client is told
//!
//! | case | status | body |
//! | --- | --- | --- |
//! | the id is unknown, ended, expired, malformed, or somebody else's | 404 | a JSON-RPC error, code -32001 |
//! | no id where one is needed | 400 | a JSON-RPC error with the request's `id`, or text |
//! | two session ids, or two protocol versions | 400 | text |
//! | a body that must be read to decide is over 64 KiB, or takes over 10 seconds | 413, 408 | text |
//! | sessions are created more often than the rates allow | 429 with `Retry-After` | text |
//! | the store is away; no room; shutting down; too much work under way | 503 with `Retry-After` | text |
//!
//! [`Rejection`] says why. The reasons for 404 cannot be told apart on the wire; inside, the [`Rejection`] lies in the
//! response's extensions, for logs and metrics. A store that is away is never a 404: that would make every client throw its
//! session away.
//!
//! Requests of revision 2026-07-28 and later, which have no sessions, are served as if the layer were not there. Session ids
//! are removed from them and from their answers.
//!
//! # What most servers set
//!
//! ```
//! use std::{num::NonZero, time::Duration};
//! use mcp_session_layer::{McpSessionLayer, MemoryStore, Principal, Values};
//!
//! # #[derive(Clone)]
//! # struct Claims { iss: String, sub: String, tenant: String }
//! # fn layer() -> McpSessionLayer {
//! let layer = McpSessionLayer::new(MemoryStore::new())
//!     .with_paths(["/mcp"])
//!     // Whose session it is: the authentication outside this layer has said so. For all others it is 404.
//!     .with_principal(|parts| {
//!         let claims = parts.extensions.get::<Claims>().ok_or("no authentication in front")?;
//!         Ok(Some(Principal::issued(&claims.iss, &claims.sub)))
//!     })
//!     // What it carries to every node.
//!     .with_values(|parts| {
//!         let claims = parts.extensions.get::<Claims>().ok_or("no authentication in front")?;
//!         Ok(Values::of([("tenant", &claims.tenant)])?)
//!     })
//!     // How long it lives without being used. A request being answered and an open stream use it.
//!     .with_idle_timeout(Duration::from_secs(30 * 60))
//!     // How many there may be. At a limit one that nobody uses makes room.
//!     .with_max_sessions_per_principal(NonZero::new(50).unwrap());
//!
//! // Counts, lists and ends sessions, changes their values, tells what happens to them, drains and shuts down.
//! let sessions = layer.sessions();
//! # layer
//! # }
//! ```
//!
//! A handler gets the [`Session`] as an argument: [`values`](Session::values) are those that every node has,
//! [`local`](Session::local) is for what this process keeps until the session's end. All settings are methods of
//! [`McpSessionLayer`], each with its default; [`Sessions`] is the handle.
//!
//! # Features
//!
//! | feature | adds | default |
//! | --- | --- | --- |
//! | `redis` | `RedisStore` | no |
//! | `postgres` | `PostgresStore` | no |
//! | `sqlite` | `SqliteStore` | no |
//! | `admin` | a page that lists and ends sessions, to mount behind your own authentication | no |
//! | `metrics` | numbers for a recorder of the [`metrics`](https://docs.rs/metrics) facade | no |
//! | `rmcp` | `RmcpService`: rmcp as the inner service, which restores sessions on a node that has never seen them | no |
//! | `tower-http` | `cors` for clients in web pages, `sensitive_session_id` for logs | no |
//! | `test-kit` | a store that fails as it is told to, an MCP server and a client, for tests of your own set-up | no |
//! | `conformance` | the contract of [`SessionStore`] as functions to run against a store of your own | no |
//!
//! # Deployment
//!
//! * Authentication goes outside the layer, `Origin` and `Host` checks too; CORS as well, so that a browser can read a 404
//!   (feature `tower-http`).
//! * Wrap the whole MCP endpoint, so that the layer can notify your service of ends that it did not see; with method
//!   handlers under [`Router::layer`](axum::Router::layer) name it:
//!   [`with_inner`](McpSessionLayer::with_inner).
//! * rmcp writes session ids into its log, and an id is a secret: turn `rmcp::transport::streamable_http_server` off in the
//!   filter of your subscriber.
//! * An MCP service with an idle time of its own needs a longer one than the layer's, or it forgets live sessions. What it has
//!   forgotten, after a restart too, the layer [finds out](McpSessionLayer::with_forgotten_statuses), and tells the client 404.
//! * Behind a proxy all anonymous callers share one rate of creations: tell them apart with
//!   [`CreationRates::per_address`].
//! * Proxies must pass `Mcp-Session-Id` both ways and must not buffer `text/event-stream`.
//! * Several nodes need a store that they share, and the same clock for none of it: the store's clock decides. With rmcp they
//!   need `RmcpService`, which restores a session where it has never been.
//!
//! # What it does not do
//!
//! It does not authenticate, check `Origin` or `Host`, or move a session's in-memory state between nodes. It reads no request
//! that carries a session id, unless [asked to](McpSessionLayer::with_initialize_on_dead_id), or the inner service opens
//! another session for each `initialize` on a live one and does not end it.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "tower-http")]
mod cors;
mod extract;
mod handle;
pub mod header;
mod lifecycle;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(not(feature = "metrics"))]
mod metrics;
mod protocol;
mod registry;
#[cfg(feature = "rmcp")]
mod rmcp;
mod service;
mod session;
pub mod store;
mod sync;
#[cfg(feature = "test-kit")]
pub mod testing;

#[cfg(feature = "conformance")]
pub use self::store::conformance;
pub use self::{
    extract::NoSession,
    handle::Sessions,
    lifecycle::{CreationRate, CreationRates, SessionEvent, SessionEvents, SigningKeys},
    protocol::{
        ClientInfo, GuardedPaths, InvalidPath, InvalidSessionId, InvalidSessionRef, Rejection,
        RejectionKind, SessionId, SessionRef,
    },
    service::{McpSessionLayer, McpSessionService, ResponseFuture},
    session::{
        Change, InnerContext, Issuer, Owner, Principal, Scope, Session, SessionRecord, Values,
        ValuesTooLarge,
    },
    store::{BoxSessionStore, CachedStore, MemoryStore, SessionStore},
};

#[cfg(feature = "tower-http")]
pub use self::cors::{cors, sensitive_session_id};
#[cfg(feature = "rmcp")]
pub use self::rmcp::{RmcpResponseFuture, RmcpService, RmcpSessionStore};
#[cfg(feature = "postgres")]
pub use self::store::PostgresStore;
#[cfg(feature = "redis")]
pub use self::store::RedisStore;
#[cfg(feature = "sqlite")]
pub use self::store::SqliteStore;
#[cfg(feature = "redis")]
pub use redis;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use sqlx;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/mounting.md")]
struct Mounting;

#[cfg(doctest)]
#[doc = include_str!("../docs/migration.md")]
struct Migration;

#[cfg(doctest)]
#[doc = include_str!("../docs/signed-ids.md")]
struct SignedIds;
