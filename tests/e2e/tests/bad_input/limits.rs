//! Clients that take their time, or take too much: connections, pipelines, answers that nobody reads.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use millstream_e2e::{
    broker::{Broker, Options},
    wire::{API_VERSIONS, RawConnection, Reply, check_alive, put_text, request},
};

/// A batch with one record, key `k` and value `v`.
const BATCH: [u8; 70] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3a, 0, 0, 0, 0, 2, 0xe9, 0x9b, 0x8d, 0xd8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0, 0,
    0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0x10,
    0, 0, 0, 2, 0x6b, 2, 0x76, 0,
];

/// Produce version 3 of one record to partition 0.
fn produce(topic: &str, acks: i16) -> Vec<u8> {
    let mut body = [
        &[0xff, 0xff][..],
        &acks.to_be_bytes(),
        &5000_u32.to_be_bytes(),
        &1_u32.to_be_bytes(),
    ]
    .concat();
    put_text(&mut body, topic.as_bytes());
    body.extend([1_u32.to_be_bytes(), 0_u32.to_be_bytes(), (BATCH.len() as u32).to_be_bytes()].concat());
    body.extend(BATCH);
    body
}

/// Fetch version 4 from offset 0 of partition 0 that waits for more than there is.
fn fetch(topic: &str, wait_ms: u32, partitions: u32) -> Vec<u8> {
    let mut body = [&(-1_i32).to_be_bytes()[..], &wait_ms.to_be_bytes(), &(1_u32 << 30).to_be_bytes()].concat();
    body.extend(i32::MAX.to_be_bytes());
    body.push(0);
    body.extend(1_u32.to_be_bytes());
    put_text(&mut body, topic.as_bytes());
    body.extend(partitions.to_be_bytes());
    for partition in 0..partitions {
        body.extend([&partition.to_be_bytes()[..], &[0; 8], &i32::MAX.to_be_bytes()].concat());
    }
    body
}

fn correlation(reply: Reply) -> Result<u32> {
    match reply {
        Reply::Frame(frame) => Ok(u32::from_be_bytes(*frame.first_chunk().context("an answer has a correlation id")?)),
        Reply::Closed => bail!("the connection was closed"),
    }
}

#[test]
fn produce_without_acknowledgement_is_silent_or_closes() -> Result<()> {
    let broker = Broker::start(Options::new().set("auto.create.topics.enable", "false"))?;
    broker.verb(&["topic", "create", "t"])?;
    let mut connection = RawConnection::open(&broker)?;
    connection.send(&request(0, 3, 1, &produce("t", 0)));
    connection.send(&request(API_VERSIONS, 0, 2, b""));
    ensure!(correlation(connection.reply()?)? == 2, "success has no answer");
    connection.send(&request(0, 3, 3, &produce("ghost", 0)));
    ensure!(connection.reply()? == Reply::Closed, "a failure can only be told by closing");
    Ok(())
}

#[test]
fn answers_keep_the_order_of_requests_when_the_first_waits() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "t"])?;
    let mut connection = RawConnection::open(&broker)?;
    let started = Instant::now();
    connection.send(&request(1, 4, 1, &fetch("t", 700, 1)));
    connection.send(&request(API_VERSIONS, 0, 2, b""));
    ensure!(correlation(connection.reply()?)? == 1);
    ensure!(started.elapsed() >= Duration::from_millis(600), "the fetch did not wait");
    ensure!(correlation(connection.reply()?)? == 2);
    Ok(())
}

#[test]
fn requests_behind_one_that_waits_are_begun() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "idle"])?;
    broker.verb(&["topic", "create", "t"])?;
    let mut connection = RawConnection::open(&broker)?;
    connection.send(&request(1, 4, 1, &fetch("idle", 5_000, 1)));
    for id in [2, 3] {
        connection.send(&request(0, 3, id, &produce("t", -1)));
    }
    // Another client reads both records while the first answer is still to come.
    let read = broker.verb_raw(&["consume", "t", "--from", "earliest", "--max", "2"], b"")?;
    ensure!(read.status.success(), "{read:?}");
    ensure!(!connection.answers_within(Duration::from_millis(1))?, "the fetch did not wait");
    for id in [1, 2, 3] {
        ensure!(correlation(connection.reply()?)? == id, "answer {id} is out of order");
    }
    Ok(())
}

#[test]
fn the_cluster_is_the_same_after_a_restart_and_has_an_address() -> Result<()> {
    let mut broker = Broker::start(Options::new())?;
    // Metadata version 2: brokers, cluster id, controller.
    let told = |broker: &Broker| -> Result<(String, i32, String)> {
        let mut connection = RawConnection::open(broker)?;
        connection.send(&request(3, 2, 1, &0_u32.to_be_bytes()));
        let Reply::Frame(answer) = connection.reply()? else {
            bail!("the connection was closed");
        };
        let text = |at: usize| -> Result<(String, usize)> {
            let length = usize::from(u16::from_be_bytes(*answer[at..].first_chunk().context("a length")?));
            Ok((String::from_utf8(answer[at + 2..at + 2 + length].to_vec())?, at + 2 + length))
        };
        // Correlation id, one broker, its id.
        ensure!(answer[4..8] == 1_u32.to_be_bytes(), "one broker");
        let node = i32::from_be_bytes(*answer[8..].first_chunk().context("a node")?);
        let (host, after) = text(12)?;
        // Port, rack.
        let (_, after) = (0, after + 4 + 2);
        let (cluster, after) = text(after)?;
        let controller = i32::from_be_bytes(*answer[after..].first_chunk().context("a controller")?);
        ensure!(controller == node, "the controller is no broker");
        Ok((host, node, cluster))
    };
    let before = told(&broker)?;
    before.0.parse::<std::net::Ipv4Addr>().context("the host is an address")?;
    broker.kill()?;
    broker.restart()?;
    ensure!(told(&broker)? == before, "{before:?}");
    Ok(())
}

