//! Inner services that keep sessions of their own: after each kind of end they have as many as the layer. Besides, what
//! tower-mcp's own HTTP tests ask of sessions, asked through the layer. Time is paused throughout.

#[path = "../support/mod.rs"]
mod support;

mod rig;

mod ends;
mod its_own;
