//! The contract of stores, whole.

use mcp_session_layer::{SessionStore, conformance};
use tokio::time::sleep;

pub(crate) async fn keeps_everything(store: &(impl SessionStore + Clone)) {
    conformance::all(store, sleep).await;
    conformance::limits_hold_at_once(store, sleep).await;
    conformance::a_long_list_is_read_in_pages(store, sleep, 2_500).await;
    conformance::a_slow_listener_misses_nothing_without_a_gap(store, sleep, 3_000).await;
}
