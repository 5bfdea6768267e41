//! The page that administers sessions: what it shows, what it changes, and from whom it takes that.

#![cfg(feature = "admin")]

use std::collections::BTreeSet;

use axum::{Router, body::Body, routing::post};
use http::{Request, Response, StatusCode, request::Builder};
use mcp_session_layer::{
    ClientInfo, Issuer, McpSessionLayer, MemoryStore, Session, SessionId, SessionRecord, Sessions,
    admin::{self, AllowedHosts},
};
use support::{
    answers::{Answer, RESULT, send},
    requests::initialize,
    sessions::{insert, is_live, owner, terms},
};
use tower::{Layer as _, service_fn};

mod support;

const HOST: &str = "127.0.0.1:3001";

fn page(store: &MemoryStore) -> (Router, Sessions) {
    let sessions = McpSessionLayer::new(store.clone()).sessions();
    let page = admin::router(sessions.clone(), &AllowedHosts::loopback());
    (page, sessions)
}

/// A session of this client and principal.
async fn session(store: &MemoryStore, client: &str, principal: Option<&str>) -> Session {
    let record = SessionRecord {
        client: Some(ClientInfo {
            name: client.to_owned(),
            version: "1".to_owned(),
        }),
        ..SessionRecord::new(owner(principal), Issuer::Layer)
    };
    let session = Session::new(SessionId::issue(), record);
    insert(store, &session, &terms()).await;
    session
}

fn look(query: &str) -> Builder {
    Request::get(format!("/{query}")).header("host", HOST)
}

fn form() -> Builder {
    let form = "application/x-www-form-urlencoded";
    Request::post("/")
        .header("host", HOST)
        .header("content-type", form)
}

fn end(session: &Session) -> String {
    format!("do=end&session={}", session.reference())
}

async fn get(page: &Router, query: &str) -> Answer {
    send(page, look(query).body(Body::empty()).unwrap()).await
}

