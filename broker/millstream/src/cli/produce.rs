//! `millstream produce`: writes lines.

use std::{
    collections::BTreeMap,
    os::fd::AsFd,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use millstream_protocol::compression::Compression;
use serde_json::{Map, Value, json};
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, BufReader, Split},
    time::timeout,
};

use super::{
    args::KafkaArgs,
    output::{self, Output},
    progress::Progress,
};
use crate::client::{Acks, Batch, Delivery, Partitioner, Producer, Refusal};

/// A batch is sent when it holds this much, uncompressed.
const BATCH_BYTES: usize = 900 << 10;
/// A batch is sent, however small, when no line has come for this long.
const LINGER: Duration = Duration::from_millis(50);
const READ_BYTES: usize = 256 << 10;
/// Refused records that are shown one by one.
const REFUSED_SHOWN: u64 = 100;

/// Write lines of a file or of standard input to a topic.
#[derive(Debug, Args)]
#[command(after_help = "Example: millstream produce flights flights.jsonl --format json --key-field tailnum --compression lz4")]
pub struct Produce {
    /// Topic to write to
    topic: String,
    /// File to read; standard input if there is none
    file: Option<PathBuf>,
    /// What a line is: a value, or a JSON object, which is the value
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The field of JSON objects whose value is the record's key
    #[arg(long, value_name = "NAME")]
    key_field: Option<String>,
    /// How batches are compressed
    #[arg(long, value_enum, default_value_t = Codec::None)]
    compression: Codec,
    /// Wait for all in-sync replicas, the leader only, or nobody
    #[arg(long, default_value = "all", value_parser = ["all", "1", "0"])]
    acks: String,
    #[command(flatten)]
    kafka: KafkaArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::None => Self::None,
            Codec::Gzip => Self::Gzip,
            Codec::Snappy => Self::Snappy,
            Codec::Lz4 => Self::Lz4,
            Codec::Zstd => Self::Zstd,
        }
    }
}

impl Produce {
    /// Runs the verb.
    pub async fn run(self) -> Result<()> {
        if self.key_field.is_some() && self.format != Format::Json {
            bail!("--key-field is for --format json");
        }
        let mut lines = self.lines().await?;
        let mut kafka = self.kafka.connect().await?;
        let partitions = kafka.topic(&self.topic).await?.numbers;
        let acks = match self.acks.as_str() {
            "0" => Acks::None,
            "1" => Acks::Leader,
            _ => Acks::All,
        };
        let producer = Producer::new(kafka, &self.topic, acks, self.compression.into()).await?;
        let mut writer = Writer::new(producer, Partitioner::new(partitions, std::process::id()));
        let read = self.write_lines(&mut lines, &mut writer).await;
        // What was read before a bad line is written all the same.
        let flushed = writer.flush().await;
        writer.progress.clear();
        read.map_err(|error| anyhow!("{error:#}; {} records before it were written", writer.written))?;
        flushed?;
        if writer.refused > 0 {
            bail!("{} records were refused, {} written", writer.refused, writer.written);
        }
        if self.kafka.output == Output::Table {
            output::note(&format!("{}\n", writer.progress.summary()));
            return Ok(());
        }
        self.kafka.output.done("", &json!({"topic": self.topic, "records": writer.written}))
    }

    async fn lines(&self) -> Result<Split<BufReader<File>>> {
        let file = match &self.file {
            Some(path) => File::open(path).await.with_context(|| format!("open {}", path.display()))?,
            None => {
                let input = std::io::stdin().as_fd().try_clone_to_owned().context("open standard input")?;
                File::from_std(std::fs::File::from(input))
            }
        };
        Ok(BufReader::with_capacity(READ_BYTES, file).split(b'\n'))
    }

    async fn write_lines(&self, lines: &mut Split<BufReader<File>>, writer: &mut Writer) -> Result<()> {
        loop {
            // Cancel safe: a line that has come in part stays in the reader.
            let line = match timeout(LINGER, lines.next_segment()).await {
                Ok(line) => line,
                Err(_) => {
                    writer.flush().await?;
                    lines.next_segment().await
                }
            };
            let Some(mut line) = line.context("read the input")? else {
                return Ok(());
            };
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            writer.line += 1;
            let key = match self.format {
                Format::Text => None,
                Format::Json => json_key(&line, self.key_field.as_deref()).with_context(|| format!("line {}", writer.line))?,
            };
            writer.write(key.as_deref(), &line).await?;
        }
    }
}

/// The key in a JSON object: a text as it stands, another value as JSON. No field, or null, is no key.
fn json_key(line: &[u8], field: Option<&str>) -> Result<Option<Vec<u8>>> {
    let object: Map<String, Value> = serde_json::from_slice(line).context("not a JSON object")?;
    Ok(match field.and_then(|field| object.get(field)) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone().into_bytes()),
        Some(other) => Some(other.to_string().into_bytes()),
    })
}

