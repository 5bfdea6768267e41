//! Sessions live and end properly: what is open on them, what keeps them alive, what ends them, and who is told. Time is
//! paused where nothing else is said. Two nodes are two layers over one store.

mod handle;
mod keeper;
mod limits;
mod races;
mod shutdown;
mod streams;
mod support;
mod telling;
