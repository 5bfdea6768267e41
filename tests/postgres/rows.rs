//! The table: how it is made, read, changed and swept.

use std::time::Duration;

use mcp_session_layer::{
    ClientInfo, PostgresStore, Session, SessionId, SessionStore as _,
    sqlx::{self, AssertSqlSafe, PgPool, Row as _},
    store::{AtLimit, Created, Directory as _, EndReason, SessionFilter, StoreErrorKind, Terms},
};
use tokio::time::sleep;

use crate::{
    Fixture, pool_options,
    sql::{LONG, listen_to_the_log, logged, session, terms, terms_of, unique},
};

#[tokio::test(flavor = "multi_thread")]
async fn migrations_may_run_again_and_at_once() {
    let Some(pool) = Fixture::pool().await else {
        return;
    };
    let table = unique();
    let store = PostgresStore::new(pool.clone()).with_table(&table);
    let migrate = |_| {
        let store = store.clone();
        tokio::spawn(async move { store.migrate().await })
    };
    for migrated in futures_util::future::join_all((0..8).map(migrate)).await {
        migrated.unwrap().unwrap();
    }
    let session = session();
    store.create(&session, &terms()).await.unwrap();
    store.migrate().await.unwrap();
    assert!(
        store.load(session.id()).await.unwrap().is_some(),
        "nothing is lost"
    );
    Fixture { store, pool, table }.drop().await;
}

/// A migration at a node's start must not wait for, or hold up, the sessions in use on the others.
#[tokio::test]
async fn a_migration_that_was_done_locks_nothing() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let mut vacuum = fixture.pool.begin().await.unwrap();
    let lock = format!(
        "lock table \"{}\" in share update exclusive mode",
        fixture.table
    );
    sqlx::raw_sql(AssertSqlSafe(lock))
        .execute(&mut *vacuum)
        .await
        .unwrap();
    let migrated = tokio::time::timeout(LONG, fixture.store.migrate());
    migrated.await.expect("waits for a vacuum").unwrap();
    vacuum.rollback().await.unwrap();
    fixture.drop().await;
}

#[tokio::test]
async fn the_shipped_files_make_the_table() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let schema = unique();
    let run = |sql: String| sqlx::raw_sql(AssertSqlSafe(sql)).execute(&fixture.pool);
    run(format!("create schema \"{schema}\"")).await.unwrap();
    let options = fixture.pool.connect_options().as_ref().clone();
    let options = options.options([("search_path", &schema)]);
    let pool: PgPool = pool_options().connect_with(options).await.unwrap();
    for _ in 0..2 {
        for file in [
            include_str!("../../migrations/postgres/0001_sessions.sql"),
            include_str!("../../migrations/postgres/0002_values.sql"),
        ] {
            sqlx::raw_sql(file).execute(&pool).await.unwrap();
        }
    }
    let store = PostgresStore::new(pool);
    let session = session();
    store.create(&session, &terms()).await.unwrap();
    assert!(store.load(session.id()).await.unwrap().is_some());
    run(format!("drop schema \"{schema}\" cascade"))
        .await
        .unwrap();
    fixture.drop().await;
}

#[tokio::test]
async fn each_verb_is_one_statement_unless_a_touch_writes() {
    listen_to_the_log();
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let store = &fixture.store;
    let count = || logged(&fixture.table).len();
    let (first, second) = (session(), session());
    let evicting = Terms {
        total: 1.try_into().ok(),
        per_principal: 1.try_into().ok(),
        at_limit: AtLimit::Evict {
            unused: Duration::ZERO,
            untouched: Duration::ZERO,
        },
        ..terms()
    };
    let before = count();
    store.create(&first, &evicting).await.unwrap();
    assert_eq!(count() - before, 1, "create");
    let created = store.create(&second, &evicting).await.unwrap();
    assert!(
        matches!(
            created,
            Created::New {
                evicted: Some(_),
                ..
            }
        ),
        "{created:?}"
    );
    assert_eq!(count() - before, 2, "create, evicting");
    let (id, owner) = (second.id(), second.owner());
    store.load(id).await.unwrap();
    assert_eq!(count() - before, 3, "load");
    store.touch(id, owner, LONG).await.unwrap();
    assert_eq!(count() - before, 5, "touch, the first: it writes");
    store.touch(id, owner, LONG).await.unwrap();
    assert_eq!(count() - before, 6, "touch");
    store.claim(id, owner, LONG).await.unwrap();
    assert_eq!(count() - before, 7, "claim");
    store.expire(id).await.unwrap();
    assert_eq!(count() - before, 8, "expire");
    store.delete(id, EndReason::Deleted).await.unwrap();
    assert_eq!(count() - before, 9, "delete");
    fixture.drop().await;
}