#[test]
fn long_pipeline_is_answered_to_its_end() -> Result<()> {
    const REQUESTS: u32 = 100_000;
    let broker = Broker::start(Options::new())?;
    let before = broker.peak_memory_bytes()?;
    let mut reading = RawConnection::open(&broker)?;
    let mut writing = reading.other_half()?;
    let writer = std::thread::spawn(move || {
        for first in (0..REQUESTS).step_by(1000) {
            let some: Vec<u8> = (first..first + 1000)
                .flat_map(|id| request(API_VERSIONS, 0, id as i32, b""))
                .collect();
            writing.send(&some);
        }
    });
    for id in 0..REQUESTS {
        ensure!(correlation(reading.reply()?)? == id, "answer {id} is out of order");
    }
    ensure!(writer.join().is_ok(), "the writer ends well");
    let cost = broker.peak_memory_bytes()?.saturating_sub(before);
    ensure!(cost < 64 << 20, "{cost} bytes for one connection's pipeline");
    Ok(())
}

#[test]
fn connections_beyond_the_limit_wait_and_the_limit_can_be_raised() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    let mut held = RawConnection::open(&broker)?;
    held.send(&request(API_VERSIONS, 0, 1, b""));
    ensure!(matches!(held.reply()?, Reply::Frame(_)), "the first is served");
    let mut limit = |value: &str, correlation_id: i32| -> Result<()> {
        // IncrementalAlterConfigs version 0: of all brokers, set max.connections.
        let mut body = 1_u32.to_be_bytes().to_vec();
        body.push(4);
        put_text(&mut body, b"");
        body.extend(1_u32.to_be_bytes());
        put_text(&mut body, b"max.connections");
        body.push(0);
        put_text(&mut body, value.as_bytes());
        body.push(0);
        held.send(&request(44, 0, correlation_id, &body));
        let Reply::Frame(answer) = held.reply()? else {
            bail!("the connection was closed");
        };
        // Correlation id, throttle time, one resource: its error code.
        ensure!(answer.get(12..14) == Some(&[0, 0]), "{answer:?}");
        Ok(())
    };
    limit("1", 2)?;
    let mut waiting = RawConnection::open(&broker)?;
    waiting.send(&request(API_VERSIONS, 0, 1, b""));
    ensure!(!waiting.answers_within(Duration::from_millis(1500))?, "the second one had to wait");
    limit("2", 3)?;
    ensure!(matches!(waiting.reply()?, Reply::Frame(_)), "the second one is served");
    Ok(())
}

#[test]
fn connections_of_one_address_are_limited_and_idle_ones_closed() -> Result<()> {
    let options = Options::new()
        .set("max.connections.per.ip", "4")
        .set("connections.max.idle.ms", "4000");
    let broker = Broker::start(options)?;
    let mut held = Vec::new();
    let started = Instant::now();
    for index in 0..4 {
        let mut connection = RawConnection::open(&broker)?;
        connection.send(&request(API_VERSIONS, 0, 1, b""));
        ensure!(matches!(connection.reply()?, Reply::Frame(_)), "connection {index}");
        held.push(connection);
    }
    let mut fifth = RawConnection::open(&broker)?;
    fifth.send(&request(API_VERSIONS, 0, 1, b""));
    ensure!(fifth.reply()? == Reply::Closed, "the fifth is one too many");
    // Half a request keeps a connection no longer than none.
    let (slow, rest) = held.split_first_mut().context("there are four")?;
    slow.send(&request(API_VERSIONS, 0, 2, b"")[..5]);
    for connection in rest {
        ensure!(connection.reply()? == Reply::Closed, "an idle connection is closed");
    }
    ensure!(started.elapsed() >= Duration::from_millis(3900), "closed before its time");
    ensure!(slow.reply()? == Reply::Closed, "half a request is no life");
    check_alive(&broker)
}

#[test]
fn fetch_of_everything_for_ever_holds_nothing_up() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "wide", "--partitions", "1000"])?;
    let before = broker.peak_memory_bytes()?;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut connection = RawConnection::open(&broker)?;
        connection.send(&request(1, 4, 1, &fetch("wide", i32::MAX as u32, 1000)));
        waiting.push(connection);
    }
    let started = Instant::now();
    for _ in 0..10 {
        check_alive(&broker)?;
        let mut connection = RawConnection::open(&broker)?;
        connection.send(&request(0, 3, 2, &produce("wide", -1)));
        ensure!(correlation(connection.reply()?)? == 2);
    }
    ensure!(started.elapsed() < Duration::from_secs(20), "others had to wait");
    let cost = broker.peak_memory_bytes()?.saturating_sub(before);
    ensure!(cost < 200 << 20, "{cost} bytes for twenty fetches that wait");
    for connection in &waiting {
        ensure!(!connection.answers_within(Duration::from_millis(1))?, "a fetch did not wait");
    }
    drop(waiting);
    check_alive(&broker)
}
