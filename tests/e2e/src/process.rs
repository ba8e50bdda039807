//! Child processes that never outlive their deadline, and conditions that are waited for rather than slept for.

use std::{
    io::{Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How often a condition is looked at.
const PROBE_PAUSE: Duration = Duration::from_millis(20);

/// What a process that ended left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

/// Runs a command to its end, feeding it `input`; kills it and fails when the deadline passes.
pub fn run(command: &mut Command, input: &[u8], deadline: Duration) -> Result<Finished> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}; has `make test` built and set up everything?"))?;
    let mut stdin = child.stdin.take().context("take standard input")?;
    let input = input.to_vec();
    // A process that exits early closes its input; its exit status tells more than the write error would.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = collect(child.stdout.take().context("take standard output")?);
    let stderr = collect(child.stderr.take().context("take standard error")?);
    let ended = wait(&mut child, deadline);
    if ended.is_err() {
        child.kill().context("kill a process past its deadline")?;
        child.wait().context("reap a killed process")?;
    }
    let (stdout, stderr) = (text(stdout), text(stderr));
    drop(writer.join());
    match ended {
        Ok(status) => Ok(Finished { status, stdout, stderr }),
        Err(error) => bail!("{program}: {error}\nstdout: {stdout}\nstderr: {stderr}"),
    }
}

/// Waits for a child's end; an error if the deadline comes first (the child then still runs).
pub fn wait(child: &mut Child, deadline: Duration) -> Result<ExitStatus> {
    until("process end", deadline, || Ok(child.try_wait()?))
}

/// Calls `probe` until it answers, and returns that; fails at the deadline, naming what was waited for.
pub fn until<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = probe().with_context(|| format!("wait for {what}"))? {
            return Ok(answer);
        }
        if Instant::now() >= end {
            bail!("no {what} within {} s", deadline.as_secs());
        }
        thread::sleep(PROBE_PAUSE);
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing.
        drop(stream.read_to_end(&mut bytes));
        bytes
    })
}

fn text(stream: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&stream.join().unwrap_or_default()).into_owned()
}
