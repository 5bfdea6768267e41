//! Paths against axum's own routers: what they bring to a guarded handler is refused with a dead id, and what they bring
//! elsewhere is not, as `tests/paths` says.
#![no_main]

#[path = "../../tests/paths/oracle.rs"]
mod oracle;
#[allow(dead_code)]
#[path = "../../tests/paths/routed.rs"]
mod routed;
#[path = "../../tests/paths/shapes.rs"]
mod shapes;

use axum::http::Uri;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static APPS: routed::Apps = routed::Apps::new();
}

fuzz_target!(|path: &str| {
    let is_path = path.starts_with('/') && path.parse::<Uri>().is_ok_and(|uri| uri.path() == path);
    // A longer one has too many readings for the oracle.
    if is_path && path.len() <= 64 {
        APPS.with(|apps| apps.check(path).unwrap());
    }
});