#[tokio::test]
async fn no_statement_and_no_row_holds_an_id() {
    listen_to_the_log();
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let session = session();
    fixture.store.create(&session, &terms()).await.unwrap();
    fixture
        .store
        .touch(session.id(), session.owner(), LONG)
        .await
        .unwrap();
    let dump = format!(
        "select string_agg(t::text, '') from \"{0}\" t",
        fixture.table
    );
    let dump: String = sqlx::query_scalar(AssertSqlSafe(dump))
        .fetch_one(&fixture.pool)
        .await
        .unwrap();
    let hex: String = session
        .id()
        .expose()
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(!dump.contains(session.id().expose()) && !dump.contains(&hex));
    assert!(logged(session.id().expose()).is_empty());
    fixture.drop().await;
}

#[tokio::test]
async fn what_is_unreadable_is_corrupt_and_what_is_missing_has_failed() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let store = &fixture.store;
    // The last is what a newer version of this crate writes, as while it is rolled out.
    let newer = r#"named_values = convert_to('{"format":2,"revision":1,"values":{}}', 'UTF8')"#;
    for damage in ["client_name = '\\xff'", "client_version = null", newer] {
        let mut record = session().record();
        record.client = Some(ClientInfo {
            name: "c".to_owned(),
            version: "1".to_owned(),
        });
        let session = Session::new(SessionId::issue(), record);
        store.create(&session, &terms()).await.unwrap();
        let damage = format!("update \"{}\" set {damage}", fixture.table);
        sqlx::raw_sql(AssertSqlSafe(damage))
            .execute(&fixture.pool)
            .await
            .unwrap();
        let error = store.load(session.id()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error:?}");
        let error = store
            .touch(session.id(), session.owner(), LONG)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error:?}");
        assert!(
            store
                .delete(session.id(), EndReason::Deleted)
                .await
                .unwrap()
        );
    }
    let nowhere = store.clone().with_table(&unique());
    let error = nowhere.load(session().id()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Failed, "{error:?}");
    fixture.drop().await;
}

/// A creation that has not looked for marks yet when all are ended sees the mark.
#[tokio::test]
async fn a_create_during_end_all_is_revoked() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let store = fixture.store.clone();
    let session = session();
    // What end_all does, step by step.
    let mut ending = fixture.pool.begin().await.unwrap();
    let lock = format!(
        "lock table \"{}_revoked\" in share row exclusive mode",
        fixture.table
    );
    sqlx::raw_sql(AssertSqlSafe(lock))
        .execute(&mut *ending)
        .await
        .unwrap();
    let newcomer = session.clone();
    let creation = tokio::spawn(async move { store.create(&newcomer, &terms()).await });
    sleep(Duration::from_millis(300)).await;
    assert!(!creation.is_finished(), "a creation waits for the mark");
    let mark = format!(
        "insert into \"{}_revoked\" (scope, everyone, at) values ($1, true, clock_timestamp())",
        fixture.table
    );
    let mark = sqlx::query(AssertSqlSafe(mark)).bind(session.owner().scope.as_str().as_bytes());
    mark.execute(&mut *ending).await.unwrap();
    ending.commit().await.unwrap();
    assert_eq!(creation.await.unwrap().unwrap(), Created::Revoked);
    assert!(fixture.store.load(session.id()).await.unwrap().is_none());
    fixture.drop().await;
}

