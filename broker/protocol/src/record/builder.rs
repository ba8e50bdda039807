//! Builds batches: new ones record by record, and changed ones from an old header and a new record section.

use bytes::{BufMut, Bytes, BytesMut};

use super::{BatchHeader, Header, NO_PRODUCER_ID, NO_SEQUENCE, header::compute_crc, varint::varlong_len, write_varint, write_varlong};
use crate::compression::{Compression, CompressionError};

/// A record to append to a [`BatchBuilder`].
#[derive(Debug, Clone, Default)]
pub struct NewRecord<'a> {
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// The key, `None` for null.
    pub key: Option<&'a [u8]>,
    /// The value, `None` for null.
    pub value: Option<&'a [u8]>,
    /// Headers in order.
    pub headers: Vec<Header<'a>>,
}

/// Collects records of one batch.
#[derive(Debug)]
pub struct BatchBuilder {
    header: BatchHeader,
    compression: Compression,
    section: BytesMut,
}

impl BatchBuilder {
    /// An empty batch of a producer that is not idempotent.
    pub fn new(compression: Compression) -> Self {
        let header = BatchHeader {
            base_offset: 0,
            batch_length: 0,
            partition_leader_epoch: -1,
            crc: 0,
            attributes: compression as i16,
            last_offset_delta: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: -1,
            base_sequence: NO_SEQUENCE,
            record_count: 0,
        };
        Self {
            header,
            compression,
            section: BytesMut::new(),
        }
    }

    /// Makes it a batch of an idempotent producer.
    pub fn idempotent(mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Self {
        self.header.producer_id = producer_id;
        self.header.producer_epoch = producer_epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Makes it a batch of its producer's transaction.
    pub fn transactional(mut self) -> Self {
        self.header.attributes |= 1 << 4;
        self
    }

    /// Appends a record at the next offset.
    pub fn push(&mut self, record: &NewRecord<'_>) {
        if self.header.record_count == 0 {
            self.header.base_timestamp = record.timestamp;
            self.header.max_timestamp = record.timestamp;
        }
        self.header.max_timestamp = self.header.max_timestamp.max(record.timestamp);
        self.header.last_offset_delta = self.header.record_count;
        let timestamp_delta = record.timestamp.wrapping_sub(self.header.base_timestamp);
        let body_len = record_body_len(record, timestamp_delta, self.header.record_count);
        self.section.reserve(body_len + 5);
        write_varlong(&mut self.section, body_len as i64);
        self.section.put_i8(0);
        write_varlong(&mut self.section, timestamp_delta);
        write_varint(&mut self.section, self.header.record_count);
        put_nullable(&mut self.section, record.key);
        put_nullable(&mut self.section, record.value);
        write_varlong(&mut self.section, record.headers.len() as i64);
        for header in &record.headers {
            put_nullable(&mut self.section, Some(header.key));
            put_nullable(&mut self.section, header.value);
        }
        self.header.record_count += 1;
    }

    /// Records so far.
    pub fn record_count(&self) -> i32 {
        self.header.record_count
    }

    /// Bytes of the record section so far, uncompressed.
    pub fn section_len(&self) -> usize {
        self.section.len()
    }

    /// The finished batch.
    pub fn build(self) -> Result<Bytes, CompressionError> {
        rebuild(&self.header, self.compression, &self.section, self.header.record_count)
    }
}

fn record_body_len(record: &NewRecord<'_>, timestamp_delta: i64, offset_delta: i32) -> usize {
    let headers: usize = record
        .headers
        .iter()
        .map(|header| nullable_len(Some(header.key)) + nullable_len(header.value))
        .sum();
    1 + varlong_len(timestamp_delta)
        + varlong_len(i64::from(offset_delta))
        + nullable_len(record.key)
        + nullable_len(record.value)
        + varlong_len(record.headers.len() as i64)
        + headers
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varlong_len(bytes.len() as i64) + bytes.len())
}

fn put_nullable(output: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        None => write_varint(output, -1),
        Some(bytes) => {
            write_varlong(output, bytes.len() as i64);
            output.put_slice(bytes);
        }
    }
}

/// A whole batch with another record section. Offsets, timestamps, producer fields and flags are those of `header`, so that
/// idempotent producers and consumers see the same offset range; codec, length, count and CRC are new.
pub fn rebuild(header: &BatchHeader, compression: Compression, section: &[u8], record_count: i32) -> Result<Bytes, CompressionError> {
    rebuild_at(header, (compression, None), section, record_count)
}

