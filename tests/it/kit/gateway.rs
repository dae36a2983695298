//! A running gateway: the real program, started as a user starts it.

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
    TIMEOUT,
    client::{self, Reply},
    until,
};

/// The name of a gateway's configuration file.
pub const FILE: &str = "steadfast.toml";

/// A running gateway. The process is killed when the value is dropped.
pub struct Gateway {
    child: Child,
    /// The public address.
    pub address: SocketAddr,
    /// The admin address.
    pub admin: SocketAddr,
    /// The lines of standard error so far.
    log: Arc<Mutex<Vec<String>>>,
    /// The lines of standard output so far.
    printed: Arc<Mutex<Vec<String>>>,
    /// The folder of the configuration file, removed with the gateway.
    folder: PathBuf,
}

impl Gateway {
    /// Starts a gateway in front of `sims`. Each account is an upstream with its own name. The configuration begins
    /// with `head` (TOML tables).
    pub async fn before(sims: &[Sim], head: &str) -> Self {
        let mut config = head.to_owned();
        for sim in sims {
            config.push_str(&upstream(sim, ""));
        }
        Self::configured(&config).await
    }

    /// Starts a gateway with this configuration, on addresses that the system chooses.
    pub async fn configured(config: &str) -> Self {
        Self::configured_with(config, &[]).await
    }

