//! What the examples to deploy have in common, one idea a file.

pub(crate) mod admin;
pub(crate) mod auth;
#[allow(dead_code)] // Some listen where a flag says.
pub(crate) mod listen;
pub(crate) mod patience;
pub(crate) mod process;
pub(crate) mod sessions;