/// [`rebuild`] with a level of compression.
pub fn rebuild_at(
    header: &BatchHeader,
    (compression, level): (Compression, Option<i32>),
    section: &[u8],
    record_count: i32,
) -> Result<Bytes, CompressionError> {
    // An empty section needs no codec, and some decoders refuse an empty compressed stream.
    let compression = if section.is_empty() { Compression::None } else { compression };
    let compressed;
    let body = if compression == Compression::None {
        section
    } else {
        compressed = compression.compress(section, level)?;
        &compressed
    };
    let size = BatchHeader::SIZE + body.len();
    let Ok(batch_length) = i32::try_from(size - super::BATCH_LENGTH_OVERHEAD) else {
        return Err(CompressionError::OverBudget {
            codec: compression.name(),
            budget_bytes: i32::MAX as usize,
        });
    };
    let mut header = BatchHeader {
        batch_length,
        record_count,
        ..*header
    };
    header.attributes = (header.attributes & !7) | compression as i16;
    let mut batch = BytesMut::with_capacity(size);
    batch.resize(BatchHeader::SIZE, 0);
    batch.extend_from_slice(body);
    write_header(&mut batch, &header);
    header.crc = compute_crc(&batch);
    write_header(&mut batch, &header);
    Ok(batch.freeze())
}

fn write_header(batch: &mut BytesMut, header: &BatchHeader) {
    if let Some(fixed) = batch.first_chunk_mut() {
        header.write(fixed);
    }
}

/// A builder for the control batch of a producer's transaction.
pub(super) fn transactional_control(producer_id: i64, producer_epoch: i16) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Compression::None)
        .idempotent(producer_id, producer_epoch, NO_SEQUENCE)
        .transactional();
    builder.header.attributes |= 1 << 5;
    builder
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{BatchError, RecordIter, assign_offsets, split_batches, verify_crc};

    type OwnedRecord = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

    fn records() -> impl Strategy<Value = Vec<OwnedRecord>> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
        let header = (bytes(), proptest::option::of(bytes()));
        let record = (
            0i64..1 << 41,
            proptest::option::of(bytes()),
            proptest::option::of(bytes()),
            proptest::collection::vec(header, 0..3),
        );
        proptest::collection::vec(record, 1..30)
    }

    fn build(records: &[OwnedRecord], compression: Compression) -> Bytes {
        let mut builder = BatchBuilder::new(compression).idempotent(7, 1, 100);
        for (timestamp, key, value, headers) in records {
            let headers = headers
                .iter()
                .map(|(key, value)| Header {
                    key,
                    value: value.as_deref(),
                })
                .collect();
            builder.push(&NewRecord {
                timestamp: *timestamp,
                key: key.as_deref(),
                value: value.as_deref(),
                headers,
            });
        }
        builder.build().unwrap()
    }

    proptest! {
        #[test]
        fn a_built_batch_reads_back_with_every_codec(records in records(), codec in 0usize..5) {
            let batch = build(&records, Compression::ALL[codec]);
            verify_crc(&batch).unwrap();
            let header = BatchHeader::parse(&batch).unwrap();
            let section = header.compression().unwrap().decompress(&batch.slice(BatchHeader::SIZE..), 1 << 20).unwrap();
            let read: Vec<OwnedRecord> = RecordIter::new(&section, header.record_count)
                .map(|record| {
                    let record = record.unwrap();
                    let headers = record.headers().map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec))).collect();
                    (header.base_timestamp + record.timestamp_delta, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec), headers)
                })
                .collect();
            prop_assert_eq!(read, records);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), count: i32) {
            let _ = RecordIter::new(&bytes, count).count();
            let _ = split_batches(Bytes::from(bytes)).count();
        }
    }

    #[test]
    fn assigning_offsets_leaves_the_crc_valid() {
        let mut batch = build(&[(5, None, Some(b"v".to_vec()), vec![])], Compression::None).to_vec();
        assign_offsets(&mut batch, 77, 3);
        verify_crc(&batch).unwrap();
        let header = BatchHeader::parse(&batch).unwrap();
        assert_eq!(
            (header.base_offset, header.partition_leader_epoch, header.next_offset()),
            (77, 3, 78)
        );
    }

    #[test]
    fn a_flipped_bit_breaks_the_crc() {
        let mut batch = build(&[(5, None, Some(b"v".to_vec()), vec![])], Compression::None).to_vec();
        batch[40] ^= 1;
        assert!(matches!(verify_crc(&batch), Err(BatchError::Crc { .. })));
    }

    #[test]
    fn splitting_stops_at_a_cut_off_batch() {
        let batch = build(&[(5, None, Some(b"v".to_vec()), vec![])], Compression::Lz4);
        let mut two = batch.to_vec();
        two.extend_from_slice(&batch[..batch.len() - 1]);
        let results: Vec<_> = split_batches(Bytes::from(two)).collect();
        assert!(matches!(&results[..], [Ok(_), Err(BatchError::Truncated { .. })]));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let batch = build(&[(0, None, None, vec![]), (0, None, None, vec![])], Compression::None);
        let header = BatchHeader {
            base_sequence: i32::MAX,
            ..BatchHeader::parse(&batch).unwrap()
        };
        assert_eq!(header.last_sequence(), 0);
    }
}
