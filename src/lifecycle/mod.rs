//! How sessions are created, kept and ended, and what the inner service is told of it.

pub(crate) mod buffered;
pub(crate) mod create;
pub(crate) mod detached;
pub(crate) mod discard;
pub(crate) mod keeper;
pub(crate) mod store_calls;
pub(crate) mod strip;
pub(crate) mod terminate;
pub(crate) mod upstream;