/// A creation that has looked for marks already when all are ended is waited for, and ended with the others.
#[tokio::test]
async fn a_create_before_end_all_is_ended() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let session = session();
    fixture.store.create(&session, &terms()).await.unwrap();
    // What a creation does, step by step: its gate, and a row.
    let mut creation = fixture.pool.begin().await.unwrap();
    let steps = format!(
        "delete from \"{0}_revoked\" where false;
        insert into \"{0}\" select sha256(reference), scope, principal, by_layer, client_name, client_version,
            protocol_version, initialize_params, created, latest_touch, used, expires, life_ends from \"{0}\"",
        fixture.table
    );
    sqlx::raw_sql(AssertSqlSafe(steps))
        .execute(&mut *creation)
        .await
        .unwrap();
    let store = fixture.store.clone();
    let filter = SessionFilter::Owner(session.owner().clone());
    let end = tokio::spawn(async move { store.end_all(&filter, EndReason::Revoked).await });
    sleep(Duration::from_millis(300)).await;
    assert!(!end.is_finished(), "it waits for the creation");
    creation.commit().await.unwrap();
    assert_eq!(end.await.unwrap().unwrap(), 2);
    fixture.drop().await;
}

#[tokio::test]
async fn many_can_end_all_at_once() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let filter = SessionFilter::Scope(session().owner().scope.clone());
    for _ in 0..50 {
        fixture.store.create(&session(), &terms()).await.unwrap();
    }
    let all = (0..8).map(|_| fixture.store.end_all(&filter, EndReason::Revoked));
    let mut ended = 0;
    for count in futures_util::future::join_all(all).await {
        ended += count.unwrap();
    }
    assert_eq!(ended, 50);
    fixture.drop().await;
}

#[tokio::test]
async fn expired_rows_are_swept_in_batches() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let (live, expired) = (session(), session());
    fixture.store.create(&live, &terms()).await.unwrap();
    fixture
        .store
        .create(&expired, &terms_of(Duration::ZERO))
        .await
        .unwrap();
    let copies = format!(
        "insert into \"{0}\" select sha256(i::text::bytea), scope, principal, by_layer, client_name, client_version,
            protocol_version, initialize_params, created, latest_touch, used, expires, life_ends
        from \"{0}\", generate_series(1, 1499) i where expires <= now();
        insert into \"{0}_revoked\" values ('', true, null, now() - interval '2 hours'), ('', true, null, now())",
        fixture.table
    );
    sqlx::raw_sql(AssertSqlSafe(copies))
        .execute(&fixture.pool)
        .await
        .unwrap();
    for expected in [1000, 500, 0] {
        assert_eq!(fixture.store.sweep().await.unwrap(), expected);
    }
    assert!(fixture.store.load(live.id()).await.unwrap().is_some());
    let marks = format!("select count(*) from \"{}_revoked\"", fixture.table);
    let marks: i64 = sqlx::query_scalar(AssertSqlSafe(marks))
        .fetch_one(&fixture.pool)
        .await
        .unwrap();
    assert_eq!(marks, 1, "a mark is kept for an hour");
    fixture.drop().await;
}

#[tokio::test]
async fn sweeping_goes_on_after_an_error() {
    let Some(pool) = Fixture::pool().await else {
        return;
    };
    let table = unique();
    let store = PostgresStore::new(pool.clone()).with_table(&table);
    let sweeper = tokio::spawn(store.clone().keep_swept(Duration::from_millis(50)));
    sleep(Duration::from_millis(200)).await;
    store.sweep().await.expect_err("there is no table");
    store.migrate().await.unwrap();
    store
        .create(&session(), &terms_of(Duration::ZERO))
        .await
        .unwrap();
    let rows = format!("select count(*) from \"{table}\"");
    let swept = async {
        while sqlx::query(AssertSqlSafe(rows.clone()))
            .fetch_one(&pool)
            .await
            .unwrap()
            .get::<i64, _>(0)
            > 0
        {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), swept)
        .await
        .expect("it is swept");
    sweeper.abort();
    _ = sweeper.await;
    Fixture { store, pool, table }.drop().await;
}
