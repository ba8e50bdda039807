//! What strangers can make the broker hold in memory, and for how long.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millstream_e2e::{
    broker::{Broker, Options},
    process,
    wire::{RawConnection, Reply, check_alive, put_text, request},
};

/// The longest string that the protocol has.
const LONGEST: usize = 32_767;
/// Bytes of each request's list.
const LIST_BYTES: usize = 470 << 10;
/// What one such request may cost, in bytes: many times the frame, far less than the list times the name.
const COST_MAX: u64 = 160 << 20;

/// A list of as many of these items as fit.
fn list(bytes: &mut Vec<u8>, item: impl Fn(u32) -> Vec<u8>) {
    let count = LIST_BYTES / item(0).len();
    bytes.extend((count as u32).to_be_bytes());
    (0..count as u32).for_each(|index| bytes.extend(item(index)));
}

/// Requests of half a megabyte that name one thing very often.
fn repetitive() -> Vec<(&'static str, i16, i16, Vec<u8>)> {
    let name = "n".repeat(LONGEST);
    let one = 1_u32.to_be_bytes();
    let mut fetch = [&(-1_i32).to_be_bytes()[..], &[0; 8], &i32::MAX.to_be_bytes(), &[0], &one].concat();
    put_text(&mut fetch, name.as_bytes());
    list(&mut fetch, |index| {
        [&index.to_be_bytes()[..], &[0; 8], &1_u32.to_be_bytes()].concat()
    });
    let mut produce = [&[0xff, 0xff, 0, 1][..], &1000_u32.to_be_bytes(), &one].concat();
    put_text(&mut produce, name.as_bytes());
    list(&mut produce, |index| [index.to_be_bytes(), (-1_i32).to_be_bytes()].concat());
    let mut elect = [&[0][..], &one].concat();
    put_text(&mut elect, name.as_bytes());
    list(&mut elect, |index| index.to_be_bytes().to_vec());
    elect.extend(1000_u32.to_be_bytes());
    let mut commit = Vec::new();
    put_text(&mut commit, name.as_bytes());
    commit.extend((-1_i32).to_be_bytes());
    put_text(&mut commit, b"");
    commit.extend((-1_i64).to_be_bytes());
    commit.extend(one);
    put_text(&mut commit, b"there");
    list(&mut commit, |_| [&[0; 12][..], &[0xff, 0xff]].concat());
    let mut offsets = Vec::new();
    put_text(&mut offsets, b"group");
    offsets.extend(one);
    put_text(&mut offsets, b"there");
    list(&mut offsets, |_| vec![0; 4]);
    let mut groups = Vec::new();
    list(&mut groups, |_| vec![0, 1, b'g']);
    let mut duplicates = [&(-1_i32).to_be_bytes()[..], &one].concat();
    put_text(&mut duplicates, b"there");
    list(&mut duplicates, |index| [&(index / 2).to_be_bytes()[..], &[0xff; 8]].concat());
    vec![
        ("Fetch", 1, 4, fetch),
        ("Produce", 0, 3, produce),
        ("ElectLeaders", 43, 1, elect),
        ("OffsetCommit", 8, 2, commit),
        ("OffsetFetch", 9, 1, offsets),
        ("DescribeGroups", 15, 0, groups),
        ("ListOffsets", 2, 1, duplicates),
    ]
}

#[test]
fn request_that_names_one_thing_very_often_costs_little_memory_and_time() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "there"])?;
    for (what, key, version, body) in repetitive() {
        broker.forget_peak_memory()?;
        let before = broker.peak_memory_bytes()?;
        let started = Instant::now();
        let mut connection = RawConnection::open(&broker)?;
        connection.send(&request(key, version, 1, &body));
        // Whichever way, it ends.
        connection.answer_or_close().with_context(|| what.to_owned())?;
        check_alive(&broker).with_context(|| what.to_owned())?;
        let cost = broker.peak_memory_bytes()?.saturating_sub(before);
        ensure!(cost < COST_MAX, "{what} of {} bytes cost {cost} bytes", body.len());
        println!("{what}: {cost} bytes, {:?}", started.elapsed());
    }
    Ok(())
}

