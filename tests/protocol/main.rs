//! The protocol's rules, held against the layer from outside: a request goes in, and it is looked at what reached the
//! inner service, what came out, and what the store holds afterwards. Time is paused throughout.

mod answers;
mod birth;
mod death;
mod ids;
mod inputs;
mod lifetimes;
mod outage;
mod owners;
mod settings;
mod support;
mod table;
