//! Latencies at a steady pace, and acknowledgements of many producers that each wait for theirs.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use millstream_protocol::record::{BatchHeader, RecordIter, split_batches};

use super::{
    batch::single_record,
    consume::{fetch, fetch_request, record_bytes},
    produce::{acknowledged, produce_frame},
};
use crate::{client::Connection, stats::Latencies};

/// Requests in flight while latency is measured: enough that a slow acknowledgement delays nobody, as with librdkafka's default.
const IN_FLIGHT_MAX: i32 = 1000;

/// A steady rate for some time.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Events per second.
    pub per_second: u32,
    /// How long.
    pub time: Duration,
}

impl Pace {
    /// Number of events.
    pub fn events(&self) -> u32 {
        let events = f64::from(self.per_second) * self.time.as_secs_f64();
        events as u32
    }

    /// When an event is due.
    pub fn due(&self, started: Instant, event: u32) -> Instant {
        started + Duration::from_secs(1) * event / self.per_second
    }
}

/// Sleeps until `due` and returns when the event starts to count: now, or when it was due if that has long passed, so that an event
/// that had to wait for the one before it counts its wait.
pub fn wait_until(due: Instant) -> Instant {
    let now = Instant::now();
    match due.checked_duration_since(now) {
        Some(left) => {
            thread::sleep(left);
            Instant::now()
        }
        None => due,
    }
}

/// From a record's send to its arrival at a consumer, linger 0: one record per request, a consumer that always waits in a fetch.
/// The topic must be new and have one partition.
pub fn end_to_end(address: &str, topic: &str, value: &[u8], pace: Pace) -> Result<Latencies> {
    let epoch = Instant::now();
    thread::scope(|scope| {
        let consumer = scope.spawn(|| receive_stamped(address, topic, epoch, pace.events()));
        let sent = send_stamped(address, topic, value, epoch, pace);
        let latencies = consumer.join().map_err(|_| anyhow!("the consumer panicked"))?;
        sent?;
        latencies
    })
}

/// Sends one record per event; its key says when, in nanoseconds since `epoch`.
fn send_stamped(address: &str, topic: &str, value: &[u8], epoch: Instant, pace: Pace) -> Result<()> {
    let mut connection = Connection::open(address)?;
    let started = Instant::now();
    for event in 0..pace.events() {
        let stamp = wait_until(pace.due(started, event)).saturating_duration_since(epoch);
        let key = u64::try_from(stamp.as_nanos()).context("a run of centuries")?.to_be_bytes();
        if connection.in_flight() == IN_FLIGHT_MAX {
            acknowledged(&mut connection)?;
        }
        connection.send(&mut produce_frame(topic, 0, &single_record(Some(&key), value)?)?)?;
    }
    while connection.in_flight() > 0 {
        acknowledged(&mut connection)?;
    }
    Ok(())
}

fn receive_stamped(address: &str, topic: &str, epoch: Instant, count: u32) -> Result<Latencies> {
    /// Fetches without a record, of half a second each, after which the producer is taken for dead.
    const EMPTY_FETCHES_MAX: u32 = 20;
    let mut connection = Connection::open(address)?;
    let mut latencies = Latencies::default();
    let (mut next, mut empty) = (0, 0);
    while latencies.len() < count as usize {
        let partition = fetch(&mut connection, &fetch_request(topic, 0, next))?;
        let arrived = epoch.elapsed();
        let before = latencies.len();
        for batch in split_batches(record_bytes(partition)) {
            // The last batch may be cut.
            let Ok((header, bytes)) = batch else { break };
            let section = bytes.get(BatchHeader::SIZE..).unwrap_or_default();
            for record in RecordIter::new(section, header.record_count) {
                let key = record
                    .context("read a record")?
                    .key
                    .and_then(<[u8]>::first_chunk)
                    .context("a record has a key")?;
                latencies.push(arrived.saturating_sub(Duration::from_nanos(u64::from_be_bytes(*key))));
            }
            next = header.next_offset();
        }
        empty = if latencies.len() == before { empty + 1 } else { 0 };
        ensure!(empty <= EMPTY_FETCHES_MAX, "{} of {count} records arrived", latencies.len());
    }
    ensure!(latencies.len() == count as usize, "{} records arrived of {count}", latencies.len());
    Ok(latencies)
}

/// From the send of a one-record request to its acknowledgement, one at a time.
pub fn ack_latencies(address: &str, topic: &str, value: &[u8], pace: Pace) -> Result<Latencies> {
    let mut connection = Connection::open(address)?;
    let mut frame = produce_frame(topic, 0, &single_record(None, value)?)?;
    let mut latencies = Latencies::default();
    let started = Instant::now();
    for event in 0..pace.events() {
        let sent = wait_until(pace.due(started, event));
        connection.send(&mut frame)?;
        acknowledged(&mut connection)?;
        latencies.push(sent.elapsed());
    }
    Ok(latencies)
}

/// Acknowledgements per second of producers that each send one record and wait; and how many there were.
pub fn acks_per_second(address: &str, topic: &str, value: &[u8], producers: usize, time: Duration) -> Result<(f64, u64)> {
    let batch = single_record(None, value)?;
    let start = Barrier::new(producers);
    thread::scope(|scope| {
        let running: Vec<_> = (0..producers)
            .map(|_| scope.spawn(|| produce_until(address, topic, &batch, &start, time)))
            .collect();
        let (mut acks, mut longest) = (0, Duration::ZERO);
        for producer in running {
            let (own, took) = producer.join().map_err(|_| anyhow!("a producer panicked"))??;
            acks += own;
            longest = longest.max(took);
        }
        Ok((acks as f64 / longest.as_secs_f64(), acks))
    })
}

fn produce_until(address: &str, topic: &str, batch: &Bytes, start: &Barrier, time: Duration) -> Result<(u64, Duration)> {
    let prepared = Connection::open(address).and_then(|connection| Ok((connection, produce_frame(topic, 0, batch)?)));
    // Everybody comes to the barrier, or the others would wait for ever.
    start.wait();
    let (mut connection, mut frame) = prepared?;
    let started = Instant::now();
    let mut acks = 0;
    while started.elapsed() < time {
        connection.send(&mut frame)?;
        acknowledged(&mut connection)?;
        acks += 1;
    }
    Ok((acks, started.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_events_count_from_when_they_were_due() {
        let now = Instant::now();
        let due = now.checked_sub(Duration::from_millis(5)).unwrap();
        assert_eq!(wait_until(due), due);
        assert!(wait_until(now + Duration::from_millis(1)) >= now + Duration::from_millis(1));
    }

    #[test]
    fn events_are_spread_evenly() {
        let pace = Pace {
            per_second: 1000,
            time: Duration::from_millis(1500),
        };
        let started = Instant::now();
        assert_eq!(pace.events(), 1500);
        assert_eq!(pace.due(started, 250), started + Duration::from_millis(250));
    }
}