#[test]
fn requests_that_wait_do_not_keep_others_from_starting() -> Result<()> {
    let broker = Broker::start(Options::new().set("millstream.request.memory.bytes", "1048576"))?;
    broker.verb(&["topic", "create", "idle"])?;
    // What waits for a gigabyte in a topic without records, in frames of 900 kB: there is room for one of them, and the others are closed.
    let mut body = [&(-1_i32).to_be_bytes()[..], &60_000_u32.to_be_bytes(), &(1_u32 << 30).to_be_bytes()].concat();
    body.extend(i32::MAX.to_be_bytes());
    body.push(0);
    body.extend(1_u32.to_be_bytes());
    put_text(&mut body, b"idle");
    let count = 900_000_u32 / 16;
    body.extend(count.to_be_bytes());
    for _ in 0..count {
        body.extend([&[0; 12][..], &1_u32.to_be_bytes()].concat());
    }
    let mut waiting = (0..17).map(|_| RawConnection::open(&broker)).collect::<Result<Vec<_>>>()?;
    waiting.iter_mut().for_each(|one| one.send(&request(1, 4, 1, &body)));
    let value = "v".repeat(100_000);
    let line = broker.file("line", value.as_bytes())?;
    let started = Instant::now();
    broker.verb(&["produce", "idle", &line])?;
    ensure!(
        started.elapsed() < Duration::from_secs(30),
        "a request had to wait for one that waits"
    );
    process::until("all but one are closed", Duration::from_secs(30), || {
        for index in (0..waiting.len()).rev() {
            if waiting[index].answers_within(Duration::from_millis(1))? {
                ensure!(
                    waiting.swap_remove(index).reply()? == Reply::Closed,
                    "one that should wait was answered"
                );
            }
        }
        Ok((waiting.len() == 1).then_some(()))
    })
}

#[test]
fn requests_that_do_not_end_share_a_budget() -> Result<()> {
    const BUDGET: usize = 64 << 20;
    const FRAME: usize = 30 << 20;
    let broker = Broker::start(Options::new().set("millstream.request.memory.bytes", &BUDGET.to_string()))?;
    broker.verb(&["topic", "create", "there"])?;
    broker.forget_peak_memory()?;
    let before = broker.peak_memory_bytes()?;
    // Produce requests that lack their last byte.
    let mut frame = (FRAME as u32).to_be_bytes().to_vec();
    frame.extend([0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff]);
    frame.resize(FRAME + 3, 0);
    let mut connections = (0..8).map(|_| RawConnection::open(&broker)).collect::<Result<Vec<_>>>()?;
    let mut read = Vec::new();
    for connection in &mut connections {
        read.push(connection.send_while_read(&frame, Duration::from_millis(500))?);
    }
    let whole = read.iter().filter(|sent| **sent == frame.len()).count();
    ensure!(whole == BUDGET / FRAME, "{read:?}");
    let cost = broker.peak_memory_bytes()?.saturating_sub(before);
    ensure!(cost < 2 * BUDGET as u64, "{cost} bytes");
    // Small requests need none of it, and what the first ones held is there for the others once they end.
    check_alive(&broker)?;
    connections.drain(..2);
    let third = connections.first_mut().context("a third connection")?;
    let rest = third.send_while_read(&frame[read[2]..], Duration::from_secs(5))?;
    ensure!(read[2] + rest == frame.len(), "{} and {rest} bytes were read", read[2]);
    Ok(())
}

#[test]
fn first_request_of_a_connection_may_be_large() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    // Produce to a topic that is not there, with 700 kB of something: an answer, and no closed connection.
    let mut body = [&[0xff, 0xff, 0, 1][..], &1000_u32.to_be_bytes(), &1_u32.to_be_bytes()].concat();
    put_text(&mut body, b"ghost");
    body.extend(1_u32.to_be_bytes());
    body.extend(0_u32.to_be_bytes());
    body.extend(700_000_u32.to_be_bytes());
    body.extend(vec![7; 700_000]);
    let mut connection = RawConnection::open(&broker)?;
    connection.send(&request(0, 3, 9, &body));
    let reply = connection.reply()?;
    ensure!(
        matches!(&reply, Reply::Frame(frame) if frame.starts_with(&[0, 0, 0, 9])),
        "{reply:?}"
    );
    Ok(())
}

#[test]
fn names_too_long_to_be_repeated_are_refused_by_code() -> Result<()> {
    let broker = Broker::start(Options::new().set("auto.create.topics.enable", "false"))?;
    let mut body = [&[0xff, 0xff, 0, 1][..], &1000_u32.to_be_bytes(), &1_u32.to_be_bytes()].concat();
    put_text(&mut body, "n".repeat(LONGEST).as_bytes());
    body.extend(1_u32.to_be_bytes());
    body.extend([&[0; 4][..], &[0xff; 4]].concat());
    let mut connection = RawConnection::open(&broker)?;
    connection.send(&request(0, 8, 1, &body));
    let Reply::Frame(frame) = connection.reply()? else {
        anyhow::bail!("the connection was closed")
    };
    // Correlation id, one topic with its name, one partition and its index, then the code: UNKNOWN_TOPIC_OR_PARTITION.
    ensure!(
        frame
            .get(4 + 4 + 2 + LONGEST + 4 + 4..)
            .is_some_and(|rest| rest.starts_with(&[0, 3]))
    );
    Ok(())
}
