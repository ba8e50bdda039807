//! Producer ids, given out in blocks so that a broker need not ask for each.

use std::ops::Range;

use millstream_protocol::error_code::ErrorCode;

use super::{Context, Decision, Outcome, Refusal};
use crate::metadata::records::{MetadataRecord, ProducerIdsAllocated};

/// Ids in a block, as in Kafka.
pub const PRODUCER_ID_BLOCK_LEN: i64 = 1_000;

/// Gives out the next block.
pub fn allocate_producer_ids(context: &Context<'_>) -> Decision<Outcome<Range<i64>>> {
    let first = context.image.next_producer_id;
    match first.checked_add(PRODUCER_ID_BLOCK_LEN) {
        Some(next_producer_id) => {
            let record = MetadataRecord::ProducerIdsAllocated(ProducerIdsAllocated { next_producer_id });
            Decision {
                records: vec![record],
                reply: Ok(first..next_producer_id),
            }
        }
        None => Decision {
            records: Vec::new(),
            reply: Err(Refusal::new(ErrorCode::UnknownServerError, "No producer ids are left.")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Cluster;
    use super::*;

    #[test]
    fn blocks_follow_each_other_without_overlap() {
        let mut cluster = Cluster::with_topics(&[]);
        assert_eq!(cluster.run(allocate_producer_ids), Ok(0..1000));
        assert_eq!(cluster.run(allocate_producer_ids), Ok(1000..2000));
    }

    #[test]
    fn ids_run_out_with_an_error() {
        let mut cluster = Cluster::with_topics(&[]);
        cluster.image.next_producer_id = i64::MAX - PRODUCER_ID_BLOCK_LEN + 1;
        assert!(cluster.run(allocate_producer_ids).is_err());
    }
}
