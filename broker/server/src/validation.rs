//! What a producer's batch must be before it is appended. The rules are those of Kafka's LogValidator for batches from clients.

use bytes::Bytes;
use millstream_core::metadata::configs::{TimestampType as ConfiguredTimestampType, TopicConfig};
use millstream_protocol::{
    ErrorCode,
    compression::{Compression, CompressionError},
    record::{BatchHeader, RecordIter, verify_crc},
};

use crate::errors::batch_error_code;

/// A batch may decompress to this many times `max.message.bytes`: far above honest data, far below a bomb.
const EXPANSION_MAX: usize = 64;
/// Upper bound of what a batch may decompress to, in bytes. Whoever reads stored batches allows this much: the topic may have been
/// configured otherwise when they were accepted.
pub(crate) const SECTION_BYTES_MAX: usize = 256 << 20;
/// Header keys that only the broker may write; producers cannot forge the history of a dead letter.
const RESERVED_HEADER_PREFIX: &[u8] = b"millstream.";
/// Records that a refusal names; more say nothing new.
const RECORD_ERRORS_MAX: usize = 100;

/// A batch that keeps to the rules.
#[derive(Debug)]
pub(crate) struct ValidBatch {
    pub header: BatchHeader,
    pub codec: Compression,
    /// The record section, decompressed.
    pub section: Bytes,
    /// The largest timestamp of its records; the header may say another.
    pub max_timestamp: i64,
}

/// Why a batch is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub code: ErrorCode,
    pub message: String,
    /// Index of each culprit in the batch, and what is wrong with it (KIP-467).
    pub records: Vec<(i32, String)>,
}

impl Refused {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            records: Vec::new(),
        }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRecord, message)
    }
}

/// Bytes that a batch of a topic may decompress to.
pub(crate) fn section_budget_bytes(config: &TopicConfig) -> usize {
    usize::try_from(config.max_message_bytes)
        .unwrap_or(0)
        .saturating_mul(EXPANSION_MAX)
        .clamp(1 << 20, SECTION_BYTES_MAX)
}

/// Work on this many bytes or more leaves the network workers' turn.
const INLINE_BYTES_MAX: usize = 64 * 1024;

