//! Each number changes when it should, and by how much.

use std::num::NonZeroU64;

use mcp_session_layer::{CachedStore, Change, MemoryStore, Principal};
use tokio::time::sleep;

use crate::{
    app, forgetful, layer,
    numbers::{self, alone},
    support::{
        answers::{id_of, send},
        layer::user_header,
        requests::{as_user, delete, get, initialize, on, post, request},
        sessions::{fresh_session, insert, reference, terms},
        store::{AWAY, Fault, TestStore},
        time::{HOUR, MINUTE, SECOND, set_off, settled},
    },
};
use tower::ServiceExt as _;

const LIVE: &str = "mcp_session_layer_sessions_live";
const CREATED: &str = "mcp_session_layer_sessions_created_total";
const ENDED: &str = "mcp_session_layer_sessions_ended_total";
const REFUSED: &str = "mcp_session_layer_refusals_total";
const WATCHED: &str = "mcp_session_layer_streams_watched";
const CALLS: &str = "mcp_session_layer_store_call_duration_seconds_count";
const CALLED_FOR: &str = "mcp_session_layer_store_call_duration_seconds_sum";
const STALE: &str = "mcp_session_layer_cache_stale_serves_total";
const LIVED: &str = "mcp_server_session_duration_seconds_count";
const LIVED_FOR: &str = "mcp_server_session_duration_seconds_sum";

fn over_http<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut labels = vec![
        ("network_transport", "tcp"),
        ("network_protocol_name", "http"),
    ];
    labels.extend(more);
    labels
}

#[test]
fn a_session_counts_from_its_creation_to_its_end() {
    alone(async |changes| {
        let app = app(&layer(MemoryStore::new()));
        let id = send(&app, initialize()).await.id();
        assert_eq!(
            (changes.of(CREATED, &[]), changes.of(LIVE, &[])),
            (1.0, 1.0)
        );
        assert_eq!(changes.of(ENDED, &[("reason", "deleted")]), 0.0);

        sleep(MINUTE).await;
        send(&app, post(&id)).await;
        sleep(MINUTE / 2).await;
        assert_eq!(send(&app, delete(&id)).await.status, 204);
        assert_eq!(
            (changes.of(CREATED, &[]), changes.of(LIVE, &[])),
            (1.0, 0.0)
        );
        assert_eq!(changes.of(ENDED, &[("reason", "deleted")]), 1.0);
        // What it asked for was 2025-06-18.
        let labels = over_http(&[("mcp_protocol_version", "2025-11-25")]);
        assert_eq!(changes.of(LIVED, &labels), 1.0);
        let lived = changes.of(LIVED_FOR, &labels);
        assert!((90.0..91.0).contains(&lived), "{lived}");
    });
}

#[test]
fn an_expired_session_counts_by_its_reason_and_the_version_that_it_asked_for() {
    alone(async |changes| {
        let app = app(&layer(MemoryStore::new()));
        send(&app, initialize()).await;
        sleep(6 * MINUTE).await;
        assert_eq!(changes.of(ENDED, &[("reason", "idle")]), 1.0);
        let lived = changes.of(
            LIVED_FOR,
            &over_http(&[("mcp_protocol_version", "2025-06-18")]),
        );
        assert!((300.0..301.0).contains(&lived), "{lived}");
    });
}

#[test]
fn a_session_that_the_inner_service_lost_ends_with_an_error() {
    alone(async |changes| {
        let app = forgetful(&layer(MemoryStore::new()));
        let id = send(&app, initialize()).await.id();
        assert_eq!(send(&app, post(&id)).await.status, 200);
        assert_eq!(send(&app, on(&id, "PUT")).await.status, 404);
        assert_eq!(changes.of(ENDED, &[("reason", "inner_gone")]), 1.0);
        let error = ("error_type", "inner_gone");
        let labels = over_http(&[("mcp_protocol_version", "2025-11-25"), error]);
        assert_eq!(changes.of(LIVED, &labels), 1.0);
    });
}

#[test]
fn a_session_is_as_old_as_its_store_says() {
    alone(async |changes| {
        let store = TestStore::default().remote();
        let session = fresh_session();
        insert(&store, &session, &terms()).await;
        sleep(10 * MINUTE).await;
        let app = app(&layer(store));
        assert_eq!(send(&app, post(session.id().expose())).await.status, 200);
        assert_eq!(
            (changes.of(CREATED, &[]), changes.of(LIVE, &[])),
            (0.0, 1.0)
        );
        send(&app, delete(session.id().expose())).await;
        let lived = changes.of(
            LIVED_FOR,
            &over_http(&[("mcp_protocol_version", "2025-11-25")]),
        );
        assert!((600.0..601.0).contains(&lived), "{lived}");
    });
}

/// Elsewhere it counts where it was served.
#[test]
fn the_end_of_a_session_that_was_never_served_here_does_not_count() {
    alone(async |changes| {
        let store = TestStore::default().remote();
        let session = fresh_session();
        insert(&store, &session, &terms()).await;
        let sessions = layer(store).sessions();
        assert!(sessions.end(session.reference()).await.unwrap());
        assert_eq!(changes.all().len(), 0, "{:?}", changes.all());
    });
}

#[test]
fn sessions_of_a_layer_that_is_gone_are_not_live() {
    alone(async |changes| {
        let layer = layer(MemoryStore::new());
        let app = app(&layer);
        for _ in 0..3 {
            send(&app, initialize()).await;
        }
        assert_eq!(changes.of(LIVE, &[]), 3.0);
        drop((app, layer));
        settled().await;
        assert_eq!(changes.of(LIVE, &[]), 0.0);
    });
}

