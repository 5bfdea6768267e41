//! What the examples to deploy have in common, one idea a file.

pub(crate) mod admin;
pub(crate) mod auth;
pub(crate) mod process;
pub(crate) mod sessions;