/// Runs CPU-heavy work on `bytes` bytes without holding up the other tasks of a network worker.
pub(crate) fn off_turn<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let many_workers =
        tokio::runtime::Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread);
    if bytes >= INLINE_BYTES_MAX && many_workers {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

/// The header of a batch, of which nothing is checked but that it is one.
pub(crate) fn header_of(records: &Bytes) -> Result<BatchHeader, Refused> {
    BatchHeader::parse(records).map_err(|error| Refused::new(batch_error_code(&error), error.to_string()))
}

/// Checks the bytes of one partition in a produce request: one whole, honest batch.
pub(crate) fn validate(records: &Bytes, config: &TopicConfig, produce_version: i16, now_ms: i64) -> Result<ValidBatch, Refused> {
    let header = header_of(records)?;
    check_size(records, &header, config)?;
    verify_crc(records).map_err(|error| Refused::new(batch_error_code(&error), error.to_string()))?;
    check_header(&header)?;
    let codec = header.compression().map_err(|error| Refused::invalid(error.to_string()))?;
    if codec == Compression::Zstd && produce_version < 7 {
        return Err(Refused::new(
            ErrorCode::UnsupportedCompressionType,
            "zstd needs Produce version 7 (KIP-110)",
        ));
    }
    let section = codec
        .decompress(&records.slice(BatchHeader::SIZE..), section_budget_bytes(config))
        .map_err(|error| {
            let code = match &error {
                CompressionError::OverBudget { .. } => ErrorCode::MessageTooLarge,
                CompressionError::Corrupt { .. } => ErrorCode::CorruptMessage,
            };
            Refused::new(code, error.to_string())
        })?;
    let max_timestamp = check_records(&section, &header, config, now_ms)?;
    Ok(ValidBatch {
        header,
        codec,
        section,
        max_timestamp,
    })
}

fn check_size(records: &Bytes, header: &BatchHeader, config: &TopicConfig) -> Result<(), Refused> {
    if header.size() > records.len() {
        return Err(Refused::new(
            ErrorCode::InvalidRecord,
            format!("batch of {} bytes is cut off at {}", header.size(), records.len()),
        ));
    }
    let max = usize::try_from(config.max_message_bytes).unwrap_or(0);
    if header.size() > max {
        let message = format!(
            "The record batch size in bytes {} exceeds the maximum configured value of {max}.",
            header.size()
        );
        return Err(Refused::new(ErrorCode::MessageTooLarge, message));
    }
    if header.size() < records.len() {
        return Err(Refused::invalid(
            "a produce request must hold exactly one record batch per partition",
        ));
    }
    Ok(())
}

fn check_header(header: &BatchHeader) -> Result<(), Refused> {
    if header.base_offset != 0 {
        return Err(Refused::invalid(format!(
            "the base offset of a produced batch must be 0, not {}",
            header.base_offset
        )));
    }
    if header.record_count == 0 || i64::from(header.last_offset_delta) != i64::from(header.record_count) - 1 {
        return Err(Refused::invalid(format!(
            "a batch of {} records cannot have last offset delta {}",
            header.record_count, header.last_offset_delta
        )));
    }
    if header.is_control() {
        return Err(Refused::invalid("clients cannot write control batches"));
    }
    if header.has_delete_horizon() {
        return Err(Refused::invalid("clients cannot set a delete horizon"));
    }
    if header.is_transactional() && !header.has_producer_id() {
        return Err(Refused::invalid("a transactional batch needs a producer id"));
    }
    if header.has_producer_id() && header.producer_epoch < 0 {
        let message = format!("producer {} has epoch {}", header.producer_id, header.producer_epoch);
        return Err(Refused::new(ErrorCode::InvalidProducerEpoch, message));
    }
    if header.producer_id < -1 || header.has_producer_id() && (header.base_sequence < 0 || header.producer_epoch < 0) {
        let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
        return Err(Refused::invalid(format!(
            "producer id {id}, epoch {epoch} and sequence {sequence} do not go together"
        )));
    }
    Ok(())
}

/// What producers' timestamps may be; nothing where the broker gives its own.
struct TimestampBounds {
    earliest: i64,
    latest: i64,
}

impl TimestampBounds {
    fn of(config: &TopicConfig, now_ms: i64) -> Option<Self> {
        (config.message_timestamp_type == ConfiguredTimestampType::CreateTime).then(|| Self {
            earliest: now_ms.saturating_sub(config.message_timestamp_before_max_ms),
            latest: now_ms.saturating_add(config.message_timestamp_after_max_ms),
        })
    }

    fn problem(&self, timestamp: i64) -> Option<String> {
        let Self { earliest, latest } = self;
        let is_fine = timestamp == -1 || (*earliest..=*latest).contains(&timestamp);
        (!is_fine)
            .then(|| format!("Timestamp {timestamp} of message is out of range. The timestamp should be within [{earliest}, {latest}]"))
    }
}

fn check_records(section: &[u8], header: &BatchHeader, config: &TopicConfig, now_ms: i64) -> Result<i64, Refused> {
    let bounds = TimestampBounds::of(config, now_ms);
    let mut culprits = Vec::new();
    let mut late = Vec::new();
    let mut max_timestamp = -1;
    for (index, record) in (0i32..).zip(RecordIter::new(section, header.record_count)) {
        let record = record.map_err(|error| Refused {
            records: vec![(index, error.to_string())],
            ..Refused::invalid(error.to_string())
        })?;
        let timestamp = header.base_timestamp.saturating_add(record.timestamp_delta);
        max_timestamp = max_timestamp.max(timestamp);
        if let Some(problem) = bounds.as_ref().and_then(|bounds| bounds.problem(timestamp)) {
            late.push((index, problem));
        }
        if record.offset_delta != index {
            culprits.push((
                index,
                format!("Inner record's offset delta is {} instead of {index}.", record.offset_delta),
            ));
        } else if config.cleanup_policy.compact && record.key.is_none() {
            culprits.push((index, "Compacted topic cannot accept message without key.".to_owned()));
        } else if record.header_count > 0 && record.headers().any(|header| header.key.starts_with(RESERVED_HEADER_PREFIX)) {
            culprits.push((
                index,
                "Headers that start with \"millstream.\" are reserved for the broker.".to_owned(),
            ));
        }
        if culprits.len() == RECORD_ERRORS_MAX || late.len() == RECORD_ERRORS_MAX {
            break;
        }
    }
    if let Some((_, message)) = late.first() {
        let message = message.clone();
        return Err(Refused {
            records: late,
            ..Refused::new(ErrorCode::InvalidTimestamp, message)
        });
    }
    if culprits.is_empty() {
        return Ok(max_timestamp);
    }
    Err(Refused {
        records: culprits,
        ..Refused::invalid("One or more records have been rejected")
    })
}

#[cfg(test)]
mod tests {
    use millstream_core::metadata::configs::{BrokerLayers, Overrides};
    use millstream_protocol::record::{BatchBuilder, Header, NewRecord, assign_offsets, rebuild};

    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn config(pairs: &[(&str, &str)]) -> TopicConfig {
        let overrides: Overrides = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        TopicConfig::resolve(&overrides, &BrokerLayers::none())
    }

    fn batch(records: &[NewRecord<'_>], codec: Compression) -> Bytes {
        let mut builder = BatchBuilder::new(codec);
        records.iter().for_each(|record| builder.push(record));
        builder.build().unwrap()
    }

    fn plain() -> NewRecord<'static> {
        NewRecord {
            timestamp: NOW_MS,
            value: Some(b"value"),
            ..NewRecord::default()
        }
    }

    /// The batch of one plain record with a changed header and a fresh CRC.
    fn with_header(change: impl FnOnce(&mut BatchHeader)) -> Bytes {
        let batch = batch(&[plain()], Compression::None);
        let mut header = BatchHeader::parse(&batch).unwrap();
        change(&mut header);
        rebuild(&header, Compression::None, &batch[BatchHeader::SIZE..], header.record_count).unwrap()
    }

    fn refused(records: &Bytes) -> ErrorCode {
        validate(records, &config(&[]), 9, NOW_MS).unwrap_err().code
    }

    #[test]
    fn an_honest_batch_passes_with_every_codec() {
        for codec in Compression::ALL {
            let valid = validate(&batch(&[plain(), plain()], codec), &config(&[]), 9, NOW_MS).unwrap();
            assert_eq!((valid.codec, valid.header.record_count), (codec, 2));
        }
    }

    #[test]
    fn broken_headers_are_refused() {
        assert_eq!(
            refused(&with_header(|header| header.last_offset_delta = 5)),
            ErrorCode::InvalidRecord
        );
        assert_eq!(
            refused(&with_header(|header| header.attributes |= 1 << 5)),
            ErrorCode::InvalidRecord
        );
        assert_eq!(
            refused(&with_header(|header| header.attributes |= 1 << 6)),
            ErrorCode::InvalidRecord
        );
        assert_eq!(
            refused(&with_header(|header| header.attributes |= 1 << 4)),
            ErrorCode::InvalidRecord
        );
        assert_eq!(
            refused(&with_header(|header| header.producer_id = 5)),
            ErrorCode::InvalidProducerEpoch
        );
        assert_eq!(
            refused(&with_header(|header| header.record_count = 1_000_000)),
            ErrorCode::InvalidRecord
        );
    }

    #[test]
    fn broken_bytes_are_refused() {
        let whole = batch(&[plain()], Compression::None);
        assert_eq!(refused(&whole.slice(..40)), ErrorCode::InvalidRecord);
        assert_eq!(refused(&whole.slice(..whole.len() - 1)), ErrorCode::InvalidRecord);
        let mut flipped = whole.to_vec();
        flipped[65] ^= 1;
        assert_eq!(refused(&Bytes::from(flipped)), ErrorCode::CorruptMessage);
        // An old format is known and refused; one that no version has is taken for damage.
        for (magic, code) in [
            (0, ErrorCode::InvalidRecord),
            (1, ErrorCode::InvalidRecord),
            (3, ErrorCode::CorruptMessage),
            (127, ErrorCode::CorruptMessage),
        ] {
            let mut other = whole.to_vec();
            other[16] = magic;
            assert_eq!(refused(&Bytes::from(other)), code, "magic {magic}");
        }
        assert_eq!(refused(&Bytes::from([&whole[..], &whole[..]].concat())), ErrorCode::InvalidRecord);
        let mut moved = whole.to_vec();
        assign_offsets(&mut moved, 7, -1);
        assert_eq!(refused(&Bytes::from(moved)), ErrorCode::InvalidRecord);
    }

    #[test]
    fn a_batch_is_measured_compressed_at_the_limit_and_beyond() {
        let batch = batch(&[plain()], Compression::None);
        let at_limit = config(&[("max.message.bytes", &batch.len().to_string())]);
        assert!(validate(&batch, &at_limit, 9, NOW_MS).is_ok());
        let below = config(&[("max.message.bytes", &(batch.len() - 1).to_string())]);
        assert_eq!(validate(&batch, &below, 9, NOW_MS).unwrap_err().code, ErrorCode::MessageTooLarge);
    }

    #[test]
    fn compression_bombs_are_refused() {
        let zeros = vec![0; 20 << 20];
        for codec in &Compression::ALL[1..] {
            let record = NewRecord {
                value: Some(&zeros),
                ..plain()
            };
            let small = config(&[("max.message.bytes", "100000")]);
            let error = validate(&batch(&[record], *codec), &small, 9, NOW_MS).unwrap_err();
            assert_eq!(error.code, ErrorCode::MessageTooLarge, "{}", codec.name());
        }
    }

    /// One record's bytes in a batch of that many records.
    fn refused_section(section: &[u8], record_count: i32) -> ErrorCode {
        let whole = batch(&[plain()], Compression::None);
        let header = BatchHeader::parse(&whole).unwrap();
        for codec in Compression::ALL {
            let mut header = header;
            (header.record_count, header.last_offset_delta) = (record_count, record_count - 1);
            let rebuilt = rebuild(&header, codec, section, record_count).unwrap();
            let error = validate(&rebuilt, &config(&[]), 9, NOW_MS).unwrap_err();
            assert!(error.records.len() <= RECORD_ERRORS_MAX);
            if codec == Compression::Zstd {
                return error.code;
            }
            assert_eq!(error.code, ErrorCode::InvalidRecord, "{} of {section:?}", codec.name());
        }
        unreachable!("there is a last codec")
    }

    #[test]
    fn damaged_records_are_invalid_whatever_the_codec() {
        // Length, attributes, timestamp delta, offset delta, then key length and key, value length and value, header count.
        let records: [&[u8]; 9] = [
            &[0],
            &[12, 0, 0, 0, 3, 1, 0],
            &[12, 0, 0, 0, 1, 3, 0],
            &[12, 0, 0, 0, 1, 1, 1],
            &[20, 0, 0, 0, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[24, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[12, 0, 0, 0, 0x7e, b'k', 0],
            &[12, 0, 0, 0, 1, 0x7e, 0],
        ];
        for record in records {
            assert_eq!(refused_section(record, 1), ErrorCode::InvalidRecord, "{record:?}");
        }
        assert_eq!(refused_section(&[], 1), ErrorCode::InvalidRecord, "a batch that is all header");
        assert_eq!(refused_section(&[], i32::MAX), ErrorCode::InvalidRecord);
        let honest = [12, 0, 0, 0, 1, 1, 0];
        assert_eq!(refused_section(&honest, 1_000_000), ErrorCode::InvalidRecord);
        assert_eq!(refused_section(&[&honest[..], &honest].concat(), 1), ErrorCode::InvalidRecord);
    }

    #[test]
    fn keyless_records_of_compacted_topics_are_named() {
        let keyed = NewRecord {
            key: Some(b"k"),
            ..plain()
        };
        let error = validate(
            &batch(&[keyed, plain()], Compression::Lz4),
            &config(&[("cleanup.policy", "compact")]),
            9,
            NOW_MS,
        )
        .unwrap_err();
        assert_eq!(
            (error.code, error.records.iter().map(|(index, _)| *index).collect::<Vec<_>>()),
            (ErrorCode::InvalidRecord, vec![1])
        );
    }

    #[test]
    fn reserved_headers_are_refused() {
        let forged = NewRecord {
            headers: vec![Header {
                key: b"millstream.dlq.topic",
                value: None,
            }],
            ..plain()
        };
        assert_eq!(refused(&batch(&[forged], Compression::None)), ErrorCode::InvalidRecord);
    }

    #[test]
    fn timestamps_out_of_bounds_are_refused() {
        let future = NewRecord {
            timestamp: NOW_MS + 2 * 3600 * 1000,
            ..plain()
        };
        assert_eq!(refused(&batch(&[future], Compression::None)), ErrorCode::InvalidTimestamp);
        let none = NewRecord { timestamp: -1, ..plain() };
        assert!(validate(&batch(&[none], Compression::None), &config(&[]), 9, NOW_MS).is_ok());
    }

    #[test]
    fn zstd_needs_a_client_that_knows_it() {
        let error = validate(&batch(&[plain()], Compression::Zstd), &config(&[]), 6, NOW_MS).unwrap_err();
        assert_eq!(error.code, ErrorCode::UnsupportedCompressionType);
    }
}
