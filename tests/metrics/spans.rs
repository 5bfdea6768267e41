//! The traces of the example name a session by its reference.

use mcp_session_layer::MemoryStore;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::{
    example,
    numbers::{self, alone},
    support::{
        answers::send,
        log::Log,
        requests::{INITIALIZED, initialize, post},
        sessions::reference,
    },
};

#[test]
fn a_span_has_the_reference_of_its_session_and_nothing_has_the_id() {
    alone(async |_| {
        let log = Log::default();
        let to_log = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("trace,rmcp::transport::streamable_http_server=off")
            .with_ansi(false)
            .with_span_events(FmtSpan::CLOSE)
            .with_writer(move || to_log.clone())
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let app = example::app(MemoryStore::new(), numbers::recorder());
        let id = send(&app, initialize()).await.id();
        send(&app, post(&id).map(|_| INITIALIZED.into())).await;
        send(&app, post(&id)).await;
        send(&app, post("dead")).await;

        let text = log.text();
        let named = format!("mcp.session.id={}", reference(&id));
        assert!(text.contains(&named), "{text}");
        assert!(!text.contains(&id), "{text}");
        // What it claims to be is not written down either.
        assert!(!text.contains("mcp.session.id=dead"), "{text}");
    });
}