#[test]
fn refusals_count_by_kind() {
    alone(async |changes| {
        let layer = layer(MemoryStore::new()).with_max_sessions(NonZeroU64::MIN);
        let app = app(&layer);
        send(&app, initialize()).await;
        send(&app, initialize()).await;
        send(&app, post("dead")).await;
        send(&app, get("dead")).await;
        send(&app, request("GET").body("".into()).unwrap()).await;
        let of = |kind| changes.of(REFUSED, &[("kind", kind)]);
        assert_eq!(
            (of("unknown"), of("missing_session"), of("full")),
            (2.0, 1.0, 1.0)
        );
    });
}

#[test]
fn a_stream_is_watched_until_it_is_dropped_or_its_session_ends() {
    alone(async |changes| {
        let app = app(&layer(MemoryStore::new()));
        let id = send(&app, initialize()).await.id();
        let dropped = app.clone().oneshot(get(&id)).await.unwrap();
        let ended = app.clone().oneshot(get(&id)).await.unwrap();
        assert_eq!(changes.of(WATCHED, &[]), 2.0);
        drop(dropped);
        assert_eq!(changes.of(WATCHED, &[]), 1.0);
        // Nobody polls it.
        send(&app, delete(&id)).await;
        assert_eq!(changes.of(WATCHED, &[]), 0.0);
        drop(ended);
        assert_eq!(changes.of(WATCHED, &[]), 0.0);
    });
}

#[test]
fn store_calls_count_by_verb_with_their_time_and_their_errors() {
    alone(async |changes| {
        let store = TestStore::default().with_delay(SECOND / 4);
        let layer = layer(store.clone());
        let app = app(&layer);
        let id = send(&app, initialize()).await.id();
        send(&app, post(&id)).await;
        let of = |verb| {
            (
                changes.of(CALLS, &[("verb", verb)]),
                changes.of(CALLED_FOR, &[("verb", verb)]),
            )
        };
        assert_eq!((of("create"), of("touch").0), ((1.0, 0.25), 1.0));
        assert_eq!(of("make_room").0, 1.0);

        let session = store.peek(&id).await.unwrap().session;
        let change = Change::new().set("locale", "de");
        let changed = layer.sessions().change(&session, &change).await;
        assert!(changed.unwrap().is_some());
        assert_eq!(of("change"), (1.0, 0.25));

        store.disturb(&["touch"], AWAY);
        assert_eq!(send(&app, post(&id)).await.status, 503);
        let failed = |error| {
            let labels = [("verb", "touch"), ("error_type", error)];
            (changes.of(CALLS, &labels), changes.of(CALLED_FOR, &labels))
        };
        let (calls, time) = failed("unavailable");
        assert!(calls == 1.0 && (2.0..3.1).contains(&time), "{calls} {time}");

        store.disturb(&["touch"], Fault::Hangs);
        let mut hung_up = Box::pin(app.clone().oneshot(post(&id)));
        set_off(&mut hung_up).await;
        sleep(SECOND).await;
        drop(hung_up);
        assert_eq!(failed("cancelled"), (1.0, 1.0));
        assert_eq!(of("touch").0, 1.0);
    });
}

#[test]
fn what_the_cache_serves_by_itself_counts() {
    alone(async |changes| {
        let store = TestStore::default().remote();
        let app = app(&layer(CachedStore::new(store.clone(), SECOND)));
        let id = send(&app, initialize()).await.id();
        send(&app, post(&id)).await;
        sleep(2 * SECOND).await;
        store.disturb(&["touch"], AWAY);
        assert_eq!(send(&app, post(&id)).await.status, 200);
        assert_eq!(changes.of(STALE, &[]), 1.0);
    });
}

/// So it costs nothing either.
#[test]
fn a_request_on_a_session_in_memory_counts_nothing() {
    alone(async |changes| {
        let app = app(&layer(MemoryStore::new()));
        let id = send(&app, initialize()).await.id();
        let changes = changes.again();
        assert_eq!(send(&app, post(&id)).await.status, 200);
        assert_eq!(changes.all().len(), 0, "{:?}", changes.all());
    });
}

#[test]
fn no_label_names_a_session_or_a_principal() {
    alone(async |changes| {
        let layer = layer(TestStore::default().remote()).with_principal(user_header);
        let app = app(&layer);
        let id = send(&app, as_user(initialize(), "somebody")).await.id();
        let stream = app
            .clone()
            .oneshot(as_user(get(&id), "somebody"))
            .await
            .unwrap();
        assert_eq!(id_of(&stream), None);
        send(&app, post(&id)).await;
        layer
            .sessions()
            .end_of(Some(&Principal::new("somebody")))
            .await
            .unwrap();
        sleep(HOUR).await;
        assert_eq!(changes.of(ENDED, &[("reason", "revoked")]), 1.0);
        let known = [
            "error_type",
            "kind",
            "le",
            "mcp_protocol_version",
            "network_protocol_name",
            "network_transport",
            "reason",
            "verb",
        ];
        let reference = reference(&id).to_string();
        for ((name, labels), _) in numbers::read() {
            for (label, value) in labels {
                assert!(known.contains(&&*label), "{name} has a label {label}");
                assert!(
                    value != "somebody" && value != id && value != reference,
                    "{name}: {value}"
                );
            }
        }
    });
}
