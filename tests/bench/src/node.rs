//! A node of our own: `millstream dev` on free ports and a fresh directory, told what to do through its command line and admin port.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::machine;

/// Time within which a node says that it is ready.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// Lines of its log that a node that does not start is reported with.
const LOG_LINES_SHOWN: usize = 10;
/// Time one read from the admin port may take.
const ADMIN_DEADLINE: Duration = Duration::from_secs(20);

/// A running node; killed when it is dropped.
#[derive(Debug)]
pub struct Node {
    /// `host:port` for Kafka clients.
    pub kafka: String,
    /// How long the last start took, from the spawn to the line `ready …`.
    pub start_time: Duration,
    admin: String,
    binary: PathBuf,
    home: PathBuf,
    arguments: Vec<String>,
    keep: bool,
    child: Option<Child>,
}

impl Node {
    /// Starts a node in `home`, which is created, and removed with the node unless it is kept; `arguments` follow those for ports and
    /// data.
    pub fn start(binary: &Path, home: PathBuf, arguments: Vec<String>, keep: bool) -> Result<Self> {
        fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
        let mut node = Self {
            kafka: String::new(),
            start_time: Duration::ZERO,
            admin: String::new(),
            binary: binary.to_owned(),
            home,
            arguments,
            keep,
            child: None,
        };
        node.launch()?;
        Ok(node)
    }

    /// Where the node keeps its logs.
    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// SIGKILL, as a crash.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the node runs")?;
        child.kill().context("kill the node")?;
        child.wait().context("reap the node")?;
        Ok(())
    }

    /// SIGTERM and a new start on the same data.
    pub fn restart(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the node runs")?;
        kill_process(Pid::from_child(&child), Signal::TERM).context("signal the node")?;
        let status = child.wait().context("reap the node")?;
        ensure!(status.success(), "the node ended with {status}; its log ends:\n{}", self.log_end());
        self.launch()
    }

    /// Starts a killed node on its data.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the node still runs");
        self.launch()
    }

    /// CPU seconds used since the start.
    pub fn cpu_seconds(&self) -> Result<f64> {
        machine::cpu_seconds(self.pid()?)
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        machine::resident_bytes(self.pid()?)
    }

    /// Creates a topic with these configurations, each `name=value`.
    pub fn create_topic(&self, topic: &str, partitions: i32, configs: &[&str]) -> Result<()> {
        let partitions = partitions.to_string();
        let mut arguments = vec!["topic", "create", topic, "--partitions", &partitions];
        configs.iter().for_each(|config| arguments.extend(["--config", config]));
        self.verb(&arguments)
    }

    /// Runs a verb of the command line against this node; it must succeed.
    pub fn verb(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new(&self.binary)
            .args(arguments)
            .env("MILLSTREAM_BOOTSTRAP", &self.kafka)
            .env("MILLSTREAM_ADMIN", &self.admin)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("start {}", self.binary.display()))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "millstream {}: {}", arguments.join(" "), stderr.trim());
        Ok(())
    }

    /// GET of a path on the admin port; the answer must be JSON.
    pub fn get(&self, path: &str) -> Result<Value> {
        let address = self.admin.strip_prefix("http://").context("the admin address is an http URL")?;
        let mut stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_read_timeout(Some(ADMIN_DEADLINE)).context("set a deadline")?;
        // HTTP/1.0: the body ends with the connection and is never chunked.
        write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").with_context(|| format!("send GET {path}"))?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .with_context(|| format!("read the answer to GET {path}"))?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .with_context(|| format!("GET {path}: no end of the headers"))?;
        ensure!(head.split(' ').nth(1) == Some("200"), "GET {path}: {answer}");
        serde_json::from_str(body).with_context(|| format!("GET {path}: not JSON: {body}"))
    }

    fn pid(&self) -> Result<u32> {
        self.child.as_ref().map(Child::id).context("the node runs")
    }

    fn log_path(&self) -> PathBuf {
        self.home.join("node.log")
    }

    fn log_end(&self) -> String {
        // Without a log there is nothing to show.
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let mut lines: Vec<&str> = log.lines().rev().take(LOG_LINES_SHOWN).collect();
        lines.reverse();
        lines.join("\n")
    }

    fn launch(&mut self) -> Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .context("open the node's log")?;
        let mut command = Command::new(&self.binary);
        command
            .args(["dev", "--kafka-port", "0", "--admin-port", "0", "--data"])
            .arg(self.data());
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("start {}", self.binary.display()))?;
        let stdout = child.stdout.take();
        self.child = Some(child);
        let ready = wait_ready(stdout.context("take the node's output")?);
        let (kafka, admin) = ready.with_context(|| format!("start a node; its log ends:\n{}", self.log_end()))?;
        self.start_time = started.elapsed();
        (self.kafka, self.admin) = (kafka, admin);
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself, which its log tells.
            drop(child.kill());
            drop(child.wait());
        }
        if !self.keep {
            // What is left goes with the directory of the run.
            drop(fs::remove_dir_all(&self.home));
        }
    }
}

/// Waits for `ready kafka=… admin=…`, and keeps the pipe drained from then on.
fn wait_ready(stdout: ChildStdout) -> Result<(String, String)> {
    let (sender, ready) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(fields) = line.strip_prefix("ready ") {
                // Only the first line is waited for.
                drop(sender.send(fields.to_owned()));
            }
        }
    });
    let fields = ready
        .recv_timeout(START_DEADLINE)
        .context("the node did not say that it is ready")?;
    let field = |name: &str| {
        let value = fields.split_whitespace().find_map(|field| field.strip_prefix(name));
        value.map(str::to_owned).with_context(|| format!("no {name} in: ready {fields}"))
    };
    Ok((field("kafka=")?, field("admin=")?))
}
