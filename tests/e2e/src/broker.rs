//! A broker of one's own: spawned from the real binary on free ports and a temporary directory, talked to through its command line.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{places, process};

/// Time within which a broker says that it is ready.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Time within which a broker ends after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Time within which a command-line verb ends.
const VERB_DEADLINE: Duration = Duration::from_secs(60);
/// Lines of the broker's log that a failing test shows.
const LOG_LINES_SHOWN: usize = 60;

/// What a broker is started with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    bucket: Option<String>,
    file_kib_max: Option<u64>,
}

impl Options {
    /// The defaults of `millstream dev`, with a group's first rebalance not delayed.
    pub fn new() -> Self {
        Self::default().set("group.initial.rebalance.delay.ms", "0")
    }

    /// Segments are sealed, uploaded and trimmed as soon as they can be.
    pub fn tiered() -> Self {
        Self::new()
            .set("log.retention.check.interval.ms", "200")
            .set("remote.log.manager.task.interval.ms", "200")
    }

    /// One broker config by its Kafka name.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.into(), value.into()));
        self
    }

    /// One environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The bucket, and how to reach and sign for it.
    pub fn s3(mut self, url: &str, endpoint: &str) -> Self {
        self.bucket = Some(url.into());
        self.env("AWS_ENDPOINT_URL", endpoint)
            .env("AWS_ENDPOINT", endpoint)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", S3_SECRET)
    }

    /// No file may grow beyond this, as on a disk that is full.
    pub fn file_kib_max(mut self, kib: u64) -> Self {
        self.file_kib_max = Some(kib);
        self
    }

    fn command(&self, data: &Path, kafka_port: u16, admin_port: u16) -> Command {
        let mut command = match self.file_kib_max {
            None => Command::new(places::binary()),
            Some(kib) => {
                // With SIGXFSZ ignored a write beyond the limit is an error, not a death.
                let mut shell = Command::new("bash");
                shell
                    .arg("-c")
                    .arg(format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\""))
                    .arg(places::binary());
                shell
            }
        };
        command.arg("dev").arg("--data").arg(data);
        command.args(["--kafka-port", &kafka_port.to_string(), "--admin-port", &admin_port.to_string()]);
        if let Some(bucket) = &self.bucket {
            command.args(["--bucket", bucket]);
        }
        for (key, value) in &self.settings {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command.envs(self.environment.iter().cloned());
        command
    }
}

/// The secret that the S3 double is signed for with; no log may show it.
pub const S3_SECRET: &str = "canary-secret-that-no-log-may-show";

/// A running broker; it is killed and its directory removed when it is dropped.
#[derive(Debug)]
pub struct Broker {
    /// `host:port` for clients.
    pub kafka: String,
    /// Base URL of the admin port.
    pub admin: String,
    options: Options,
    home: TempDir,
    child: Option<Child>,
}

impl Broker {
    /// Starts a broker on free ports and fresh data, and waits until it serves.
    pub fn start(options: Options) -> Result<Self> {
        let home = tempfile::tempdir().context("make a home for the broker")?;
        let mut broker = Self {
            kafka: String::new(),
            admin: String::new(),
            options,
            home,
            child: None,
        };
        broker.launch(0, 0)?;
        Ok(broker)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A path in the broker's temporary directory, beside its data.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes a file beside the broker's data and returns its path as text.
    pub fn file(&self, name: &str, content: &[u8]) -> Result<String> {
        let path = self.scratch(name);
        fs::write(&path, content).with_context(|| format!("write {name}"))?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// All that the broker logged so far.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.scratch("broker.log")).context("read the broker's log")?).into_owned())
    }

    /// SIGKILL, as a crash.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the broker runs")?;
        child.kill().context("kill the broker")?;
        child.wait().context("reap the broker")?;
        Ok(())
    }

