//! What the figures were taken on, and what a process costs there. Linux only, read from /proc.

use std::{
    fmt,
    fs::{self, File},
    io::Write,
    path::Path,
    thread,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Bytes written at a time.
const WRITE_BYTES: usize = 1 << 20;
/// Clock ticks per second in /proc/PID/stat; USER_HZ is 100 on every Linux that people run.
const TICKS_PER_SECOND: f64 = 100.0;

/// Facts about the machine.
#[derive(Debug)]
pub struct Machine {
    cores: usize,
    cpu: String,
    memory_mib: u64,
    kernel: String,
    congestion: String,
}

impl Machine {
    /// Reads them; what cannot be read is `unknown` or 0.
    pub fn read() -> Self {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            cores: thread::available_parallelism().map_or(0, usize::from),
            cpu: field(&cpus, "model name").unwrap_or("unknown").to_owned(),
            memory_mib: kib(&memory, "MemTotal").unwrap_or(0) / 1024,
            kernel: line("/proc/sys/kernel/osrelease"),
            congestion: line("/proc/sys/net/ipv4/tcp_congestion_control"),
        }
    }

    /// The facts as JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "cores": self.cores,
            "cpu": self.cpu,
            "memory_mib": self.memory_mib,
            "kernel": self.kernel,
            "tcp_congestion_control": self.congestion,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cores,
            cpu,
            memory_mib,
            kernel,
            congestion,
        } = self;
        write!(
            f,
            "{cores} cores ({cpu}), {memory_mib} MiB, Linux {kernel}, TCP {congestion}; client and node share them"
        )
    }
}

/// Writes and deletes a file as large as the run. Memory that a virtual machine uses for the first time is ten times slower.
pub fn warm_disk(directory: &Path, bytes: u64) -> Result<()> {
    let path = directory.join("warm-up");
    let mut file = File::create(&path).context("create the warm-up file")?;
    let block = vec![0x5a; WRITE_BYTES];
    for _ in 0..bytes / block.len() as u64 {
        file.write_all(&block).context("write the warm-up file")?;
    }
    file.sync_data().context("sync the warm-up file")?;
    fs::remove_file(&path).context("delete the warm-up file")
}

/// CPU seconds that a process has used, in user and kernel mode.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("read the node's CPU time")?;
    ticks(&stat)
        .map(|ticks| ticks / TICKS_PER_SECOND)
        .context("understand the node's CPU time")
}

/// Resident memory of a process in bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read the node's memory")?;
    kib(&status, "VmRSS").map(|kib| kib * 1024).context("understand the node's memory")
}

/// utime + stime, fields 14 and 15. The second field is the command in parentheses and may hold anything.
fn ticks(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let kernel: f64 = fields.next()?.parse().ok()?;
    Some(user + kernel)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

fn kib(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.split(' ').next()?.parse().ok()
}

fn line(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_command_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 9 1 1";
        assert_eq!(ticks(stat), Some(200.0));
        assert_eq!(ticks("7 (x) S 1"), None);
        assert!(cpu_seconds(std::process::id()).is_ok());
    }

    #[test]
    fn own_memory_can_be_read() {
        assert!(resident_bytes(std::process::id()).unwrap() > 0);
        assert_eq!(kib("A:\t1 kB\nVmRSS:\t   23 kB\n", "VmRSS"), Some(23));
    }
}
