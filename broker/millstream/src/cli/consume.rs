//! `millstream consume`: prints records.

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, Write},
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::{args::KafkaArgs, output::Output};
use crate::client::{Committed, Consumer, EARLIEST, Kafka, LATEST, OwnedRecord};

/// How often the offsets of a group are committed while following.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);
/// Fetches in a row that find nothing, after which the end is reached although offsets are left: the last records of a partition may
/// have been compacted or dropped, and a view may show none of them.
const IDLE_FETCHES: u32 = 2;

/// Print a topic's or a view's records.
#[derive(Debug, Args)]
#[command(after_help = "Example: millstream consume flights --from earliest --max 10 --output json")]
pub struct Consume {
    /// Topic or view to read
    topic: String,
    /// Where to start: earliest, latest or an offset; a group starts at its committed offsets where it has some
    #[arg(long, value_name = "PLACE", default_value = "earliest")]
    from: Place,
    /// Only this partition
    #[arg(long)]
    partition: Option<i32>,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Start at this group's offsets, and commit what was read
    #[arg(long)]
    group: Option<String>,
    /// Wait for more at the end, until interrupted
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// Where reading starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Earliest,
    Latest,
    Offset(i64),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ => match text.parse() {
                Ok(offset @ 0..) => Ok(Self::Offset(offset)),
                _ => Err("expected earliest, latest or an offset".to_owned()),
            },
        }
    }
}

impl Consume {
    /// Runs the verb.
    pub async fn run(self) -> Result<()> {
        let mut kafka = self.kafka.connect().await?;
        let mut partitions = kafka.topic(&self.topic).await?.numbers;
        if let Some(wanted) = self.partition {
            if !partitions.contains(&wanted) {
                bail!(
                    "topic {} has partitions 0 to {}, not {wanted}",
                    self.topic,
                    partitions.len().saturating_sub(1)
                );
            }
            partitions = vec![wanted];
        }
        let ends = kafka.offsets(&self.topic, &partitions, LATEST).await?;
        let starts = kafka.offsets(&self.topic, &partitions, EARLIEST).await?;
        let committed = match &self.group {
            None => Committed::new(),
            Some(group) => {
                kafka.find_coordinator(group).await?;
                kafka.committed(group).await?
            }
        };
        let position = |partition: i32| {
            let (start, end) = (
                starts.get(&partition).copied().unwrap_or(0),
                ends.get(&partition).copied().unwrap_or(0),
            );
            // What retention deleted cannot be read any more; the first record that is left is what the reader wants.
            committed
                .get(&(self.topic.clone(), partition))
                .map_or_else(|| self.from.position(start, end), |offset| (*offset).max(start))
        };
        let positions: BTreeMap<i32, i64> = partitions.iter().map(|partition| (*partition, position(*partition))).collect();
        let mut reading = Reading {
            consumer: Consumer::new(&self.topic, positions),
            ends,
            printed: BTreeMap::new(),
            left: self.max.unwrap_or(u64::MAX),
        };
        // Cancelled only while it waits for records or prints: what was printed is in `printed` and is committed below.
        let result = tokio::select! {
            result = self.read(&mut kafka, &mut reading) => result,
            interrupted = tokio::signal::ctrl_c(), if self.follow => Ok(interrupted?),
        };
        if let Some(group) = self.group.as_ref().filter(|_| !reading.printed.is_empty()) {
            // An interrupted fetch may have left its answer on the connection.
            self.kafka.connect().await?.commit(group, &self.topic, &reading.printed).await?;
        }
        result
    }

    async fn read(&self, kafka: &mut Kafka, reading: &mut Reading) -> Result<()> {
        let mut committed = Instant::now();
        let mut idle_fetches = 0;
        while reading.left > 0 && (self.follow || reading.is_before_the_end()) {
            let fetched = reading.consumer.fetch(kafka).await?;
            idle_fetches = if fetched.idle { idle_fetches + 1 } else { 0 };
            self.print(fetched.records, reading)?;
            if idle_fetches >= IDLE_FETCHES && !self.follow {
                break;
            }
            if let Some(group) = self
                .group
                .as_ref()
                .filter(|_| self.follow && committed.elapsed() >= COMMIT_INTERVAL)
            {
                kafka.commit(group, &self.topic, &reading.printed).await?;
                committed = Instant::now();
            }
        }
        Ok(())
    }