/// Collects lines into batches, one per partition, and says what became of them.
struct Writer {
    producer: Producer,
    partitioner: Partitioner,
    batches: BTreeMap<i32, Lines>,
    progress: Progress,
    /// Number of the last line that was read, from 1.
    line: u64,
    written: u64,
    refused: u64,
}

/// A batch, and the numbers of its lines.
struct Lines {
    batch: Batch,
    numbers: Vec<u64>,
}

impl Writer {
    fn new(producer: Producer, partitioner: Partitioner) -> Self {
        Self {
            producer,
            partitioner,
            batches: BTreeMap::new(),
            progress: Progress::new("wrote"),
            line: 0,
            written: 0,
            refused: 0,
        }
    }

    async fn write(&mut self, key: Option<&[u8]>, value: &[u8]) -> Result<()> {
        let partition = self.partitioner.partition(key);
        let size = key.map_or(0, <[u8]>::len) + value.len();
        if self
            .batches
            .get(&partition)
            .is_some_and(|lines| lines.batch.len() + size > BATCH_BYTES)
        {
            self.send(partition).await?;
        }
        let producer = &self.producer;
        let lines = self.batches.entry(partition).or_insert_with(|| Lines {
            batch: producer.batch(partition),
            numbers: Vec::new(),
        });
        lines.batch.push(now_ms(), key, value);
        lines.numbers.push(self.line);
        self.progress.add(size);
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let partitions: Vec<i32> = self.batches.keys().copied().collect();
        for partition in partitions {
            self.send(partition).await?;
        }
        Ok(())
    }

    async fn send(&mut self, partition: i32) -> Result<()> {
        let Some(Lines { batch, numbers }) = self.batches.remove(&partition) else {
            return Ok(());
        };
        self.partitioner.next();
        match self.producer.send(partition, batch).await? {
            Delivery::Written => self.written += numbers.len() as u64,
            Delivery::Refused(refusal) => {
                self.progress.clear();
                for line in told(&refusal, &numbers, REFUSED_SHOWN.saturating_sub(self.refused)) {
                    output::note(&format!("{line}\n"));
                }
                self.refused += numbers.len() as u64;
            }
        }
        Ok(())
    }
}

/// A refusal in words: the batch's, then those of the records that caused it.
fn told(refusal: &Refusal, numbers: &[u64], records_max: u64) -> Vec<String> {
    let (first, last) = (numbers.first().copied().unwrap_or(0), numbers.last().copied().unwrap_or(0));
    let mut lines = vec![format!(
        "refused: a batch of {} records, lines {first} to {last}: {}",
        numbers.len(),
        refusal.reason
    )];
    let shown = usize::try_from(records_max).unwrap_or(usize::MAX).min(refusal.records.len());
    for (index, reason) in refusal.records.iter().take(shown) {
        let number = numbers.get(*index).map_or_else(|| "?".to_owned(), u64::to_string);
        lines.push(format!("  line {number}: {reason}"));
    }
    if shown < refusal.records.len() {
        lines.push(format!("  and {} more", refusal.records.len() - shown));
    }
    lines
}

fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_a_field() {
        let key = |line: &str, field| json_key(line.as_bytes(), field).map(|key| key.map(|key| String::from_utf8(key).unwrap()));
        assert_eq!(key(r#"{"id":"a b"}"#, Some("id")).unwrap().as_deref(), Some("a b"));
        assert_eq!(key(r#"{"id":17}"#, Some("id")).unwrap().as_deref(), Some("17"));
        assert_eq!(key(r#"{"id":null}"#, Some("id")).unwrap(), None);
        assert_eq!(key(r#"{"x":1}"#, Some("id")).unwrap(), None);
        assert_eq!(key(r#"{"id":"a"}"#, None).unwrap(), None);
        for bad in ["not json", "[1]", "", "{} {}"] {
            assert!(key(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn refused_records_are_named_by_their_lines() {
        let refusal = Refusal {
            reason: "t partition 0: bad (INVALID_RECORD)".to_owned(),
            records: vec![(0, "no id".to_owned()), (2, "no name".to_owned())],
        };
        assert_eq!(
            told(&refusal, &[4, 7, 9], 10),
            [
                "refused: a batch of 3 records, lines 4 to 9: t partition 0: bad (INVALID_RECORD)",
                "  line 4: no id",
                "  line 9: no name"
            ]
        );
        assert_eq!(told(&refusal, &[4, 7, 9], 1).last().unwrap(), "  and 1 more");
    }
}
