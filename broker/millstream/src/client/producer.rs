//! Batches to a topic, one request at a time, each retried until it is known what became of it.
//!
//! With `acks=all` the producer is idempotent: a retry of a batch that had arrived is recognised by its sequence number.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use millstream_protocol::{
    ErrorCode,
    chunk::Records,
    compression::Compression,
    messages::{
        InitProducerIdRequest, ProduceRequest,
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::PartitionProduceResponse,
    },
    record::{BatchBuilder, NewRecord},
};

use super::kafka::{Kafka, check};

const TIMEOUT_MS: i32 = 30_000;
const RETRIES: u32 = 100;
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// When a batch counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// When every in-sync replica has it.
    All,
    /// When the leader has it.
    Leader,
    /// When it was sent.
    None,
}

impl Acks {
    fn code(self) -> i16 {
        match self {
            Self::All => -1,
            Self::Leader => 1,
            Self::None => 0,
        }
    }
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is in the log.
    Written,
    /// The broker does not take it.
    Refused(Refusal),
}

/// Why a batch was refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error in words, with Kafka's name for it.
    pub reason: String,
    /// Records of the batch, by index, and what is wrong with each; empty if it is none of theirs.
    pub records: Vec<(usize, String)>,
}

/// Records that will be sent as one batch.
#[derive(Debug)]
pub struct Batch(BatchBuilder);

impl Batch {
    /// Adds a record.
    pub fn push(&mut self, timestamp_ms: i64, key: Option<&[u8]>, value: &[u8]) {
        self.0.push(&NewRecord {
            timestamp: timestamp_ms,
            key,
            value: Some(value),
            headers: Vec::new(),
        });
    }

    /// Bytes so far, uncompressed.
    pub fn len(&self) -> usize {
        self.0.section_len()
    }
}

/// Writes to one topic.
#[derive(Debug)]
pub struct Producer {
    kafka: Kafka,
    topic: String,
    acks: Acks,
    compression: Compression,
    /// Producer id and epoch, if idempotent.
    identity: Option<(i64, i16)>,
    /// Next sequence number by partition.
    sequences: BTreeMap<i32, i32>,
}

impl Producer {
    /// A producer; with `acks=all` it asks for a producer id.
    pub async fn new(mut kafka: Kafka, topic: &str, acks: Acks, compression: Compression) -> Result<Self> {
        let mut identity = None;
        if acks == Acks::All {
            let request = InitProducerIdRequest {
                transactional_id: None,
                producer_id: -1,
                producer_epoch: -1,
                ..InitProducerIdRequest::default()
            };
            let response = kafka.call_until_settled(&request, |response| response.error_code).await?;
            check(response.error_code, None, || "get a producer id".to_owned())?;
            identity = Some((response.producer_id, response.producer_epoch));
        }
        Ok(Self {
            kafka,
            topic: topic.to_owned(),
            acks,
            compression,
            identity,
            sequences: BTreeMap::new(),
        })
    }

    /// An empty batch for a partition, to be sent before the next one for it is begun.
    pub fn batch(&self, partition: i32) -> Batch {
        let builder = BatchBuilder::new(self.compression);
        Batch(match self.identity {
            Some((id, epoch)) => builder.idempotent(id, epoch, self.sequences.get(&partition).copied().unwrap_or(0)),
            None => builder,
        })
    }

