//! Names that clients choose, and names that are the broker's own.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use millstream_e2e::{
    broker::{Broker, Options},
    process,
    wire::{RawConnection, Reply, check_alive, put_text, request},
};

/// The answer to a request, without its correlation id.
fn ask(broker: &Broker, key: i16, version: i16, body: &[u8]) -> Result<Vec<u8>> {
    let mut connection = RawConnection::open(broker)?;
    connection.send(&request(key, version, 1, body));
    match connection.reply()? {
        Reply::Frame(frame) => Ok(frame.get(4..).context("an answer has a correlation id")?.to_vec()),
        Reply::Closed => anyhow::bail!("the connection was closed"),
    }
}

/// A list of one topic with one partition, and what comes after its number.
fn of_partition(topic: &str, number: i32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = 1_u32.to_be_bytes().to_vec();
    put_text(&mut bytes, topic.as_bytes());
    bytes.extend(1_u32.to_be_bytes());
    bytes.extend(number.to_be_bytes());
    bytes.extend(rest);
    bytes
}

#[test]
fn clients_cannot_touch_the_brokers_own_topics() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "t"])?;
    // Who asks for a coordinator makes its topic exist: FindCoordinator version 6 with the kind of key, one key.
    for (kind, key) in [(0, "g"), (1, "x"), (2, "g:AAAAAAAAAAAAAAAAAAAABw:0")] {
        let length = u8::try_from(key.len() + 1)?;
        ask(&broker, 10, 6, &[&[0, kind, 2, length][..], key.as_bytes(), &[0]].concat())?;
    }
    let line = broker.file("line", b"a line\n")?;
    for topic in ["__consumer_offsets", "__transaction_state", "__share_group_state"] {
        process::until(&format!("{topic} exists"), Duration::from_secs(30), || {
            let described = broker.verb_raw(&["topic", "describe", topic], b"")?;
            Ok(described.status.success().then_some(()))
        })?;
        for (arguments, why) in [
            (&["topic", "create", topic][..], "reserved"),
            (&["topic", "delete", topic], "internal"),
            (&["produce", topic, &line], "written by the broker only"),
        ] {
            let error = broker.verb_refused(arguments)?;
            ensure!(error.contains(why), "{arguments:?}: {error}");
        }
    }
    let error = broker.verb_refused(&["topic", "create", "__remote_log_metadata"])?;
    ensure!(error.contains("reserved"), "{error}");
    commit(&broker, b"g", 7)?;
    let topic = "__consumer_offsets";
    // DeleteRecords: throttle, one topic with its name, one partition, its number, low watermark, code.
    let mut body = of_partition(topic, 0, &0_i64.to_be_bytes());
    body.extend(1000_u32.to_be_bytes());
    let answer = ask(&broker, 21, 0, &body)?;
    let at = 4 + 4 + 2 + topic.len() + 4 + 4 + 8;
    ensure!(answer.get(at..at + 2) == Some(&[0, 17]), "INVALID_TOPIC_EXCEPTION, not {answer:?}");
    // CreatePartitions: throttle, one topic with its name, code.
    let mut body = 1_u32.to_be_bytes().to_vec();
    put_text(&mut body, topic.as_bytes());
    body.extend([&500_u32.to_be_bytes()[..], &[0xff; 4], &1000_u32.to_be_bytes(), &[0]].concat());
    let answer = ask(&broker, 37, 0, &body)?;
    let at = 4 + 4 + 2 + topic.len();
    ensure!(answer.get(at..at + 2).is_some_and(|code| code != [0, 0]), "{answer:?}");
    ensure!(committed(&broker, b"g")? == 7, "what was committed is still there");
    Ok(())
}

/// OffsetCommit version 2 from outside a group.
fn commit(broker: &Broker, group: &[u8], offset: i64) -> Result<()> {
    let mut body = Vec::new();
    put_text(&mut body, group);
    body.extend((-1_i32).to_be_bytes());
    put_text(&mut body, b"");
    body.extend((-1_i64).to_be_bytes());
    body.extend(of_partition("t", 0, &[&offset.to_be_bytes()[..], &[0xff, 0xff]].concat()));
    let answer = ask(broker, 8, 2, &body)?;
    ensure!(
        answer.ends_with(&[0, 0]),
        "{:?} commits: {answer:?}",
        String::from_utf8_lossy(group)
    );
    Ok(())
}

/// OffsetFetch version 1.
fn committed(broker: &Broker, group: &[u8]) -> Result<i64> {
    let mut body = Vec::new();
    put_text(&mut body, group);
    body.extend(of_partition("t", 0, &[]));
    let answer = ask(broker, 9, 1, &body)?;
    let offset = answer
        .get(4 + 2 + 1 + 4 + 4..)
        .and_then(|rest| rest.first_chunk())
        .context("an offset")?;
    Ok(i64::from_be_bytes(*offset))
}

#[test]
fn groups_may_have_any_name_and_keep_their_offsets() -> Result<()> {
    let mut broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "t"])?;
    let long = vec![b'g'; 32_767];
    let names: [&[u8]; 7] = [b"../../etc/passwd", b"a/b", b"nul\0", b"\"}\n#", "grüppe".as_bytes(), b"CON", &long];
    for (offset, name) in (10..).zip(names) {
        commit(&broker, name, offset)?;
    }
    ensure!(broker.stop()?.success(), "the broker stops");
    broker.restart()?;
    for (offset, name) in (10..).zip(names) {
        ensure!(committed(&broker, name)? == offset, "{:?}", String::from_utf8_lossy(name));
    }
    check_alive(&broker)
}

#[test]
fn transactional_id_beyond_a_string_closes_the_connection() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    // InitProducerId version 2: a compact string of 1 MiB.
    let mut body = vec![0x81, 0x80, 0x40];
    body.extend(vec![b'x'; 1 << 20]);
    body.extend([0, 0, 0x75, 0x30, 0]);
    let mut flexible = vec![0];
    flexible.extend(body);
    let mut connection = RawConnection::open(&broker)?;
    connection.send(&request(22, 2, 1, &flexible));
    ensure!(connection.reply()? == Reply::Closed, "no transactional id is that long");
    check_alive(&broker)
}

fn names_below(path: &Path, found: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(path).with_context(|| format!("list {}", path.display()))? {
        let entry = entry.context("list a directory")?;
        found.push(entry.file_name().to_string_lossy().into_owned());
        if entry.path().is_dir() {
            names_below(&entry.path(), found)?;
        }
    }
    Ok(())
}

#[test]
fn no_file_is_named_by_a_client() -> Result<()> {
    let broker = Broker::start(Options::tiered())?;
    broker.verb(&["topic", "create", "needle.needle", "--config", "remote.storage.enable=true"])?;
    let line = broker.file("line", b"a line\n")?;
    broker.verb(&["produce", "needle.needle", &line])?;
    let mut names = Vec::new();
    names_below(&broker.data(), &mut names)?;
    ensure!(names.len() > 5, "{names:?}");
    ensure!(!names.iter().any(|name| name.contains("needle")), "{names:?}");
    Ok(())
}
