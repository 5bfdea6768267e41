//! A Redis of our own, to be disturbed.

use std::{net::TcpListener, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::node::resident;

/// A `redis-server` that writes to the disk before it answers. It ends with this value, and with our process.
pub(crate) struct Redis {
    process: Child,
    port: u16,
    directory: PathBuf,
}

impl Redis {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let directory = std::env::temp_dir().join(format!("soak-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process = spawn(port, &directory)?;
        let redis = Self {
            process,
            port,
            directory,
        };
        redis.until_ready().await?;
        Ok(redis)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its connections stay open and say nothing.
    pub(crate) async fn freeze(&self) -> anyhow::Result<()> {
        self.signal("-STOP").await
    }

    pub(crate) async fn thaw(&self) -> anyhow::Result<()> {
        self.signal("-CONT").await?;
        self.until_ready().await
    }

    /// For so long it accepts commands and does none, by its own word.
    pub(crate) async fn pause(&self, time: Duration) -> anyhow::Result<()> {
        let time = time.as_millis().to_string();
        let said = self.command(&["CLIENT", "PAUSE", &time, "ALL"]).await?;
        ensure!(said.starts_with("OK"), "CLIENT PAUSE: {said}");
        Ok(())
    }

    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.process.kill().await?)
    }

    /// With what is in its directory.
    pub(crate) async fn start_again(&mut self) -> anyhow::Result<()> {
        self.process = spawn(self.port, &self.directory)?;
        self.until_ready().await
    }

    pub(crate) fn resident(&self) -> u64 {
        self.process.id().map_or(0, resident)
    }

    async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let process = self.process.id().context("Redis has ended")?;
        let kill = Command::new("kill")
            .args([signal, &process.to_string()])
            .status()
            .await?;
        ensure!(kill.success(), "kill {signal} {process}");
        Ok(())
    }

    /// Until it answers, having read what it had written.
    async fn until_ready(&self) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_secs(60);
        while !self.command(&["PING"]).await?.starts_with("PONG") {
            ensure!(Instant::now() < until, "Redis does not answer");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn command(&self, words: &[&str]) -> anyhow::Result<String> {
        let port = self.port.to_string();
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &port]).args(words);
        let said = command.kill_on_drop(true).output().await?;
        Ok(String::from_utf8_lossy(&said.stdout).into_owned())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.start_kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn spawn(port: u16, directory: &PathBuf) -> anyhow::Result<Child> {
    // Killed with us, however we end; also while it is stopped.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "redis-server"])
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "yes"])
        .args(["--appendfsync", "always"])
        .current_dir(directory)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("redis-server does not start")
}