    /// Sends a batch and waits until it is known what became of it.
    pub async fn send(&mut self, partition: i32, batch: Batch) -> Result<Delivery> {
        let count = batch.0.record_count();
        let bytes = batch.0.build().context("compress a batch")?;
        let request = self.request(partition, bytes);
        if self.acks == Acks::None {
            self.kafka.send(&request).await?;
            return Ok(Delivery::Written);
        }
        let mut tries = 0;
        let delivery = loop {
            let mut topics = self.kafka.call(&request).await?.responses.into_iter();
            let response = topics.next().and_then(|topic| topic.partition_responses.into_iter().next());
            let response = response.with_context(|| format!("no answer about {} partition {partition}", self.topic))?;
            match ErrorCode::from_code(response.error_code) {
                // A duplicate is a retry whose first try had arrived.
                Some(ErrorCode::None | ErrorCode::DuplicateSequenceNumber) => break Delivery::Written,
                Some(code) if worth_retrying(code) && tries < RETRIES => {
                    tries += 1;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                code => break Delivery::Refused(refusal(&self.topic, partition, code, response)),
            }
        };
        if delivery == Delivery::Written {
            let sequence = self.sequences.entry(partition).or_insert(0);
            // Sequences wrap to zero after the largest i32.
            *sequence = i32::try_from((i64::from(*sequence) + i64::from(count)) & 0x7fff_ffff).unwrap_or(0);
        }
        Ok(delivery)
    }

    fn request(&self, partition: i32, batch: Bytes) -> ProduceRequest {
        ProduceRequest {
            transactional_id: None,
            acks: self.acks.code(),
            timeout_ms: TIMEOUT_MS,
            topic_data: vec![TopicProduceData {
                name: self.topic.as_str().into(),
                partition_data: vec![PartitionProduceData {
                    index: partition,
                    records: Some(Records::from(batch)),
                }],
                ..TopicProduceData::default()
            }],
        }
    }
}

/// Retriable for Kafka, but for what waiting does not change: a bad batch stays bad, a topic that is gone stays gone.
fn worth_retrying(code: ErrorCode) -> bool {
    code.is_retriable() && !matches!(code, ErrorCode::CorruptMessage | ErrorCode::UnknownTopicOrPartition)
}

fn refusal(topic: &str, partition: i32, code: Option<ErrorCode>, response: PartitionProduceResponse) -> Refusal {
    let name = code.map_or_else(|| format!("error {}", response.error_code), |code| code.name().to_owned());
    let message = response.error_message.as_ref().map(|message| message.as_str().to_owned());
    let message = message.or_else(|| code.map(|code| code.message().to_owned())).unwrap_or_default();
    let record = |error: millstream_protocol::messages::produce_response::BatchIndexAndErrorMessage| {
        let index = usize::try_from(error.batch_index).ok()?;
        Some((
            index,
            error
                .batch_index_error_message
                .map_or_else(|| message.clone(), |text| text.as_str().to_owned()),
        ))
    };
    Refusal {
        reason: format!("{topic} partition {partition}: {message} ({name})"),
        records: response.record_errors.into_iter().filter_map(record).collect(),
    }
}

#[cfg(test)]
mod tests {
    use millstream_protocol::messages::produce_response::BatchIndexAndErrorMessage;

    use super::*;

    #[test]
    fn refusal_names_partition_code_and_records() {
        let response = PartitionProduceResponse {
            error_code: 87,
            error_message: Some("schema".into()),
            record_errors: vec![
                BatchIndexAndErrorMessage {
                    batch_index: 2,
                    batch_index_error_message: Some("no id".into()),
                },
                BatchIndexAndErrorMessage {
                    batch_index: 5,
                    batch_index_error_message: None,
                },
            ],
            ..PartitionProduceResponse::default()
        };
        let refusal = refusal("t", 3, ErrorCode::from_code(87), response);
        assert_eq!(refusal.reason, "t partition 3: schema (INVALID_RECORD)");
        assert_eq!(refusal.records, [(2, "no id".to_owned()), (5, "schema".to_owned())]);
    }

    #[test]
    fn only_errors_that_pass_are_retried() {
        assert!(worth_retrying(ErrorCode::NotLeaderOrFollower));
        for code in [
            ErrorCode::CorruptMessage,
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::InvalidRecord,
            ErrorCode::MessageTooLarge,
        ] {
            assert!(!worth_retrying(code), "{code:?}");
        }
    }
}
