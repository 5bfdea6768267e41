//! How many touches a store answers in a second, beside what the tool that comes with its server gets from it.
//!
//! `stores postgres`, `stores sqlite`, `stores redis`: prints a table in Markdown. PostgreSQL is sought at
//! `DATABASE_URL` and Redis at `REDIS_URL`, else at their usual addresses. Both sides of a row take turns within one
//! run, because a busy machine is slower for both; numbers of two runs compare nothing.

use std::{
    error::Error,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use mcp_session_layer::{
    Issuer, Owner, PostgresStore, Principal, RedisStore, Scope, Session, SessionId, SessionRecord,
    SessionStore, SqliteStore,
    sqlx::{
        self, AssertSqlSafe,
        postgres::{PgConnectOptions, PgPoolOptions},
    },
    store::{AtLimit, EndReason, Terms},
};

use tokio::runtime::Builder;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    // `cargo bench` adds an option of its own.
    let mut args = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"));
    let threads = Builder::new_multi_thread().enable_all().build()?;
    match args.next().as_deref() {
        Some("postgres") => threads.block_on(postgres()),
        Some("sqlite") => threads.block_on(sqlite()),
        // As redis-benchmark, which has one thread too.
        Some("redis") => Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(redis()),
        _ => Err("usage: stores postgres|sqlite|redis".into()),
    }
}

async fn postgres() -> Result<()> {
    let url = std::env::var("DATABASE_URL");
    let url = url.unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".to_owned());
    let options: PgConnectOptions = url.parse()?;
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .test_before_acquire(false)
        .acquire_timeout(Duration::from_secs(2))
        .connect_with(options)
        .await?;
    let table = format!("bench_{}", std::process::id());
    let store = PostgresStore::new(pool.clone()).with_table(&table);
    store.migrate().await?;
    let sessions = create(&store).await?;
    let vacuum = format!("vacuum analyze \"{table}\"");
    sqlx::raw_sql(AssertSqlSafe(vacuum)).execute(&pool).await?;

    let row = "\\set n random(0, 1999)\n";
    let key = "where reference = sha256(convert_to('bench-' || :n, 'UTF8')) and scope = 'mcp' and principal = 'a'
        and expires > clock_timestamp()";
    let columns = "reference, by_layer, client_name, client_version, protocol_version, created, expires, life_ends";
    let select =
        format!("{row}select {columns} from \"{table}\" {key};").replace("\n        ", " ");
    let update = format!(
        "{row}update \"{table}\" set used = true, latest_touch = clock_timestamp(), expires = greatest(expires, least(
        clock_timestamp() + interval '1 hour', life_ends)) {key} returning {columns};"
    )
    .replace("\n        ", " ");

    // What a touch sends that finds in the store that it has to write.
    let find = select.replace(';', " and latest_touch > clock_timestamp();");
    let both = format!("{find}\n{}", update.trim_start_matches(row));

    println!(
        "| 64 callers, 16 connections to PostgreSQL | touches/s | pgbench | touches/s | ratio |\n|---|--:|---|--:|--:|"
    );
    for (name, idle, tool, script) in [
        ("skips its write", HOUR, "select", select),
        ("writes", Duration::ZERO, "update", update),
        ("writes", Duration::ZERO, "select, then update", both),
    ] {
        let ours = async || touches(&store, &sessions, 64, idle).await;
        let theirs = || pgbench(&url, &script);
        let [ours, theirs] = in_turns(ours, theirs).await?;
        let ratio = ours / theirs;
        println!("| a touch that {name} | {ours:.0} | {tool} | {theirs:.0} | {ratio:.2} |");
    }
    for table in [&table, &format!("{table}_revoked")] {
        let drop = AssertSqlSafe(format!("drop table \"{table}\""));
        sqlx::raw_sql(drop).execute(&pool).await?;
    }
    Ok(())
}

async fn sqlite() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("bench-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let store = SqliteStore::open(directory.join("sessions.db")).await?;
    let sessions = create(&store).await?;
    println!("| callers of SQLite | touches/s that skip their write | that write |\n|--:|--:|--:|");
    for callers in [1, 64] {
        let mut rates = Vec::new();
        for idle in [HOUR, Duration::ZERO] {
            let one = async || touches(&store, &sessions, callers, idle).await;
            rates.push(median([one().await?, one().await?, one().await?]));
        }
        println!("| {callers} | {:.0} | {:.0} |", rates[0], rates[1]);
    }
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

async fn redis() -> Result<()> {
    let url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned());
    let prefix = format!("bench-{}", std::process::id());
    let store = RedisStore::connect(url.as_str()).await?.with_prefix(prefix);
    let sessions = create(&store).await?;
    println!(
        "| callers of Redis | skips its write | writes | redis-benchmark GET |\n|--:|--:|--:|--:|"
    );
    for callers in [1, 64, 512] {
        let mut rates = Vec::new();
        for idle in [HOUR, Duration::ZERO] {
            let ours = async || touches(&store, &sessions, callers, idle).await;
            let [ours, theirs] = in_turns(ours, || redis_benchmark(&url, callers)).await?;
            rates.extend([ours, theirs]);
        }
        println!(
            "| {callers} | {:.0} | {:.0} | {:.0} |",
            rates[0],
            rates[2],
            rates[1].max(rates[3])
        );
    }
    for session in sessions.iter() {
        store.delete(session.id(), EndReason::Deleted).await?;
    }
    Ok(())
}