    /// SIGTERM, as an operator; returns how the process ended.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the broker runs")?;
        kill_process(Pid::from_child(&child), Signal::TERM).context("signal the broker")?;
        let ended = process::wait(&mut child, STOP_DEADLINE);
        if ended.is_err() {
            child.kill().context("kill a broker that ignores SIGTERM")?;
            child.wait().context("reap the broker")?;
        }
        ended
    }

    /// Starts the stopped or killed broker on the same data and ports.
    pub fn restart(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "stop or kill the broker before restarting it");
        let (kafka, admin) = (port(&self.kafka)?, port(&self.admin)?);
        self.launch(kafka, admin)
    }

    /// As `restart`, with other options.
    pub fn restart_with(&mut self, options: Options) -> Result<()> {
        self.options = options;
        self.restart()
    }

    /// The most memory that the process had is what it has now.
    pub fn forget_peak_memory(&self) -> Result<()> {
        let pid = self.child.as_ref().context("the broker runs")?.id();
        fs::write(format!("/proc/{pid}/clear_refs"), "5").context("reset the broker's peak")
    }

    /// The most memory that the process had since it started, or since the peak was forgotten, in bytes.
    pub fn peak_memory_bytes(&self) -> Result<u64> {
        let pid = self.child.as_ref().context("the broker runs")?.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read the broker's status")?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak.map(|kib: u64| kib << 10).context("the status has a peak")
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.as_mut().context("the broker was started")?.try_wait()?.is_none())
    }

    /// Runs a verb that must succeed and returns its JSON output (null if it printed nothing).
    pub fn verb(&self, arguments: &[&str]) -> Result<Value> {
        let finished = self.verb_raw(&[arguments, &["--output", "json"]].concat(), b"")?;
        ensure!(
            finished.status.success(),
            "millstream {}: {}{}",
            arguments.join(" "),
            finished.stderr,
            finished.stdout
        );
        if finished.stdout.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&finished.stdout).with_context(|| format!("millstream {}: not JSON: {}", arguments.join(" "), finished.stdout))
    }

    /// Runs a verb that must fail and returns its `error: …` text; status 1 says that the node refused, 2 that the usage is wrong.
    pub fn verb_refused(&self, arguments: &[&str]) -> Result<String> {
        let finished = self.verb_raw(arguments, b"")?;
        let code = finished.status.code();
        ensure!(
            matches!(code, Some(1 | 2)),
            "millstream {} ended with {code:?}: {}",
            arguments.join(" "),
            finished.stdout
        );
        ensure!(finished.stderr.contains("error: "), "no error text: {}", finished.stderr);
        ensure!(
            !finished.stderr.contains("panicked"),
            "a panic is no error message: {}",
            finished.stderr
        );
        Ok(finished.stderr)
    }

    /// Runs a verb against this broker and returns what came of it.
    pub fn verb_raw(&self, arguments: &[&str], input: &[u8]) -> Result<process::Finished> {
        let mut command = Command::new(places::binary());
        command.args(arguments).current_dir(self.home.path());
        command
            .env("MILLSTREAM_BOOTSTRAP", &self.kafka)
            .env("MILLSTREAM_ADMIN", &self.admin);
        process::run(&mut command, input, VERB_DEADLINE)
    }

    fn launch(&mut self, kafka_port: u16, admin_port: u16) -> Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.scratch("broker.log"))
            .context("open the broker's log")?;
        let mut command = self.options.command(&self.data(), kafka_port, admin_port);
        command
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = command.spawn().with_context(|| format!("start {}", places::binary().display()))?;
        let stdout = child.stdout.take().context("take the broker's standard output")?;
        self.child = Some(child);
        match wait_ready(stdout) {
            Ok((kafka, admin)) => {
                self.kafka = kafka;
                self.admin = admin;
                Ok(())
            }
            Err(error) => bail!("{error}; its log: {}", self.log_end()),
        }
    }

    fn log_end(&self) -> String {
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.kill());
            drop(child.wait());
        }
        // libtest shows the output of failing tests only, so this costs a passing one nothing.
        println!("-- log of {}\n{}", self.kafka, self.log_end());
    }
}

/// Runs `millstream dev` where it must not come up; returns its error text.
pub fn start_refused(options: &Options, data: &Path, kafka_port: u16) -> Result<String> {
    let mut command = options.command(data, kafka_port, 0);
    let finished = process::run(&mut command, b"", START_DEADLINE)?;
    let Some(code) = finished.status.code() else {
        bail!("the broker was killed by a signal: {}", finished.stderr)
    };
    ensure!(matches!(code, 1 | 2), "the broker ended with {code}: {}", finished.stderr);
    ensure!(finished.stderr.contains("error: "), "no error text: {}", finished.stderr);
    ensure!(
        !finished.stderr.contains("panicked"),
        "a panic is no error message: {}",
        finished.stderr
    );
    Ok(finished.stderr)
}

/// Waits for `ready kafka=… admin=…`, and keeps the pipe drained from then on.
fn wait_ready(stdout: ChildStdout) -> Result<(String, String)> {
    let (sender, ready) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(fields) = line.strip_prefix("ready ") {
                // The receiver is gone once the first line arrived.
                drop(sender.send(fields.to_owned()));
            }
        }
    });
    let fields = ready
        .recv_timeout(START_DEADLINE)
        .context("the broker did not say that it is ready")?;
    let field = |name: &str| {
        fields
            .split_whitespace()
            .find_map(|field| field.strip_prefix(name))
            .map(str::to_owned)
    };
    let kafka = field("kafka=").with_context(|| format!("no kafka address in: {fields}"))?;
    let admin = field("admin=").with_context(|| format!("no admin address in: {fields}"))?;
    Ok((kafka, admin))
}

fn port(address: &str) -> Result<u16> {
    address
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .with_context(|| format!("no port in {address}"))
}
