//! The protocol's rules, held against the layer from outside: a request goes in, and it is looked at what reached the
//! inner service, what came out, and what the store holds afterwards. Time is paused throughout.

mod inner;
mod setup;
#[path = "../support/mod.rs"]
mod support;

mod answers;
mod bodies;
mod claims;
mod create;
mod delete;
mod ends;
mod forgotten;
mod ids;
mod inputs;
mod lifetimes;
mod optional;
mod outage;
mod owners;
mod resends;
mod settings;
mod signed_ids;
mod strangers;
mod table;
