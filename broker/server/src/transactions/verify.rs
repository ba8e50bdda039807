//! May a producer's batch begin a transaction on a partition? Its coordinator knows (KIP-890).
//!
//! A batch that continues a transaction needs no question. For the first one, clients of version 1 must have added the partition; the
//! write of a client of version 2 adds it. The log's guard, taken before the question, makes sure that no marker came between the answer and
//! the append: no transaction is begun that nobody would end.

use std::{sync::Arc, time::Duration};

use millstream_core::txn::{AddPartitions, ProducerIdAndEpoch, TransactionVersion};
use millstream_log::{FirstBatch, TransactionState, VerificationGuard};
use millstream_protocol::ErrorCode;
use tokio::time::sleep;

use super::one_partition;
use crate::{broker::Broker, context::RequestContext, partition::Partition};

/// What the first batch of a transaction needs to be appended; nothing if the transaction is already open on the partition. `base_sequence`
/// is the batch's, -1 if it has none.
pub(crate) async fn verified_write(
    broker: &Arc<Broker>,
    partition: &Partition,
    transactional_id: &str,
    producer: ProducerIdAndEpoch,
    base_sequence: i32,
    version: TransactionVersion,
) -> Result<Option<VerificationGuard>, ErrorCode> {
    let first = FirstBatch {
        producer_id: producer.id,
        epoch: producer.epoch,
        base_sequence,
        is_version_two: version == TransactionVersion::Two,
    };
    let TransactionState::Unverified(guard) = partition.log().transaction_state(first) else {
        return Ok(None);
    };
    let verified = ask_coordinator(broker, partition, transactional_id, producer, version).await;
    if verified.is_err_and(is_final) {
        partition.log().forget_verification(producer.id, producer.epoch, guard);
    }
    verified.map(|()| Some(guard))
}

/// Whether the transaction has the partition, or, in version 2, gets it.
async fn ask_coordinator(
    broker: &Arc<Broker>,
    partition: &Partition,
    transactional_id: &str,
    producer: ProducerIdAndEpoch,
    version: TransactionVersion,
) -> Result<(), ErrorCode> {
    let number = partition.id.partition;
    match version {
        TransactionVersion::One => {
            let transactions = &broker.transactions;
            transactions
                .verify(broker, transactional_id, producer, &partition.topic, number)
                .await
        }
        TransactionVersion::Two => {
            let request = AddPartitions {
                transactional_id: transactional_id.to_owned(),
                producer,
                partitions: one_partition(&partition.topic, number),
                version,
            };
            broker.transactions.add_partitions(broker, request).await
        }
    }
}

/// The batch will not come again.
fn is_final(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::ProducerFenced
            | ErrorCode::InvalidProducerIdMapping
            | ErrorCode::InvalidRequest
            | ErrorCode::TransactionAbortable
            | ErrorCode::InvalidTxnState
    )
}

/// [`verified_write`] with the codes that producers expect: they know INVALID_PRODUCER_EPOCH where transaction requests have
/// PRODUCER_FENCED, and those of version 1 retry only what they know from before there was a verification.
///
/// While the markers of the transaction before are on their way a write of version 2 waits, as it gets its answer sooner then than if the client
/// came again: until `add.partitions.to.txn.retry.backoff.max.ms` after its request began.
pub(crate) async fn guard_for(
    broker: &Arc<Broker>,
    partition: &Partition,
    transactional_id: &str,
    producer: ProducerIdAndEpoch,
    base_sequence: i32,
    context: &RequestContext,
) -> Result<Option<VerificationGuard>, ErrorCode> {
    /// First version whose writes add partitions.
    const VERSION_TWO: i16 = 12;
    /// First version whose clients know TRANSACTION_ABORTABLE.
    const KNOWS_ABORTABLE: i16 = 11;
    let version = if context.version >= VERSION_TWO {
        TransactionVersion::Two
    } else {
        TransactionVersion::One
    };
    let pause = Duration::from_millis(broker.config.size("add.partitions.to.txn.retry.backoff.ms") as u64);
    let patience = Duration::from_millis(broker.config.size("add.partitions.to.txn.retry.backoff.max.ms") as u64);
    let verified = loop {
        // With a new guard each time: a marker that came meanwhile makes the last one void.
        let verified = verified_write(broker, partition, transactional_id, producer, base_sequence, version).await;
        let is_early = verified == Err(ErrorCode::ConcurrentTransactions) && version == TransactionVersion::Two;
        if !is_early || context.began.elapsed() + pause > patience {
            break verified;
        }
        sleep(pause).await;
    };
    verified.map_err(|error| match error {
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        ErrorCode::TransactionAbortable if context.version < KNOWS_ABORTABLE => ErrorCode::InvalidTxnState,
        ErrorCode::ConcurrentTransactions if version == TransactionVersion::One => ErrorCode::NotEnoughReplicas,
        ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable | ErrorCode::CoordinatorLoadInProgress => {
            ErrorCode::NotEnoughReplicas
        }
        other => other,
    })
}
