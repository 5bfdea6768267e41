//! PgBouncer in front of the server: a session pooler, and a transaction pooler that tracks prepared statements.

use std::{
    env,
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use mcp_session_layer::{
    PostgresStore, SessionStore as _,
    sqlx::postgres::{PgConnectOptions, PgSslMode},
    store::FeedEvent,
};

use crate::{
    certificates,
    cluster::{Cluster, as_postgres, free_port, is_root, new_directory, run},
    hearing::{A_WHILE, SOON, end, event, next},
    pool_options,
    sql::{LONG, session, terms},
};

/// Ends with its test.
struct Pooler {
    process: Child,
    directory: PathBuf,
    port: u16,
}

impl Pooler {
    /// Between TLS on either side: what comes in is encrypted with its own certificate.
    fn start(cluster: &Cluster, mode: &str) -> Self {
        let (directory, port) = (new_directory(), free_port());
        certificates::make(&directory);
        let server = cluster.options();
        let settings = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} user=postgres\n\
            [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
            auth_type = any\nignore_startup_parameters = extra_float_digits\npool_mode = {mode}\ndefault_pool_size = 5\nmax_client_conn = 500\n\
            client_tls_sslmode = require\nclient_tls_cert_file = {here}/server.pem\n\
            client_tls_key_file = {here}/server.key\n{}",
            server.get_port(),
            match mode {
                "transaction" => "max_prepared_statements = 200\n",
                _ => "",
            },
            here = directory.display(),
        );
        let file = directory.join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        if is_root() {
            run(Command::new("chown")
                .args(["-R", "postgres"])
                .arg(&directory));
        }
        let mut pooler = as_postgres(&program());
        pooler.arg("-q").arg(&file).stdout(Stdio::null());
        let process = pooler.spawn().expect("pgbouncer is installed");
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "pgbouncer does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            process,
            directory,
            port,
        }
    }

    fn options(&self, cluster: &Cluster) -> PgConnectOptions {
        let options = cluster.options().host("localhost").port(self.port);
        options
            .ssl_mode(PgSslMode::VerifyFull)
            .ssl_root_cert(self.directory.join("ca.pem"))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
        _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The one of `PGBOUNCER`, or else the system's.
fn program() -> PathBuf {
    env::var_os("PGBOUNCER").map_or_else(|| "/usr/sbin/pgbouncer".into(), PathBuf::from)
}

fn start(mode: &str) -> Option<(Cluster, Pooler)> {
    if !program().exists() {
        assert!(env::var_os("CI").is_none(), "no pgbouncer here");
        eprintln!("SKIPPED, because pgbouncer is not installed");
        return None;
    }
    let cluster = Cluster::start()?;
    let pooler = Pooler::start(&cluster, mode);
    Some((cluster, pooler))
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_session_pooler_all_is_as_without() {
    let Some((cluster, pooler)) = tokio::task::block_in_place(|| start("session")) else {
        return;
    };
    // Each connection takes one of the pooler's five, the feed's too.
    let pool = pool_options().max_connections(4);
    let pool = pool.connect_with(pooler.options(&cluster)).await.unwrap();
    let store = PostgresStore::new(pool);
    store.migrate().await.unwrap();
    let mut feed = store.feed().unwrap();
    assert_eq!(next(&mut feed, SOON).await, FeedEvent::Gap);
    let ended = end(&store).await;
    assert_eq!(next(&mut feed, SOON).await, event(&ended));
    let live = session();
    store.create(&live, &terms()).await.unwrap();
    let found = store.touch(live.id(), live.owner(), LONG).await;
    assert!(found.unwrap().is_some());
}

/// With twice as many connections as the pooler has, so that they take turns on them. Not with what Debian 12 has, which
/// knows no prepared statements in this mode:
/// `PGBOUNCER=path cargo test --all-features --test postgres transaction_pooler -- --ignored`
#[cfg(feature = "conformance")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PgBouncer 1.21, named by PGBOUNCER"]
async fn behind_a_transaction_pooler_all_but_the_feed_is_as_without() {
    let Some((cluster, pooler)) = tokio::task::block_in_place(|| start("transaction")) else {
        return;
    };
    let pool = pool_options().max_connections(10);
    let pool = pool.connect_with(pooler.options(&cluster)).await.unwrap();
    let store = PostgresStore::new(pool);
    store.migrate().await.unwrap();
    let mut feed = store.feed().unwrap();
    for _ in 0..2 {
        assert_eq!(next(&mut feed, A_WHILE).await, FeedEvent::Gap);
    }
    drop(feed);
    for case in mcp_session_layer::conformance::CASES {
        if !of_the_feed(case) {
            mcp_session_layer::conformance::one(case, &store, tokio::time::sleep).await;
        }
    }
}

#[cfg(feature = "conformance")]
fn of_the_feed(case: &str) -> bool {
    let heard = ["heard", "announced"];
    heard.iter().any(|heard| case.contains(heard))
}
