//! The real program, run as its users run it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{ExitStatus, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use parking_lot::Mutex;
use serde_json::Value;
use steadfast::sim::Sim;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
};

use super::{
    PATIENCE,
    client::{self, Reply},
    until,
};

/// The name of a gateway's configuration file.
pub const FILE: &str = "steadfast.toml";

/// A running gateway; killed when dropped.
pub struct Gateway {
    child: Child,
    /// The public address.
    pub address: SocketAddr,
    /// The admin address.
    pub admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    said: Arc<Mutex<Vec<String>>>,
    folder: PathBuf,
}

impl Gateway {
    /// A gateway in front of `sims`, each under its own name, with `head` (TOML tables) before its upstreams.
    pub async fn before(sims: &[Sim], head: &str) -> Self {
        let mut config = head.to_owned();
        for sim in sims {
            config.push_str(&upstream(sim, ""));
        }
        Self::configured(&config).await
    }

    /// A gateway with this configuration; its addresses are chosen by the system.
    pub async fn configured(config: &str) -> Self {
        Self::configured_with(config, &[]).await
    }

    /// The same, with further flags.
    pub async fn configured_with(config: &str, flags: &[&str]) -> Self {
        let folder = scratch();
        std::fs::write(folder.join(FILE), config).expect("a writable folder");
        let fixed = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        Self::over(folder, &[&fixed, flags].concat()).await
    }

    /// A gateway whose file stands in `folder` already, with these flags alone; the folder goes with the gateway.
    pub async fn over(folder: PathBuf, flags: &[&str]) -> Self {
        let file = folder.join(FILE);
        let file = file.to_str().expect("text");
        Self::run(&[&["serve", "-c", file], flags].concat(), folder.clone()).await
    }

    /// The program without any configuration.
    pub async fn bare() -> Self {
        Self::flagged(&[]).await
    }

    /// The program without a configuration file, with these flags.
    pub async fn flagged(flags: &[&str]) -> Self {
        let addresses = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        Self::run(&[&addresses, flags].concat(), scratch()).await
    }

    async fn run(arguments: &[&str], folder: PathBuf) -> Self {
        let log_format: &[&str] = if arguments.contains(&"--log-format") {
            &[]
        } else {
            &["--log-format", "json"]
        };
        let mut child = Command::new(env!("CARGO_BIN_EXE_steadfast"))
            .args(arguments)
            .args(log_format)
            .env("STEADFAST_TEST_KEY", "sk-upstream-canary")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let log = collect(child.stderr.take().expect("piped"));
        let said = collect(child.stdout.take().expect("piped"));
        let find = |start: &str| {
            said.lock()
                .iter()
                .find_map(|line| line.strip_prefix(start)?.split_once("://")?.1.parse().ok())
        };
        let address = until(&format!("an address; log: {:?}", log.lock()), || {
            std::future::ready(find("Steadfast listens on "))
        })
        .await;
        let admin = until("an admin address", || std::future::ready(find("The admin side is on "))).await;
        Self {
            child,
            address,
            admin,
            log,
            said,
            folder,
        }
    }

    /// Where its configuration file stands.
    pub fn file(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Writes its configuration file anew, in place.
    pub fn write(&self, config: &str) {
        std::fs::write(self.file(), config).expect("a writable file");
    }

    /// The process id, to look it up in `/proc` or to signal it.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("running")
    }

    /// Everything on standard error so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    /// Waits for a line on standard error that holds `text`, and returns the lines until now.
    pub async fn log_until(&self, text: &str) -> Vec<String> {
        until(&format!("{text} in the log"), || {
            let log = self.log();
            std::future::ready(log.iter().any(|line| line.contains(text)).then_some(log))
        })
        .await
    }

    /// Everything on standard output so far.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().clone()
    }

    /// Waits until standard output holds `text`.
    pub async fn said_until(&self, text: &str) -> Vec<String> {
        until(&format!("{text} on standard output"), || {
            let said = self.said();
            std::future::ready(said.iter().any(|line| line.contains(text)).then_some(said))
        })
        .await
    }

    /// The access log so far, one object a request.
    pub fn access(&self) -> Vec<Value> {
        let parsed = self
            .log()
            .into_iter()
            .filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        parsed.filter(|line| line["target"] == "access").collect()
    }

    /// Waits for the access log's line about the request `id`, which may also be its upstream's name for it.
    pub async fn access_of(&self, id: &str) -> Value {
        until(&format!("a line about {id}"), || {
            let mut lines = self.access().into_iter();
            std::future::ready(lines.find(|line| line["request_id"] == id || line["upstream_request_id"] == id))
        })
        .await
    }

    /// The value of a metric: the sum over all lines that begin with `prefix` (name, or name and labels).
    pub async fn metric(&self, prefix: &str) -> f64 {
        let text = client::get(self.admin, "/metrics").await.text();
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        lines
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// A question to the admin side.
    pub async fn ask(&self, path: &str) -> Reply {
        client::get(self.admin, path).await
    }

    /// What `steadfast route KEY` names as home under this gateway's configuration.
    pub async fn home(&self, key: &str) -> String {
        self.order(&[key]).await.remove(0)
    }

    /// The upstreams in the order that `steadfast route` names for these arguments.
    pub async fn order(&self, arguments: &[&str]) -> Vec<String> {
        let file = self.file();
        let file = file.to_str().expect("text");
        let output = steadfast(&[&["route", "--json", "-c", file], arguments].concat()).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let upstreams = answer["upstreams"].as_array().expect("a list").iter();
        upstreams
            .map(|upstream| upstream["name"].as_str().expect("a name").to_owned())
            .collect()
    }

    /// Sends a signal.
    pub async fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status()
            .await;
        assert!(status.expect("kill runs").success());
    }

    /// Waits for the program to end.
    pub async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .expect("it ends")
            .expect("a status")
    }

    /// Open file descriptors of the process.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("running")
            .count()
    }

    /// Resident memory of the process, in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("running");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a size");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs the program with these arguments to its end.
pub async fn steadfast(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command
        .args(arguments)
        .env("STEADFAST_TEST_KEY", "sk-upstream-canary")
        .kill_on_drop(true);
    tokio::time::timeout(PATIENCE, command.output())
        .await
        .expect("it ends")
        .expect("the program runs")
}

/// An `[[upstream]]` table for `sim`, with further lines.
pub fn upstream(sim: &Sim, lines: &str) -> String {
    upstream_at(sim.name(), &sim.base_url(), lines)
}

/// An `[[upstream]]` table, with further lines.
pub fn upstream_at(name: &str, url: &str, lines: &str) -> String {
    format!("[[upstream]]\nname = \"{name}\"\nbase_url = \"{url}\"\napi_key = \"env:STEADFAST_TEST_KEY\"\n{lines}\n")
}

/// A folder of this test's own.
pub fn scratch() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a writable target folder");
    folder
}

fn collect(pipe: impl AsyncRead + Unpin + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    tokio::spawn(async move {
        let mut reader = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = reader.next_line().await {
            sink.lock().push(line);
        }
    });
    lines
}
