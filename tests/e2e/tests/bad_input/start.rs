//! Starts that cannot succeed.

use std::{fs, net::TcpListener, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use millstream_e2e::{
    broker::{Broker, Options, start_refused},
    places, process,
};

use super::check_names;

#[test]
fn taken_port_is_named() -> Result<()> {
    let occupant = TcpListener::bind("127.0.0.1:0").context("occupy a port")?;
    let port = occupant.local_addr().context("learn the port")?.port();
    let home = tempfile::tempdir().context("make a home")?;
    let error = start_refused(&Options::new(), &home.path().join("data"), port)?;
    check_names(&error, &[&port.to_string(), "--kafka-port"])
}

#[test]
fn data_directory_in_use_is_named_and_its_owner_undisturbed() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "mine"])?;
    let error = start_refused(&Options::new(), &broker.data(), 0)?;
    check_names(&error, &[&broker.data().to_string_lossy(), "use", "--data"])?;
    ensure!(broker.verb(&["topic", "ls"])?.to_string().contains("mine"));
    Ok(())
}

#[test]
fn data_directory_that_is_a_file_is_named() -> Result<()> {
    let home = tempfile::tempdir().context("make a home")?;
    let file = home.path().join("a-file");
    fs::write(&file, b"precious").context("write a file")?;
    let error = start_refused(&Options::new(), &file, 0)?;
    check_names(&error, &["a-file"])?;
    ensure!(fs::read(&file).context("read it again")? == b"precious", "the file was touched");
    Ok(())
}

#[test]
fn unknown_and_invalid_settings_are_named() -> Result<()> {
    let home = tempfile::tempdir().context("make a home")?;
    let data = home.path().join("data");
    check_names(
        &start_refused(&Options::new().set("num.partitons", "4"), &data, 0)?,
        &["num.partitons"],
    )?;
    check_names(
        &start_refused(&Options::new().set("num.partitions", "many"), &data, 0)?,
        &["num.partitions", "many"],
    )?;
    check_names(
        &start_refused(&Options::new().set("num.partitions", "-3"), &data, 0)?,
        &["num.partitions", "-3"],
    )
}

#[test]
fn bucket_of_an_unknown_kind_is_named() -> Result<()> {
    let home = tempfile::tempdir().context("make a home")?;
    let mut command = Command::new(places::binary());
    command.arg("dev").arg("--data").arg(home.path().join("data"));
    command.args(["--kafka-port", "0", "--admin-port", "0", "--bucket", "carrier-pigeon://coop"]);
    let finished = process::run(&mut command, b"", Duration::from_secs(30))?;
    ensure!(matches!(finished.status.code(), Some(1 | 2)), "{finished:?}");
    check_names(&finished.stderr, &["error: ", "carrier-pigeon"])
}

#[test]
fn wrong_usage_is_told_apart_from_failure() -> Result<()> {
    let usage = process::run(
        Command::new(places::binary()).args(["topic", "conjure", "x"]),
        b"",
        Duration::from_secs(30),
    )?;
    ensure!(usage.status.code() == Some(2), "{usage:?}");
    check_names(&usage.stderr, &["error: ", "conjure"])?;
    let nobody = ["topic", "ls", "--bootstrap", "127.0.0.1:1", "--admin", "http://127.0.0.1:1"];
    let unreachable = process::run(Command::new(places::binary()).args(nobody), b"", Duration::from_secs(60))?;
    ensure!(unreachable.status.code() == Some(1), "{unreachable:?}");
    check_names(&unreachable.stderr, &["error: ", "127.0.0.1:1"])
}
