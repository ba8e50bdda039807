//! Record batches, encoded once and sent many times.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use millstream_protocol::{
    compression::Compression,
    record::{BatchBuilder, NewRecord},
};

/// Encoded size of a batch that throughput is measured with.
const BATCH_BYTES: usize = 256 * 1024;
/// What a record takes besides its value, at most: lengths, deltas and counts.
const RECORD_OVERHEAD_BYTES: usize = 16;

/// Values of the records of a batch; repeated until it is full.
pub type Values = Vec<Vec<u8>>;

/// A batch without compression and producer id.
#[derive(Debug, Clone)]
pub struct Batch {
    /// As it goes over the wire.
    pub bytes: Bytes,
    /// Number of records.
    pub records: u64,
    /// Bytes of the records' values.
    pub value_bytes: u64,
}

impl Batch {
    /// A batch of about 256 KiB that holds whole rounds of `values`.
    pub fn full(values: &Values) -> Result<Self> {
        let round_bytes: usize = values.iter().map(|value| value.len() + RECORD_OVERHEAD_BYTES).sum();
        ensure!(round_bytes > 0, "a batch needs values");
        let rounds = (BATCH_BYTES / round_bytes).max(1);
        let mut builder = BatchBuilder::new(Compression::None);
        let timestamp = now_ms()?;
        for value in std::iter::repeat_n(values, rounds).flatten() {
            builder.push(&NewRecord {
                timestamp,
                value: Some(value),
                ..NewRecord::default()
            });
        }
        let value_bytes: usize = values.iter().map(Vec::len).sum();
        Ok(Self {
            bytes: builder.build().context("encode a batch")?,
            records: (rounds * values.len()) as u64,
            value_bytes: (rounds * value_bytes) as u64,
        })
    }

    /// How many of these batches make up `bytes`; at least one.
    pub fn count_in(&self, bytes: u64) -> u64 {
        (bytes / self.bytes.len() as u64).max(1)
    }
}

/// A batch of one record.
pub(super) fn single_record(key: Option<&[u8]>, value: &[u8]) -> Result<Bytes> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(&NewRecord {
        timestamp: now_ms()?,
        key,
        value: Some(value),
        ..NewRecord::default()
    });
    builder.build().context("encode a batch")
}

/// One value of this size, without structure.
pub fn plain_values(value_bytes: usize) -> Values {
    // Bytes that repeat late enough not to be an easy case for anybody.
    let bytes = (0..value_bytes).map(|index| ((index * 31 + index / 7) % 251) as u8);
    vec![bytes.collect()]
}

/// JSON objects of about 1 KiB whose field `keep` is 0 and 1 in turns, among fields as a flight has them.
pub fn json_values() -> Values {
    let value = |keep: usize| {
        let mut text =
            format!(r#"{{"id":"{keep:08}","carrier":"UA","origin":"EWR","dest":"IAH","dep_delay":2.5,"arr_delay":-11,"keep":{keep}"#);
        for field in 0..20 {
            text.push_str(&format!(
                r#","field_{field:02}":"{}","count_{field:02}":{}"#,
                "abcdefgh",
                field * 7919
            ));
        }
        text.push_str(&format!(
            r#","tags":["a","b"],"nested":{{"x":1,"y":[1,2,3]}},"note":"{}"}}"#,
            "n".repeat(40)
        ));
        text.into_bytes()
    };
    vec![value(0), value(1)]
}

fn now_ms() -> Result<i64> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    i64::try_from(since_epoch.as_millis()).context("the clock is beyond all bounds")
}

#[cfg(test)]
mod tests {
    use millstream_protocol::record::{BatchHeader, verify_crc};

    use super::*;

    #[test]
    fn batches_hold_whole_rounds_and_are_valid() {
        for values in [plain_values(1024), plain_values(100), json_values()] {
            let batch = Batch::full(&values).unwrap();
            verify_crc(&batch.bytes).unwrap();
            assert_eq!(BatchHeader::parse(&batch.bytes).unwrap().record_count as u64, batch.records);
            assert_eq!(batch.records as usize % values.len(), 0);
            assert!(
                (BATCH_BYTES * 8 / 10..=BATCH_BYTES).contains(&batch.bytes.len()),
                "{}",
                batch.bytes.len()
            );
        }
    }

    #[test]
    fn json_values_are_objects_of_about_a_kibibyte() {
        for (keep, value) in json_values().iter().enumerate() {
            let parsed: serde_json::Value = serde_json::from_slice(value).unwrap();
            assert_eq!(parsed["keep"], keep);
            assert!((900..=1100).contains(&value.len()), "{}", value.len());
        }
    }
}