/// Sessions that have been touched once, which a touch always writes.
async fn create<S: SessionStore>(store: &S) -> Result<Arc<[Session]>> {
    let owner = Owner {
        scope: Scope::default(),
        principal: Some(Principal::new("a")),
    };
    let terms = Terms {
        idle: HOUR,
        initial_idle: HOUR,
        life: None,
        total: None,
        per_principal: None,
        at_limit: AtLimit::Refuse,
        started_ago: Duration::ZERO,
    };
    let mut sessions = Vec::new();
    for n in 0..SESSIONS {
        let id: SessionId = format!("bench-{n}").parse()?;
        let session = Session::new(id, SessionRecord::new(owner.clone(), Issuer::Inner));
        store.create(&session, &terms).await?;
        store.touch(session.id(), &owner, HOUR).await?;
        sessions.push(session);
    }
    Ok(sessions.into())
}

/// Touches a second, by this many callers.
async fn touches<S: SessionStore + Clone>(
    store: &S,
    sessions: &Arc<[Session]>,
    callers: usize,
    idle: Duration,
) -> Result<f64> {
    let answered = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (store, sessions, answered) = (store.clone(), sessions.clone(), answered.clone());
            tokio::spawn(async move {
                let mut at = caller * 7919;
                while start.elapsed() < ROUND {
                    at = (at + 104_729) % sessions.len();
                    let session = &sessions[at];
                    let found = store.touch(session.id(), session.owner(), idle).await;
                    assert!(found.is_ok_and(|found| found.is_some()), "it is live");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    Ok(answered.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}

/// The medians of some rounds of each.
async fn in_turns(
    ours: impl AsyncFn() -> Result<f64>,
    theirs: impl Fn() -> Result<f64>,
) -> Result<[f64; 2]> {
    let (mut one, mut other) = ([0.0; 3], [0.0; 3]);
    for (one, other) in one.iter_mut().zip(&mut other) {
        *one = ours().await?;
        *other = theirs()?;
    }
    Ok([one, other].map(median))
}

fn median(mut rounds: [f64; 3]) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[1]
}

fn pgbench(url: &str, script: &str) -> Result<f64> {
    let file = std::env::temp_dir().join(format!("bench-{}.sql", std::process::id()));
    std::fs::write(&file, script)?;
    let output = Command::new("pgbench")
        .args([
            "-n",
            "-M",
            "prepared",
            "-c",
            &CONNECTIONS.to_string(),
            "-j",
            "2",
        ])
        .args(["-T", &ROUND.as_secs().to_string(), "-f"])
        .arg(&file)
        .arg(url)
        .output()?;
    std::fs::remove_file(&file)?;
    let output = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
    let rate = output.lines().find_map(|line| line.strip_prefix("tps = "));
    let rate = rate.and_then(|rate| rate.split(' ').next());
    Ok(rate.ok_or(output.as_str())?.parse()?)
}

fn redis_benchmark(url: &str, callers: usize) -> Result<f64> {
    let server = url.trim_start_matches("redis://");
    let (host, port) = server.split_once(':').unwrap_or((server, "6379"));
    let requests = if callers == 1 { 20_000 } else { 100_000 };
    let output = Command::new("redis-benchmark")
        .args(["-h", host, "-p", port, "-c", &callers.to_string()])
        .args(["-n", &requests.to_string(), "-t", "get", "--csv"])
        .output()?;
    let output = String::from_utf8(output.stdout)?;
    let line = output.lines().find(|line| line.starts_with("\"GET\""));
    let rate = line.and_then(|line| line.split('"').nth(3));
    Ok(rate.ok_or(output.as_str())?.parse()?)
}

const SESSIONS: usize = 2000;
const CONNECTIONS: u32 = 16;
const HOUR: Duration = Duration::from_secs(60 * 60);
const ROUND: Duration = Duration::from_secs(4);
