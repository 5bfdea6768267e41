//! Servers of a test's own, to be stopped and broken.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use mcp_session_layer::sqlx::postgres::PgConnectOptions;

#[cfg(feature = "_tests")]
use crate::certificates;
use crate::sql::unique;

/// A server in a directory that is removed with it.
pub(crate) struct Cluster {
    programs: PathBuf,
    directory: PathBuf,
    port: u16,
    server: Child,
}

impl Cluster {
    /// A new server, or `None` where PostgreSQL's programs are not installed.
    pub(crate) fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(std::env::var_os("CI").is_none(), "no initdb here");
            eprintln!("SKIPPED, because initdb is not in /usr/lib/postgresql/*/bin");
            return None;
        };
        let directory = new_directory();
        let initdb = ["-U", "postgres", "-A", "trust", "--no-sync", "-D"];
        run(as_postgres(&programs.join("initdb"))
            .args(initdb)
            .arg(directory.join("data")));
        Some(Self::launch(programs, directory))
    }

    /// A new server to which nobody gets without TLS and a password, with what it proves itself by in its directory.
    #[cfg(feature = "_tests")]
    pub(crate) fn with_tls() -> Option<Self> {
        let mut cluster = Self::start()?;
        let data = cluster.directory.join("data");
        certificates::make(&data);
        let settings = "ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n";
        std::fs::write(data.join("postgresql.auto.conf"), settings).unwrap();
        let rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(data.join("pg_hba.conf"), rules).unwrap();
        if is_root() {
            run(Command::new("chown").args(["-R", "postgres"]).arg(&data));
        }
        let mut psql = Command::new("psql");
        psql.arg("-h").arg(&cluster.directory);
        psql.args(["-U", "postgres", "-p", &cluster.port.to_string(), "-c"]);
        run(psql.arg("alter user postgres password 'secret'"));
        cluster.stop("INT");
        cluster.start_again();
        Some(cluster)
    }

    #[cfg(feature = "_tests")]
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A hot standby of this server.
    pub(crate) fn standby(&self) -> Self {
        let directory = new_directory();
        let mut copy = as_postgres(&self.programs.join("pg_basebackup"));
        copy.args([
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-R",
            "--no-sync",
            "-c",
            "fast",
            "-p",
        ]);
        run(copy
            .arg(self.port.to_string())
            .arg("-D")
            .arg(directory.join("data")));
        Self::launch(self.programs.clone(), directory)
    }

    fn launch(programs: PathBuf, directory: PathBuf) -> Self {
        let port = free_port();
        let server = serve(&programs, &directory, port);
        let cluster = Self {
            programs,
            directory,
            port,
            server,
        };
        cluster.wait_until_ready();
        cluster
    }

    pub(crate) fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username("postgres")
            .database("postgres")
    }

    /// Ends the server as an operator would (`INT`), or as the kernel would (`KILL`).
    pub(crate) fn stop(&mut self, signal: &str) {
        send(signal, self.server.id());
        self.server.wait().unwrap();
    }

    pub(crate) fn start_again(&mut self) {
        // What a killed server leaves behind may take a moment to go.
        let until = Instant::now() + PATIENCE;
        while {
            self.server = serve(&self.programs, &self.directory, self.port);
            !self.is_ready_by(until)
        } {
            assert!(Instant::now() < until, "the server does not start again");
            sleep(PAUSE);
        }
    }

    /// Sends a signal to the server and all its processes.
    pub(crate) fn signal_all(&self, signal: &str) {
        let server = self.server.id();
        // First, so that a server that stops starts no process that would be missed.
        send(signal, server);
        let children = Command::new("pgrep")
            .args(["-P", &server.to_string()])
            .output()
            .unwrap();
        for child in String::from_utf8(children.stdout).unwrap().lines() {
            send(signal, child.parse().unwrap());
        }
    }

    pub(crate) fn wait_until_ready(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.is_ready() {
            assert!(Instant::now() < until, "the server does not start");
            sleep(PAUSE);
        }
    }

    /// Whether it is ready before it gives up.
    fn is_ready_by(&mut self, until: Instant) -> bool {
        while Instant::now() < until && self.server.try_wait().unwrap().is_none() {
            if self.is_ready() {
                return true;
            }
            sleep(PAUSE);
        }
        false
    }

    fn is_ready(&self) -> bool {
        let mut ready = Command::new(self.programs.join("pg_isready"));
        ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
            && ready.status().unwrap().success()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.signal_all("CONT");
        send("QUIT", self.server.id());
        _ = self.server.wait();
        _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn serve(programs: &Path, directory: &Path, port: u16) -> Child {
    let mut server = as_postgres(&programs.join("postgres"));
    server
        .arg("-D")
        .arg(directory.join("data"))
        .arg("-k")
        .arg(directory);
    server.args(["-h", "127.0.0.1", "-F", "-p", &port.to_string()]);
    server
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// PostgreSQL does not run as root.
pub(crate) fn as_postgres(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command.arg(program).current_dir("/tmp");
    command
}

pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").output().unwrap().stdout == b"0\n"
}

pub(crate) fn new_directory() -> PathBuf {
    let directory = std::env::temp_dir().join(unique());
    std::fs::create_dir(&directory).unwrap();
    if is_root() {
        run(Command::new("chown")
            .arg("postgres:postgres")
            .arg(&directory));
    }
    directory
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let programs = versions.map(|version| version.unwrap().path().join("bin"));
    programs
        .filter(|programs| programs.join("initdb").exists())
        .max()
}

pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Sends a signal to a process that may have ended meanwhile.
fn send(signal: &str, process: u32) {
    let mut kill = Command::new("kill");
    kill.args(["-s", signal, &process.to_string()]);
    _ = kill.stderr(Stdio::null()).status();
}

const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