    /// Prints records up to the end or the maximum.
    fn print(&self, records: Vec<OwnedRecord>, reading: &mut Reading) -> Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        for record in records {
            let is_beyond = reading.ends.get(&record.partition).is_none_or(|end| record.offset >= *end);
            if reading.left == 0 || (is_beyond && !self.follow) {
                continue;
            }
            match self.kafka.output {
                Output::Table => out.write_all(record.value.as_deref().unwrap_or_default())?,
                Output::Json => serde_json::to_writer(&mut out, &as_json(&record)).map_err(io::Error::from)?,
            }
            out.write_all(b"\n")?;
            reading.printed.insert(record.partition, record.offset + 1);
            reading.left -= 1;
        }
        Ok(out.flush()?)
    }
}

/// How far reading is.
struct Reading {
    consumer: Consumer,
    /// The ends that the partitions had at the start.
    ends: BTreeMap<i32, i64>,
    /// The offsets after the last printed records.
    printed: BTreeMap<i32, i64>,
    /// Records that may still be printed.
    left: u64,
}

impl Reading {
    /// Whether a partition has something left to read. Those that have not are no longer asked for when others have.
    fn is_before_the_end(&mut self) -> bool {
        let ends = &self.ends;
        let is_done = |(partition, position): (&i32, &i64)| ends.get(partition).is_none_or(|end| position >= end);
        let done: Vec<i32> = self
            .consumer
            .positions()
            .iter()
            .filter(|entry| is_done(*entry))
            .map(|(partition, _)| *partition)
            .collect();
        done.into_iter().for_each(|partition| self.consumer.forget(partition));
        !self.consumer.positions().is_empty()
    }
}

impl Place {
    fn position(self, start: i64, end: i64) -> i64 {
        match self {
            Self::Earliest => start,
            Self::Latest => end,
            Self::Offset(offset) => offset.clamp(start, end.max(start)),
        }
    }
}

fn as_json(record: &OwnedRecord) -> Value {
    let header = |(key, value): &(Bytes, Option<Bytes>)| json!({"key": String::from_utf8_lossy(key), "value": text_or_hex(value.as_ref())});
    json!({
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": text_or_hex(record.key.as_ref()),
        "value": text_or_hex(record.value.as_ref()),
        "headers": record.headers.iter().map(header).collect::<Vec<_>>(),
    })
}

/// Text as text, other bytes as `{"hex": "00ff"}`, as in golden files.
fn text_or_hex(bytes: Option<&Bytes>) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_words_or_offsets() {
        assert_eq!("earliest".parse(), Ok(Place::Earliest));
        assert_eq!("latest".parse(), Ok(Place::Latest));
        assert_eq!("17".parse(), Ok(Place::Offset(17)));
        assert!("-1".parse::<Place>().is_err());
        assert!("yesterday".parse::<Place>().is_err());
    }

    #[test]
    fn offsets_are_brought_into_the_partition() {
        assert_eq!(Place::Offset(3).position(5, 9), 5);
        assert_eq!(Place::Offset(7).position(5, 9), 7);
        assert_eq!(Place::Offset(99).position(5, 9), 9);
        assert_eq!(Place::Earliest.position(5, 9), 5);
    }

    #[test]
    fn records_are_printed_as_json_with_bytes_that_are_no_text_in_hex() {
        let record = OwnedRecord {
            partition: 1,
            offset: 2,
            timestamp: 3,
            key: None,
            value: Some(Bytes::from_static(b"\xff\x00")),
            headers: vec![(Bytes::from("h"), Some(Bytes::from("v")))],
        };
        let expected = json!({
            "partition": 1, "offset": 2, "timestamp": 3, "key": null, "value": {"hex": "ff00"},
            "headers": [{"key": "h", "value": "v"}]
        });
        assert_eq!(as_json(&record), expected);
    }
}
