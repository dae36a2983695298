//! The program under load.

use std::{fs, io::Error, net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use steadfast::sim::Sim;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
    time::{Instant, sleep},
};

use crate::{Result, key_digest};

/// A running gateway. It is killed when it is dropped.
pub struct Gateway {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    folder: PathBuf,
    /// Keeps standard output open.
    _printed: Lines<BufReader<ChildStdout>>,
}

/// The counters of the gateway at one moment.
pub struct Counters(Vec<(String, f64)>);

impl Gateway {
    /// Starts `program` in front of `sims`.
    pub async fn start(program: &str, sims: &[Sim]) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("steadfast-soak-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let file = folder.join("steadfast.toml");
        fs::write(&file, configuration(sims))?;
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "-c"])
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.join("log"))?)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Error::other(format!("{program}: {error}")))?;
        let stdout = child.stdout.take().expect("piped");
        let mut printed = BufReader::new(stdout).lines();
        let mut find = async |start: &str| -> Result<SocketAddr> {
            while let Some(line) = printed.next_line().await? {
                if let Some((_, address)) = line.strip_prefix(start).and_then(|rest| rest.split_once("://")) {
                    return Ok(address.parse()?);
                }
            }
            Err(format!(
                "the program does not start: {}",
                fs::read_to_string(folder.join("log"))?
            )
            .into())
        };
        let address = find("Steadfast listens on ").await?;
        let admin = find("The admin listener is on ").await?;
        Ok(Self {
            child,
            address,
            admin,
            folder,
            _printed: printed,
        })
    }

    /// The public address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the process runs")
    }

    /// The resident memory in bytes.
    pub fn resident(&self) -> Result<u64> {
        super::samples::resident(self.pid())
    }

    /// The counters once no request runs any more. After ten seconds they are returned as they are.
    pub async fn settled_counters(&self) -> Result<Counters> {
        let begun = Instant::now();
        loop {
            let counters = self.counters().await?;
            let gauges = [
                "in_flight_requests",
                "waiting_requests",
                "connections",
                "buffered_bytes",
            ];
            let is_settled = gauges
                .iter()
                .all(|gauge| counters.sum(&format!("steadfast_{gauge}")) == 0.0);
            if is_settled || begun.elapsed() > Duration::from_secs(10) {
                return Ok(counters);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn counters(&self) -> Result<Counters> {
        let mut stream = TcpStream::connect(self.admin).await?;
        let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let series = text.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Ok(Counters(series.collect()))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Counters {
    /// The sum of all series whose name and labels begin with `prefix`.
    pub fn sum(&self, prefix: &str) -> f64 {
        self.sum_with(prefix, &[])
    }

    /// The sum of all series that begin with `prefix` and have all of these `labels`.
    pub fn sum_with(&self, prefix: &str, labels: &[&str]) -> f64 {
        let series = self.0.iter().filter(|(name, _)| name.starts_with(prefix));
        series
            .filter(|(name, _)| labels.iter().all(|label| name.contains(label)))
            .map(|(_, value)| value)
            .sum()
    }
}

/// The tables of sessions are small, so that they are full in the first half of the load.
fn configuration(sims: &[Sim]) -> String {
    let digest = key_digest();
    let mut text = format!(
        "[affinity]\ncapacity = 5000\n[[group]]\nname = \"team\"\n[[key]]\nname = \"soak\"\nsha256 = \"{digest}\"\ngroup = \"team\"\n"
    );
    for sim in sims {
        let (name, url) = (sim.name(), sim.base_url());
        text += &format!("[[upstream]]\nname = \"{name}\"\nbase_url = \"{url}\"\napi_key = \"sk-soak-{name}\"\n");
    }
    text
}
