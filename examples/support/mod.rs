//! What the examples to deploy have in common, one idea a file.

pub(crate) mod admin;
#[allow(dead_code)] // Of rmcp's.
pub(crate) mod audience;
pub(crate) mod auth;
#[allow(dead_code)] // Some listen where a flag says.
pub(crate) mod listen;
pub(crate) mod patience;
pub(crate) mod process;
#[allow(dead_code)] // A gateway's is another matter.
pub(crate) mod readiness;
pub(crate) mod sessions;