async fn submit(page: &Router, form: Builder, fields: String) -> Answer {
    send(page, form.body(fields.into()).unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn what_a_client_named_is_escaped() {
    let store = MemoryStore::new();
    let script = "<script>alert(1)</script>";
    let session = session(&store, script, Some("\"><img src=x>")).await;
    let (page, _) = page(&store);
    let shown = get(&page, "").await;
    assert_eq!(shown.status, 200);
    assert!(
        shown.body.contains("&lt;script&gt;alert(1)&lt;/script&gt;"),
        "{}",
        shown.body
    );
    assert!(
        shown.body.contains("&quot;&gt;&lt;img src=x&gt;"),
        "{}",
        shown.body
    );
    for markup in ["<script", "<img", "onclick"] {
        assert!(!shown.body.contains(markup), "{markup}: {}", shown.body);
    }
    assert!(shown.body.contains(&session.reference().to_string()));
    assert!(
        !shown.body.contains(session.id().expose()),
        "an id is a secret"
    );
}

#[tokio::test(start_paused = true)]
async fn it_loads_nothing_runs_nothing_and_stays_out_of_frames_and_caches() {
    let (page, _) = page(&MemoryStore::new());
    let shown = get(&page, "").await;
    let policy = shown.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-"),
        "{policy}"
    );
    assert!(
        policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert_eq!(shown.header("x-frame-options"), Some("DENY"));
    assert_eq!(shown.header("cache-control"), Some("no-store"));
    assert_eq!(shown.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test(start_paused = true)]
async fn a_form_on_another_origin_changes_nothing() {
    let store = MemoryStore::new();
    let session = session(&store, "a", Some("alice")).await;
    let (page, sessions) = page(&store);
    let strange: [&[(&str, &str)]; 9] = [
        &[("origin", "http://evil.example")],
        &[("origin", "http://127.0.0.1:3002")],
        &[("origin", "http://127.0.0.1")],
        &[("origin", "null")],
        &[
            ("sec-fetch-site", "cross-site"),
            ("origin", "http://127.0.0.1:3001"),
        ],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
        &[
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "same-origin"),
        ],
        &[
            ("origin", "http://127.0.0.1:3001"),
            ("origin", "http://evil.example"),
        ],
    ];
    for headers in strange {
        for fields in [
            end(&session),
            "do=end_all&principal=alice".into(),
            "do=drain".into(),
        ] {
            let form = headers
                .iter()
                .fold(form(), |form, (name, value)| form.header(*name, *value));
            let answer = submit(&page, form, fields.clone()).await;
            assert_eq!(answer.status, 403, "{headers:?} {fields}");
        }
    }
    assert!(is_live(&store, session.id().expose()).await);
    assert_eq!(sessions.count().await.unwrap(), 1);
    assert!(!get(&page, "").await.body.contains("Draining"));
}

#[tokio::test(start_paused = true)]
async fn a_change_is_taken_from_the_page_itself_and_from_what_is_no_browser() {
    let own: [&[(&str, &str)]; 4] = [
        &[],
        &[("origin", "http://127.0.0.1:3001")],
        &[("sec-fetch-site", "same-origin")],
        // A proxy in front may rewrite `Host`, but a browser does not lie about this.
        &[
            ("sec-fetch-site", "same-origin"),
            ("origin", "https://mcp.example.com"),
        ],
    ];
    for headers in own {
        let store = MemoryStore::new();
        let session = session(&store, "a", None).await;
        let (page, _) = page(&store);
        let form = headers
            .iter()
            .fold(form(), |form, (name, value)| form.header(*name, *value));
        let answer = submit(&page, form, end(&session)).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some("?ended=1"))
        );
        assert!(!is_live(&store, session.id().expose()).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_whose_name_was_made_to_mean_this_host_reads_and_changes_nothing() {
    let store = MemoryStore::new();
    let session = session(&store, "a", Some("alice")).await;
    let (page, _) = page(&store);
    for host in [
        "evil.example",
        "evil.example:3001",
        "127.0.0.1.evil.example",
        "x@127.0.0.1:3001",
        "",
    ] {
        let with_host = |form: Builder| {
            let mut request = form.body(Body::from(end(&session))).unwrap();
            request.headers_mut().insert("host", host.parse().unwrap());
            request
                .headers_mut()
                .insert("origin", format!("http://{host}").parse().unwrap());
            request
        };
        let read = send(&page, with_host(look(""))).await;
        assert_eq!(
            (read.status, read.body.contains("alice")),
            (403, false),
            "{host}"
        );
        assert_eq!(send(&page, with_host(form())).await.status, 403, "{host}");
    }
    let without = Request::get("/").body(Body::empty()).unwrap();
    assert_eq!(send(&page, without).await.status, 403);
    let doubled = look("")
        .header("host", "evil.example")
        .body(Body::empty())
        .unwrap();
    assert_eq!(send(&page, doubled).await.status, 403);
    assert!(is_live(&store, session.id().expose()).await);
}

#[tokio::test(start_paused = true)]
async fn hosts_are_allowed_with_any_port_or_with_one() {
    let hosts = AllowedHosts::new(["MCP.example.com", "other.example.com:8443"]);
    let page = admin::router(McpSessionLayer::new(MemoryStore::new()).sessions(), &hosts);
    let status = async |host: &str| {
        let request = Request::get("/")
            .header("host", host)
            .body(Body::empty())
            .unwrap();
        send(&page, request).await.status
    };
    for host in [
        "mcp.example.com",
        "mcp.EXAMPLE.com:444",
        "other.example.com:8443",
    ] {
        assert_eq!(status(host).await, 200, "{host}");
    }
    for host in ["other.example.com", "other.example.com:443", "127.0.0.1"] {
        assert_eq!(status(host).await, 403, "{host}");
    }
    // HTTP/2 has no `Host`.
    for (url, expected) in [
        ("http://mcp.example.com/", 200),
        ("http://evil.example/", 403),
    ] {
        let request = Request::get(url).body(Body::empty()).unwrap();
        assert_eq!(send(&page, request).await.status, expected, "{url}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_list_is_shown_in_pages() {
    let store = MemoryStore::new();
    let mut all = BTreeSet::new();
    for _ in 0..120 {
        all.insert(session(&store, "a", None).await.reference().to_string());
    }
    let (page, _) = page(&store);
    let (mut query, mut seen, mut pages) = (String::new(), BTreeSet::new(), 0);
    loop {
        let body = get(&page, &query).await.body;
        let rows = body.matches("<code title=\"").count();
        assert!(rows <= 50, "{rows}");
        for row in body.split("<code title=\"").skip(1) {
            let (reference, _) = row.split_once('"').unwrap();
            assert!(seen.insert(reference.to_owned()), "{reference} twice");
        }
        pages += 1;
        let Some((_, next)) = body.split_once("href=\"?after=") else {
            break;
        };
        query = format!("?after={}", next.split_once('"').unwrap().0);
    }
    assert_eq!((pages, seen), (3, all));
    assert_eq!(get(&page, "?after=nonsense").await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn all_sessions_of_a_principal_end() {
    let store = MemoryStore::new();
    let name = "a&b=c <d>";
    for principal in [Some(name), Some(name), Some("bob"), None] {
        session(&store, "a", principal).await;
    }
    let (page, sessions) = page(&store);
    let fields = "do=end_all&principal=a%26b%3Dc+%3Cd%3E".to_owned();
    let answer = submit(&page, form(), fields).await;
    assert_eq!(answer.header("location"), Some("?ended=2"));
    assert_eq!(sessions.count().await.unwrap(), 2);
    assert!(
        get(&page, "?ended=2")
            .await
            .body
            .contains("2 sessions ended.")
    );
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_says_so() {
    let layer = McpSessionLayer::new(MemoryStore::new());
    let page = admin::router(layer.sessions(), &AllowedHosts::loopback());
    let inner = service_fn(async |_: Request<Body>| {
        Ok::<_, std::convert::Infallible>(Response::new(Body::from(RESULT)))
    });
    let mcp = layer.layer(inner);
    assert_eq!(submit(&page, form(), "do=drain".into()).await.status, 303);
    assert!(get(&page, "").await.body.contains("Draining"));
    assert_eq!(send(&mcp, initialize()).await.status, 503);
}

#[tokio::test(start_paused = true)]
async fn a_form_that_is_none_is_refused() {
    let (page, _) = page(&MemoryStore::new());
    for (fields, status) in [
        ("do=end&session=nonsense", 400),
        ("do=explode", 422),
        ("", 422),
    ] {
        assert_eq!(
            submit(&page, form(), fields.into()).await.status,
            status,
            "{fields}"
        );
    }
    let long = format!("do=end_all&principal={}", "a".repeat(20_000));
    assert_eq!(submit(&page, form(), long).await.status, 413);
}

/// For routes of the application's own beside the page.
#[tokio::test]
async fn other_routes_are_protected_too() {
    let drain = Router::new().route("/", post(async || StatusCode::NO_CONTENT));
    let drain = AllowedHosts::loopback().protect(drain);
    assert_eq!(submit(&drain, form(), String::new()).await.status, 204);
    let cross_site = form().header("sec-fetch-site", "cross-site");
    assert_eq!(submit(&drain, cross_site, String::new()).await.status, 403);
}

#[tokio::test(start_paused = true)]
async fn it_works_wherever_it_is_mounted() {
    let store = MemoryStore::new();
    let session = session(&store, "a", None).await;
    let (page, _) = page(&store);
    let app = Router::new().nest("/admin/sessions", page);
    let at = |method| {
        Request::builder()
            .method(method)
            .uri("/admin/sessions")
            .header("host", HOST)
    };
    let shown = send(&app, at("GET").body(Body::empty()).unwrap()).await;
    assert_eq!(shown.status, 200);
    assert!(
        !shown.body.contains("action="),
        "forms go to where the page is"
    );
    let form = at("POST").header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(submit(&app, form, end(&session)).await.status, 303);
}
