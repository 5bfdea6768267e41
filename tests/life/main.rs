//! Sessions live and end properly: what is open on them, what keeps them alive, what ends them, and who is told. Time is
//! paused where nothing else is said.

mod forgetful;
mod inner;
mod node;
mod reading;
#[path = "../support/mod.rs"]
mod support;

mod admission;
mod crowded;
mod forgotten;
mod handle;
mod keeper;
mod limits;
mod overtaken;
mod races;
mod shutdown;
mod streams;
mod telling;
