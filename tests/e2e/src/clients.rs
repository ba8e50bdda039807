//! Stock clients against a broker: the Python scenarios of `clients/`, and kcat. A client that is not installed is a skipped test,
//! noted with its reason in the run's summary.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{broker::Broker, places, process};

/// Time a scenario may take; its own deadlines are shorter and say more.
const SCENARIO_DEADLINE: Duration = Duration::from_secs(180);
/// Time one kcat call may take.
const KCAT_DEADLINE: Duration = Duration::from_secs(60);
/// Exit status of a script whose client is not installed.
const SKIPPED: i32 = 77;

/// Whether a client was there to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// It ran and every check held.
    Yes,
    /// It is not installed; the reason is in the summary.
    Skipped,
}

/// Runs one scenario of a client script; an error if a check of it failed.
pub fn scenario(broker: &Broker, script: &str, name: &str, arguments: &[&str]) -> Result<Ran> {
    if !places::python().exists() {
        return skipped("target/venv has no Python; tests/setup/setup.sh python says why");
    }
    let mut command = scenario_command(broker, script, name, arguments);
    let finished = process::run(&mut command, b"", SCENARIO_DEADLINE)?;
    println!("-- {script} {name}\n{}{}", finished.stdout, finished.stderr);
    if finished.status.code() == Some(SKIPPED) {
        return skipped(finished.stdout.lines().last().unwrap_or("no reason given"));
    }
    ensure!(
        finished.status.success(),
        "{script} {name}: {}",
        finished.stdout.lines().last().unwrap_or("ended without a word")
    );
    Ok(Ran::Yes)
}

/// A scenario that runs until it is told to stop.
#[derive(Debug)]
pub struct Background {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Background {
    /// Starts it.
    pub fn start(broker: &Broker, script: &str, name: &str, arguments: &[&str]) -> Result<Self> {
        let output = broker.scratch(&format!("{name}.output"));
        let child = scenario_command(broker, script, name, arguments)
            .stdin(Stdio::null())
            .stdout(File::create(&output).context("make a file for a scenario's output")?)
            .spawn()
            .with_context(|| format!("start {script} {name}"))?;
        Ok(Self {
            name: name.into(),
            child,
            output,
        })
    }

    /// Sends SIGTERM and waits for its end, which must be a success.
    pub fn finish(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).with_context(|| format!("signal {}", self.name))?;
        let status = process::wait(&mut self.child, SCENARIO_DEADLINE)?;
        let output = fs::read_to_string(&self.output).unwrap_or_default();
        ensure!(status.success(), "{} ended with {status}: {output}", self.name);
        Ok(())
    }
}

impl Background {
    /// As `finish`; but if it does not end in time it is killed, and the answer is no. An end in failure is an error.
    pub fn finish_or_kill(mut self) -> Result<bool> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).with_context(|| format!("signal {}", self.name))?;
        let Ok(status) = process::wait(&mut self.child, SCENARIO_DEADLINE) else {
            return Ok(false);
        };
        let output = fs::read_to_string(&self.output).unwrap_or_default();
        ensure!(status.success(), "{} ended with {status}: {output}", self.name);
        Ok(true)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs kcat with `-b BROKER` and these arguments; returns its output, or nothing if kcat is not installed.
pub fn kcat(broker: &Broker, arguments: &[&str], input: &[u8]) -> Result<Option<String>> {
    if Command::new("kcat").arg("-V").output().is_err() {
        skipped("kcat is not installed (Debian: kcat)")?;
        return Ok(None);
    }
    let finished = process::run(
        Command::new("kcat").args(["-b", &broker.kafka]).args(arguments),
        input,
        KCAT_DEADLINE,
    )?;
    ensure!(finished.status.success(), "kcat {}: {}", arguments.join(" "), finished.stderr);
    Ok(Some(finished.stdout))
}

/// Notes that the running test is skipped.
pub fn skipped(reason: &str) -> Result<Ran> {
    let current = thread::current();
    let test = current.name().unwrap_or("a test");
    println!("skipped {test}: {reason}");
    fs::create_dir_all(places::test_report()).context("make the test report's directory")?;
    let path = places::test_report().join("skipped.txt");
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .context("open the list of skipped tests")?;
    file.write_all(format!("{test}: {reason}\n").as_bytes())
        .context("note a skipped test")?;
    Ok(Ran::Skipped)
}

fn scenario_command(broker: &Broker, script: &str, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(places::python());
    command
        .arg("-B")
        .arg(places::client_scripts().join(script))
        .args([name, &broker.kafka])
        .args(arguments);
    command
}
