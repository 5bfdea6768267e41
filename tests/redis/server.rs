//! Servers: the shared one, and some to break.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use mcp_session_layer::RedisStore;

#[cfg(feature = "_tests")]
use crate::certificates;

/// A store on the shared server with a prefix of its own, and the two. `None`: skip the test.
pub(crate) async fn shared() -> Option<(RedisStore, String, String)> {
    let url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned());
    match RedisStore::connect(url.as_str()).await {
        Ok(store) => {
            let prefix = format!("test-{}", uuid::Uuid::new_v4());
            Some((store.with_prefix(prefix.as_str()), url, prefix))
        }
        Err(error) => skip(&format!("no Redis at {url}: {error:?}")),
    }
}

/// A `redis-server` of the test's own, which ends with it.
pub(crate) struct Server {
    process: Child,
    port: u16,
    directory: PathBuf,
    options: Vec<String>,
}

impl Server {
    /// Starts a server with these options (as in `--appendonly yes`). `None`: skip the test.
    pub(crate) fn start(options: &str) -> Option<Self> {
        Self::prepared(options, |_, _| String::new())
    }

    fn prepared(options: &str, prepare: impl FnOnce(&Path, u16) -> String) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("redis-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let more = prepare(&directory, port);
        let options = options.split_whitespace().chain(more.split_whitespace());
        let options = options.map(str::to_owned).collect();
        match spawn(port, &directory, &options) {
            Ok(process) => Some(Self {
                process,
                port,
                directory,
                options,
            }),
            Err(error) => skip(&format!("no redis-server: {error}")),
        }
    }

    /// Its port speaks TLS with the certificates in its directory, and it knows only these users.
    #[cfg(feature = "_tests")]
    pub(crate) fn with_tls(options: &str, users: &str) -> Option<Self> {
        Self::prepared(options, |directory, port| {
            certificates::make(directory);
            std::fs::write(directory.join("users"), users).expect("a file");
            format!(
                "--port 0 --tls-port {port} --tls-cert-file server.pem --tls-key-file server.key \
                --tls-ca-cert-file ca.pem --tls-auth-clients no --aclfile users"
            )
        })
    }

    #[cfg(feature = "_tests")]
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) async fn store(&self) -> RedisStore {
        RedisStore::connect(self.url())
            .await
            .expect("the server answers")
    }

    /// As if the power went off.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }

    /// Starts it again at the same address with what is in its directory.
    pub(crate) fn start_again(&mut self) {
        self.process = spawn(self.port, &self.directory, &self.options).expect("it starts again");
    }

    /// Freezes the process. Its connections stay open and say nothing.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.process.id().to_string()])
            .status();
        assert!(status.expect("kill runs").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn spawn(port: u16, directory: &PathBuf, options: &Vec<String>) -> std::io::Result<Child> {
    let process = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--enable-debug-command", "yes"])
        .args(options)
        .current_dir(directory)
        .stdout(Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "redis-server does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(process)
}

fn skip<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("SKIPPED, nothing was tested: {why}");
    None
}

/// All keys of this prefix, on a server that nobody else waits for.
pub(crate) async fn keys(url: &str, prefix: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(format!("{prefix}:*"))
            .arg("COUNT")
            .arg(10_000);
        let (next, some): (u64, Vec<String>) = super::send(url, &mut scan).await;
        keys.extend(some);
        cursor = next;
        if cursor == 0 {
            return keys;
        }
    }
}

/// Removes what a test left on the shared server.
pub(crate) async fn clean(url: &str, prefix: &str) {
    for some in keys(url, prefix).await.chunks(1000) {
        let _: () = super::send(url, redis::cmd("UNLINK").arg(some)).await;
    }
}
