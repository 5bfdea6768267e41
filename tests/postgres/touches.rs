//! Touches: when they are written, and what they cost.

use std::time::Duration;

use mcp_session_layer::{
    PostgresStore, Session, SessionId, SessionStore as _,
    sqlx::{self, AssertSqlSafe, Row as _},
    store::Expiry,
};
use tokio::time::sleep;

use crate::{
    Fixture,
    sql::{self, LONG, session, terms, terms_of},
};

/// A row that is locked when a touch arrives is looked at again when it is free.
#[tokio::test]
async fn a_touch_that_waited_does_not_wake_the_expired() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let session = session();
    let idle = Duration::from_secs(1);
    fixture
        .store
        .create(&session, &terms_of(idle))
        .await
        .unwrap();
    let mut other = fixture.pool.begin().await.unwrap();
    let lock = format!("update \"{}\" set used = used", fixture.table);
    sqlx::raw_sql(AssertSqlSafe(lock))
        .execute(&mut *other)
        .await
        .unwrap();
    let (store, waiting) = (fixture.store.clone(), session.clone());
    let touch = tokio::spawn(async move { store.touch(waiting.id(), waiting.owner(), LONG).await });
    sleep(idle).await;
    assert!(!touch.is_finished(), "it waits for the row");
    assert!(fixture.store.load(session.id()).await.unwrap().is_none());
    other.commit().await.unwrap();
    assert!(touch.await.unwrap().unwrap().is_none());
    assert!(fixture.store.load(session.id()).await.unwrap().is_none());
    fixture.drop().await;
}

/// The time of a session is up while a touch of its last moment is still being written: another one waits for it, and does not
/// take the session for absent.
#[tokio::test]
async fn a_touch_waits_for_what_another_makes_of_the_session() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let session = session();
    let idle = Duration::from_millis(500);
    fixture
        .store
        .create(&session, &terms_of(idle))
        .await
        .unwrap();
    let mut other = fixture.pool.begin().await.unwrap();
    let extend = format!(
        "update \"{}\" set expires = clock_timestamp() + interval '1 hour'",
        fixture.table
    );
    sqlx::raw_sql(AssertSqlSafe(extend))
        .execute(&mut *other)
        .await
        .unwrap();
    sleep(idle).await;
    assert!(fixture.store.load(session.id()).await.unwrap().is_none());
    let (store, waiting) = (fixture.store.clone(), session.clone());
    let touch = tokio::spawn(async move { store.touch(waiting.id(), waiting.owner(), LONG).await });
    sleep(Duration::from_millis(300)).await;
    assert!(!touch.is_finished(), "it waits for the row");
    other.commit().await.unwrap();
    assert!(touch.await.unwrap().unwrap().is_some());
    fixture.drop().await;
}

/// A touch that finds the idle time left writes nothing: the row's version stays. The first one, a claim, one that asks
/// for more, and those near the end of life are written.
#[tokio::test]
async fn a_touch_that_is_not_due_writes_nothing() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let version = async |session: &Session| {
        let version = format!(
            "select concat(xmin, ' ', ctid) from \"{}\" where reference = $1",
            fixture.table
        );
        sqlx::query_scalar::<_, String>(AssertSqlSafe(version))
            .bind(&session.reference().as_bytes()[..])
            .fetch_one(&fixture.pool)
            .await
            .unwrap()
    };
    sql::only_touches_that_are_due_are_written(&fixture.store, version).await;
    fixture.drop().await;
}

/// Of touches that arrive at once, all of which find the first one due, none is told that the session is absent.
#[tokio::test(flavor = "multi_thread")]
async fn touches_at_once_all_find_the_session() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    for _ in 0..50 {
        let session = session();
        fixture.store.create(&session, &terms()).await.unwrap();
        let touches = (0..16).map(|_| {
            let (store, session) = (fixture.store.clone(), session.clone());
            tokio::spawn(async move { store.touch(session.id(), session.owner(), LONG).await })
        });
        for touched in futures_util::future::join_all(touches).await {
            let found = touched.unwrap().unwrap().expect("it is live");
            assert!(found.idle_left + Duration::from_secs(9) > LONG, "{found:?}");
        }
    }
    fixture.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_two_nodes_a_session_that_is_served_at_its_deadline_is_not_over() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let other = Fixture::pool().await.unwrap();
    let there = PostgresStore::new(other).with_table(&fixture.table);
    let nodes = [fixture.store.clone(), there];
    sql::deadline::a_session_that_is_served_is_not_over(nodes, Duration::from_secs(5)).await;
    fixture.drop().await;
}

/// A row that a touch holds, and has not shown yet, is waited for: it is the touch's word that counts.
#[tokio::test]
async fn expire_waits_for_a_touch_under_way() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let session = session();
    let idle = Duration::from_millis(300);
    fixture
        .store
        .create(&session, &terms_of(idle))
        .await
        .unwrap();
    // What a touch does, step by step.
    let mut touch = fixture.pool.begin().await.unwrap();
    let extend = format!(
        "update \"{}\" set expires = expires + interval '1 minute'",
        fixture.table
    );
    sqlx::raw_sql(AssertSqlSafe(extend))
        .execute(&mut *touch)
        .await
        .unwrap();
    sleep(idle * 2).await;
    assert!(
        fixture.store.load(session.id()).await.unwrap().is_none(),
        "a read does not see it"
    );
    let (store, waiting) = (fixture.store.clone(), session.clone());
    let expire = tokio::spawn(async move { store.expire(waiting.id()).await });
    sleep(idle).await;
    assert!(!expire.is_finished(), "it waits for the row");
    touch.commit().await.unwrap();
    let expiry = expire.await.unwrap().unwrap();
    assert!(matches!(expiry, Expiry::Left(_)), "{expiry:?}");
    fixture.drop().await;
}

/// What makes a touch cheap: it changes no index, and does not copy the parameters.
#[tokio::test]
async fn a_touch_changes_only_the_row() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let mut record = session().record();
    // What cannot be compressed.
    let params: Vec<u8> = (0..100)
        .flat_map(|_| *SessionId::issue().reference().as_bytes())
        .collect();
    record.initialize_params = Some(params.into());
    let session = Session::new(SessionId::issue(), record);
    fixture.store.create(&session, &terms()).await.unwrap();
    // Each asks for more time than the one before it left.
    let mut idle = LONG;
    for _ in 0..20 {
        idle += idle / 10;
        let touched = fixture.store.touch(session.id(), session.owner(), idle);
        touched.await.unwrap().unwrap();
    }
    let statistics = "select n_tup_upd, n_tup_hot_upd, pg_relation_size(reltoastrelid) > 0
        from pg_stat_user_tables join pg_class on oid = relid where pg_class.relname = $1";
    // The server's statistics are late by a second or so.
    let until = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let row = sqlx::query(statistics)
            .bind(&fixture.table)
            .fetch_one(&fixture.pool)
            .await
            .unwrap();
        let [all, hot] = [0, 1].map(|column| row.get::<i64, _>(column));
        assert!(row.get::<bool, _>(2), "the parameters are kept apart");
        if all == 20 {
            assert_eq!(hot, 20);
            break;
        }
        assert!(
            std::time::Instant::now() < until,
            "{all} touches are counted"
        );
        sleep(Duration::from_millis(200)).await;
    }
    fixture.drop().await;
}
