//! The names of the headers that MCP's Streamable HTTP adds to HTTP's own, and `Last-Event-ID`.
//!
//! ```
//! # let request = http::Request::new(());
//! use mcp_session_layer::header;
//!
//! let id = request.headers().get(&header::SESSION_ID);
//! ```

pub use crate::protocol::headers::{LAST_EVENT_ID, METHOD, NAME, PROTOCOL_VERSION, SESSION_ID};
