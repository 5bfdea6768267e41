//! A server that is away is an error, never an absence, and is used again as soon as it is back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mcp_session_layer::{
    PostgresStore, Session, SessionStore as _,
    sqlx::{self, PgPool, postgres::PgConnectOptions},
    store::{Created, Directory as _, EndReason, SessionFilter, StoreError, StoreErrorKind},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    Fixture,
    cluster::Cluster,
    pool_options,
    proxy::Proxy,
    sql::{LONG, session, terms},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_survived() {
    outage(|cluster| cluster.stop("INT"), Cluster::start_again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_survived() {
    outage(|cluster| cluster.stop("KILL"), Cluster::start_again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_survived() {
    outage(
        |cluster| cluster.signal_all("STOP"),
        |cluster| cluster.signal_all("CONT"),
    )
    .await;
}

/// Breaks a server under load for longer than a call may take, and puts it in order again.
async fn outage(break_it: fn(&mut Cluster), repair_it: fn(&mut Cluster)) {
    let Some(mut cluster) = tokio::task::block_in_place(Cluster::start) else {
        return;
    };
    let (store, session) = with_session(cluster.options()).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        callers.spawn(call(store.clone(), session.clone(), Arc::clone(&is_over)));
    }
    sleep(Duration::from_millis(300)).await;
    tokio::task::block_in_place(|| break_it(&mut cluster));
    sleep(Duration::from_secs(4)).await;
    let during = timeout(A_CALL, store.load(session.id())).await;
    assert!(!matches!(during, Ok(Ok(_))), "it is broken: {during:?}");
    tokio::task::block_in_place(|| {
        repair_it(&mut cluster);
        cluster.wait_until_ready();
    });
    let back = Instant::now();
    while !matches!(touch(&store, &session).await, Ok(Ok(Some(_)))) {
        let elapsed = back.elapsed();
        assert!(elapsed < TWO_SECONDS * 2, "not served again: {elapsed:?}");
    }
    eprintln!("served again after {:?}", back.elapsed());
    is_over.store(true, Ordering::SeqCst);
    while let Some(failures) = callers.join_next().await {
        assert!(failures.unwrap() > 0, "every caller noticed");
    }
    // The whole pool is of use again, and ends are still told.
    let all = (0..8).map(|_| touch(&store, &session));
    for answer in futures_util::future::join_all(all).await {
        assert!(matches!(answer, Ok(Ok(Some(_)))), "{answer:?}");
    }
    assert!(
        store
            .delete(session.id(), EndReason::Deleted)
            .await
            .unwrap()
    );
}

/// Calls again and again, and counts the failures.
async fn call(store: PostgresStore, session: Session, is_over: Arc<AtomicBool>) -> u32 {
    let mut failures = 0;
    while !is_over.load(Ordering::SeqCst) {
        match touch(&store, &session).await {
            Ok(Ok(found)) => assert!(found.is_some(), "a server that is away is no absence"),
            Ok(Err(error)) => {
                assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
                failures += 1;
                sleep(Duration::from_millis(20)).await;
            }
            Err(_too_long) => failures += 1,
        }
    }
    failures
}

#[tokio::test]
async fn backends_that_are_terminated_are_replaced() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let session = session();
    let store = &fixture.store;
    store.create(&session, &terms()).await.unwrap();
    let victims = Fixture::pool().await.unwrap();
    let victims = PostgresStore::new(victims).with_table(&fixture.table);
    for _ in 0..3 {
        victims
            .touch(session.id(), session.owner(), LONG)
            .await
            .unwrap();
        let terminated: i64 = sqlx::query_scalar(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
            where pid <> pg_backend_pid() and query like $1",
        )
        .bind(format!("%{}%", fixture.table))
        .fetch_one(&fixture.pool)
        .await
        .unwrap();
        assert!(terminated > 0);
        let found = victims.touch(session.id(), session.owner(), LONG).await;
        match found {
            Ok(found) => assert!(found.is_some()),
            Err(error) => assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}"),
        }
        let found = victims.load(session.id()).await;
        assert!(matches!(found, Ok(Some(_))), "{found:?}");
    }
    fixture.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_an_error_until_it_is_promoted() {
    let Some(primary) = tokio::task::block_in_place(Cluster::start) else {
        return;
    };
    let (on_primary, live) = with_session(primary.options()).await;
    let standby = tokio::task::block_in_place(|| primary.standby());
    let pool = pool_options()
        .connect_with(standby.options())
        .await
        .unwrap();
    let store = PostgresStore::new(pool.clone());
    let (owner, filter) = (live.owner(), SessionFilter::Owner(live.owner().clone()));
    for session in [&live, &session()] {
        let (id, reference) = (session.id(), session.reference());
        away(store.load(id).await);
        away(store.touch(id, owner, LONG).await);
        away(store.claim(id, owner, LONG).await);
        away(store.delete(id, EndReason::Deleted).await);
        away(store.create(session, &terms()).await);
        away(store.end(&owner.scope, reference, EndReason::Deleted).await);
    }
    away(store.count(&filter).await);
    away(store.list(&filter, None, 10).await);
    away(store.end_all(&filter, EndReason::Revoked).await);
    assert!(on_primary.load(live.id()).await.unwrap().is_some());

    drop(primary);
    sqlx::query("select pg_promote()")
        .execute(&pool)
        .await
        .unwrap();
    let found = store.touch(live.id(), owner, LONG).await;
    assert!(matches!(found, Ok(Some(_))), "{found:?}");
    assert!(store.load(session().id()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_server_that_only_reads_is_away() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let session = session();
    fixture.store.create(&session, &terms()).await.unwrap();
    let read_only = [("default_transaction_read_only", "on")];
    let options = fixture.pool.connect_options().as_ref().clone();
    let pool = pool_options()
        .connect_with(options.options(read_only))
        .await
        .unwrap();
    let store = PostgresStore::new(pool).with_table(&fixture.table);
    for id in [session.id(), crate::sql::session().id()] {
        away(store.touch(id, session.owner(), LONG).await);
        away(store.delete(id, EndReason::Deleted).await);
    }
    assert!(
        fixture
            .store
            .delete(session.id(), EndReason::Deleted)
            .await
            .unwrap()
    );
    fixture.drop().await;
}

/// A connection whose other end is gone without a word does not answer, and does not fail either.
#[tokio::test]
async fn dropped_calls_do_not_use_up_the_pool() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let options = fixture.pool.connect_options().as_ref().clone();
    let proxy = Proxy::to(options.get_host(), options.get_port()).await;
    let options = proxy.between(options);
    let pool = pool_options()
        .max_connections(2)
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .unwrap();
    let store = PostgresStore::new(pool).with_table(&fixture.table);
    let session = session();
    store.create(&session, &terms()).await.unwrap();
    let both = || async { tokio::join!(touch(&store, &session), touch(&store, &session)) };
    assert!(matches!(both().await, (Ok(Ok(Some(_))), Ok(Ok(Some(_))))));

    // `sqlx` asks for a sign of life after each call.
    sleep(Duration::from_millis(200)).await;
    proxy.lose_connections();
    let lost = both().await;
    assert!(matches!(lost, (Err(_), Err(_))), "{lost:?}");
    sleep(TWO_SECONDS).await;
    let found = both().await;
    assert!(
        matches!(found, (Ok(Ok(Some(_))), Ok(Ok(Some(_))))),
        "{found:?}"
    );
    fixture.drop().await;
}

async fn with_session(options: PgConnectOptions) -> (PostgresStore, Session) {
    let pool: PgPool = pool_options()
        .max_connections(4)
        .connect_with(options)
        .await
        .unwrap();
    let store = PostgresStore::new(pool);
    store.migrate().await.unwrap();
    let session = session();
    let created = store.create(&session, &terms()).await.unwrap();
    assert!(matches!(created, Created::New { .. }), "{created:?}");
    (store, session)
}

/// A touch as the layer calls it: dropped when it takes too long.
async fn touch(
    store: &PostgresStore,
    session: &Session,
) -> Result<Result<Option<mcp_session_layer::store::Found>, StoreError>, tokio::time::error::Elapsed>
{
    timeout(A_CALL, store.touch(session.id(), session.owner(), LONG)).await
}

fn away<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    let error = answer.expect_err("nobody who does not know may answer");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
}

const A_CALL: Duration = Duration::from_secs(3);
/// How soon a server that is back is used again. On a busy machine it may take twice that.
const TWO_SECONDS: Duration = Duration::from_secs(2);
