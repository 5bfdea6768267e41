//! Two processes on one file.

use std::{
    env,
    process::{Command, Output},
    time::Duration,
};

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use mcp_session_layer::{
    Change, McpSessionLayer, Session, SessionEvent, SessionStore as _, SqliteStore, Values, sqlx,
    store::{Directory as _, EndReason, FeedEvent, SessionFilter},
    testing::McpServer,
};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tower::{Layer as _, ServiceExt as _};

use crate::{
    File,
    requests::{get, initialize},
    sql::{LONG, owner, session, terms},
};

/// The other process: ends all sessions in the file.
#[tokio::test]
#[ignore = "is a process of the test below"]
async fn the_other_process() {
    let store = SqliteStore::open(env::var(FILE).unwrap()).await.unwrap();
    let scope = SessionFilter::Scope(owner("a").scope);
    let ended = store.end_all(&scope, EndReason::Revoked).await.unwrap();
    assert_eq!(ended, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_another_process_ends_its_session() {
    let file = File::new();
    let path = file.0.join("sessions.db");
    let layer = McpSessionLayer::new(SqliteStore::open(&path).await.unwrap());
    let mut events = layer.sessions().subscribe();
    let service = layer.layer(McpServer::new());
    let send = |request: Request<Body>| service.clone().oneshot(request);

    let created = send(initialize()).await.unwrap();
    let id = created.headers()["mcp-session-id"].to_str().unwrap();
    let mut stream = send(get(id)).await.unwrap().into_body();

    let other = tokio::task::spawn_blocking(move || another_process(&path));
    let output = other.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    // Without the file's own feed it would be asked for in a third of an hour.
    while let Some(frame) = timeout(SOON, stream.frame()).await.expect("it ends") {
        frame.unwrap();
    }
    let told = async {
        loop {
            let event = events.next().await.expect("the layer is there");
            if let SessionEvent::Ended { reason, .. } = event {
                return reason;
            }
        }
    };
    assert_eq!(timeout(SOON, told).await, Ok(EndReason::Revoked));
}

fn another_process(file: &std::path::Path) -> Output {
    let name = "processes::the_other_process";
    let mut process = Command::new(env::current_exe().unwrap());
    process.args(["--ignored", "--exact", name]).env(FILE, file);
    process.output().unwrap()
}

/// Whatever changes a session is told to whoever has the file open, once.
#[tokio::test]
async fn claims_and_changes_are_heard_and_creations_are_not() {
    let file = File::new();
    let (here, there) = (file.store().await, file.store().await);
    let mut feed = there.feed().unwrap();
    assert_eq!(feed.next().await, Some(FeedEvent::Gap), "before it listens");

    let mut record = session().record();
    record.owner.principal = None;
    record.values = Values::of([("a", "0")]).unwrap();
    let new = Session::new(session().id().clone(), record);
    here.create(&new, &terms()).await.unwrap();
    here.touch(new.id(), new.owner(), LONG).await.unwrap();
    let reference = *new.reference();
    for claim in [1, 2] {
        let claimed = here.claim(new.id(), &owner("a"), LONG).await.unwrap();
        assert!(claimed.is_some(), "{claim}");
    }
    assert_eq!(next(&mut feed).await, FeedEvent::Changed { reference });
    let change = Change::new().set("a", "1");
    here.change(new.id(), &owner("a"), &change).await.unwrap();
    assert_eq!(next(&mut feed).await, FeedEvent::Changed { reference });
    here.delete(new.id(), EndReason::Deleted).await.unwrap();
    let reason = EndReason::Deleted;
    assert_eq!(
        next(&mut feed).await,
        FeedEvent::Ended { reference, reason }
    );
}

#[tokio::test]
async fn ends_that_are_not_kept_any_longer_are_a_gap() {
    let file = File::new();
    let store = file.store().await;
    let pool = crate::pool(file.options()).await;
    let mut feed = store.feed().unwrap();
    assert_eq!(next(&mut feed).await, FeedEvent::Gap);
    let many = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000)
        insert into mcp_sessions_ends (reference, reason) select randomblob(32), 'deleted' from n";
    sqlx::raw_sql(many).execute(&pool).await.unwrap();
    assert_eq!(next(&mut feed).await, FeedEvent::Gap);
    let kept = sqlx::query_scalar::<_, i64>("select count(*) from mcp_sessions_ends");
    assert_eq!(kept.fetch_one(&pool).await.unwrap(), 4096);
}

/// As where somebody runs migrations by hand, and has not yet.
#[tokio::test]
async fn without_its_table_a_feed_says_that_it_hears_nothing() {
    let file = File::new();
    let store = file.store().await;
    let pool = crate::pool(file.options()).await;
    let drop = "drop table mcp_sessions_ends";
    sqlx::raw_sql(drop).execute(&pool).await.unwrap();
    let mut feed = store.feed().unwrap();
    for _ in 0..2 {
        assert_eq!(next(&mut feed).await, FeedEvent::Gap);
    }
}

async fn next(feed: &mut mcp_session_layer::store::Feed) -> FeedEvent {
    let event = timeout(SOON, feed.next()).await;
    event
        .expect("something is heard")
        .expect("a feed does not end")
}

const FILE: &str = "MCP_SQLITE_FILE";
const SOON: Duration = Duration::from_secs(15);