    /// Starts a gateway with this configuration in an environment with these variables.
    pub async fn in_environment(config: &str, variables: &[(&str, &str)]) -> Self {
        let folder = scratch();
        let file = folder.join(FILE);
        std::fs::write(&file, config).expect("a writable folder");
        let file = file.to_str().expect("UTF-8 text");
        let arguments = ["serve", "-c", file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        Self::run_in(&arguments, folder.clone(), variables).await
    }

    /// Starts a gateway with this configuration and further flags.
    pub async fn configured_with(config: &str, flags: &[&str]) -> Self {
        let folder = scratch();
        std::fs::write(folder.join(FILE), config).expect("a writable folder");
        let fixed = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        Self::over(folder, &[&fixed, flags].concat()).await
    }

    /// Starts a gateway with only these flags. Its configuration file is in `folder` already. The folder is
    /// removed with the gateway.
    pub async fn over(folder: PathBuf, flags: &[&str]) -> Self {
        let file = folder.join(FILE);
        let file = file.to_str().expect("UTF-8 text");
        Self::run(&[&["serve", "-c", file], flags].concat(), folder.clone()).await
    }

    /// Starts the program without any configuration.
    pub async fn bare() -> Self {
        Self::flagged(&[]).await
    }

    /// Starts the program without any configuration, in an environment with these variables.
    pub async fn bare_in(variables: &[(&str, &str)]) -> Self {
        let addresses = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        Self::run_in(&addresses, scratch(), variables).await
    }

    /// Starts the program with these flags and without a configuration file.
    pub async fn flagged(flags: &[&str]) -> Self {
        let addresses = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        Self::run(&[&addresses, flags].concat(), scratch()).await
    }

    async fn run(arguments: &[&str], folder: PathBuf) -> Self {
        Self::run_in(arguments, folder, &[]).await
    }

    /// Starts a gateway with this configuration and further flags, and with a soft and a hard limit on its descriptors.
    pub async fn with_descriptors(config: &str, (soft, hard): (u64, u64), flags: &[&str]) -> Self {
        let folder = scratch();
        let file = folder.join(FILE);
        std::fs::write(&file, config).expect("a writable folder");
        let file = file.to_str().expect("UTF-8 text");
        let mut command = Command::new("sh");
        let limit = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
        command.args(["-c", &limit, env!("CARGO_BIN_EXE_steadfast")]);
        command.args(["serve", "-c", file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--log-format", "json"]).args(flags);
        Self::start(&mut in_test_environment(command), folder).await
    }

    async fn run_in(arguments: &[&str], folder: PathBuf, variables: &[(&str, &str)]) -> Self {
        let log_format: &[&str] = if arguments.contains(&"--log-format") {
            &[]
        } else {
            &["--log-format", "json"]
        };
        let mut command = program(arguments);
        command.args(log_format).envs(variables.iter().copied());
        Self::start(&mut command, folder).await
    }

    async fn start(command: &mut Command, folder: PathBuf) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let log = collect(child.stderr.take().expect("piped"));
        let printed = collect(child.stdout.take().expect("piped"));
        let find = |start: &str| {
            printed
                .lock()
                .iter()
                .find_map(|line| line.strip_prefix(start)?.split_once("://")?.1.parse().ok())
        };
        let address = until(&format!("an address; log: {:?}", log.lock()), || {
            std::future::ready(find("Steadfast listens on "))
        })
        .await;
        let admin = until("an admin address", || {
            std::future::ready(find("The admin listener is on "))
        })
        .await;
        Self {
            child,
            address,
            admin,
            log,
            printed,
            folder,
        }
    }

    /// Returns the path of the configuration file.
    pub fn file(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Overwrites the configuration file in place.
    pub fn write(&self, config: &str) {
        std::fs::write(self.file(), config).expect("a writable file");
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the process runs")
    }

    /// Returns the lines of standard error so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    /// Waits for a line of standard error that contains `text`, and returns all lines so far.
    pub async fn log_until(&self, text: &str) -> Vec<String> {
        until(&format!("{text} in the log"), || {
            let log = self.log();
            std::future::ready(log.iter().any(|line| line.contains(text)).then_some(log))
        })
        .await
    }

    /// Returns the lines of standard output so far.
    pub fn printed(&self) -> Vec<String> {
        self.printed.lock().clone()
    }

    /// Waits for a line of standard output that contains `text`, and returns all lines so far.
    pub async fn printed_until(&self, text: &str) -> Vec<String> {
        until(&format!("{text} on standard output"), || {
            let printed = self.printed();
            std::future::ready(printed.iter().any(|line| line.contains(text)).then_some(printed))
        })
        .await
    }

    /// Returns the access log so far, one JSON object for each request.
    pub fn access(&self) -> Vec<Value> {
        let parsed = self
            .log()
            .into_iter()
            .filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        parsed.filter(|line| line["target"] == "access").collect()
    }

    /// Waits for the access log line of the request `id`, which may be the gateway's id or the upstream's.
    pub async fn access_of(&self, id: &str) -> Value {
        until(&format!("a line about {id}"), || {
            let mut lines = self.access().into_iter();
            std::future::ready(lines.find(|line| line["request_id"] == id || line["upstream_request_id"] == id))
        })
        .await
    }

    /// Returns the sum of all metric series that begin with `prefix` (a name, or a name and labels).
    pub async fn metric(&self, prefix: &str) -> f64 {
        let text = client::get(self.admin, "/metrics").await.text();
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        lines
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// Waits until the metric `prefix` has this value.
    pub async fn metric_reaches(&self, prefix: &str, value: f64) {
        until(&format!("{prefix} to be {value}"), || async {
            (self.metric(prefix).await == value).then_some(())
        })
        .await;
    }

    /// Sends `GET path` to the admin listener.
    pub async fn ask(&self, path: &str) -> Reply {
        client::get(self.admin, path).await
    }

    /// Returns the state of each upstream, in the order of the configuration.
    pub async fn states(&self) -> Vec<String> {
        let upstreams = self.ask("/api/upstreams").await.json();
        let upstreams = upstreams["upstreams"].as_array().expect("a list").iter();
        upstreams
            .map(|upstream| upstream["state"].as_str().expect("a state").to_owned())
            .collect()
    }

    /// Returns the home that `steadfast route KEY` names for this gateway's configuration.
    pub async fn home(&self, key: &str) -> String {
        self.order(&[key]).await.remove(0)
    }

    /// Returns the upstreams in the order that `steadfast route` prints for these arguments.
    pub async fn order(&self, arguments: &[&str]) -> Vec<String> {
        let file = self.file();
        let file = file.to_str().expect("UTF-8 text");
        let output = steadfast(&[&["route", "--json", "-c", file], arguments].concat()).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let upstreams = answer["upstreams"].as_array().expect("a list").iter();
        upstreams
            .map(|upstream| upstream["name"].as_str().expect("a name").to_owned())
            .collect()
    }

    /// Sends the signal `name` to the process.
    pub async fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status()
            .await;
        assert!(status.expect("kill runs").success());
    }

    /// Waits for the process to exit.
    pub async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(TIMEOUT, self.child.wait())
            .await
            .expect("the process exits in time")
            .expect("a status")
    }

    /// Returns the number of open file descriptors of the process.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("the process runs")
            .count()
    }

    /// Returns the resident memory of the process, in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process runs");
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

/// Runs the program with these arguments until it exits.
pub async fn steadfast(arguments: &[&str]) -> Output {
    steadfast_in(arguments, &[]).await
}

/// Runs the program with these arguments until it exits, in an environment with these variables.
pub async fn steadfast_in(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = program(arguments);
    command.envs(variables.iter().copied()).kill_on_drop(true);
    tokio::time::timeout(TIMEOUT, command.output())
        .await
        .expect("the process exits in time")
        .expect("the program runs")
}

/// Returns the program with these arguments, and without the proxies of the environment that the tests run in.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command.args(arguments);
    in_test_environment(command)
}

/// Returns the command without the proxies of the environment that the tests run in, and with the upstreams' key.
fn in_test_environment(mut command: Command) -> Command {
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_ascii_lowercase());
    }
    command.env("STEADFAST_TEST_KEY", "sk-upstream-canary");
    command
}

/// Returns an `[[upstream]]` table for `sim` that ends with `lines`.
pub fn upstream(sim: &Sim, lines: &str) -> String {
    upstream_at(sim.name(), &sim.base_url(), lines)
}

/// Returns an `[[upstream]]` table that ends with `lines`.
pub fn upstream_at(name: &str, url: &str, lines: &str) -> String {
    format!("[[upstream]]\nname = \"{name}\"\nbase_url = \"{url}\"\napi_key = \"env:STEADFAST_TEST_KEY\"\n{lines}\n")
}

/// Creates a folder for one test.
pub fn scratch() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a writable target folder");
    folder
}

/// Collects the lines of a pipe until it ends.
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
