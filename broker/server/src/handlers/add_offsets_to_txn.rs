//! AddOffsetsToTxn: a producer of transaction version 1 is going to commit a group's offsets.

use std::sync::Arc;

use millstream_core::txn::{AddPartitions, Checked, ProducerIdAndEpoch, TransactionVersion};
use millstream_protocol::{
    ErrorCode,
    messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse},
};

use super::{add_partitions_to_txn::code, init_producer_id::fenced_for};
use crate::{broker::Broker, context::RequestContext, transactions::one_partition};

/// First version whose clients know PRODUCER_FENCED.
const KNOWS_FENCED: i16 = 2;

pub(crate) async fn handle(broker: Arc<Broker>, context: RequestContext, request: AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
    let outcome = code(add(&broker, request).await);
    AddOffsetsToTxnResponse {
        throttle_time_ms: 0,
        error_code: fenced_for(outcome, context.version >= KNOWS_FENCED).code(),
    }
}

async fn add(broker: &Arc<Broker>, request: AddOffsetsToTxnRequest) -> Checked {
    if request.transactional_id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    let partition = broker.groups.partition_of(broker, &request.group_id).await?;
    let request = AddPartitions {
        transactional_id: request.transactional_id.into(),
        producer: ProducerIdAndEpoch {
            id: request.producer_id,
            epoch: request.producer_epoch,
        },
        partitions: one_partition(&partition.topic, partition.id.partition),
        version: TransactionVersion::One,
    };
    broker.transactions.add_partitions(broker, request).await
}
