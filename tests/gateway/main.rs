//! The gateway of `examples/gateway`, over real sockets, before small servers.

mod allowed;
mod failures;
#[path = "../../examples/gateway/main.rs"]
#[allow(dead_code, unreachable_pub)]
mod gateway;
mod headers;
mod leaving;
#[path = "../redis/proxy.rs"]
#[allow(dead_code)]
mod redis_proxy;
mod rig;
mod server;
mod sessions;
mod several;
mod streams;
#[path = "../support/mod.rs"]
mod support;
