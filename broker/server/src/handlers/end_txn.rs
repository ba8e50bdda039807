//! EndTxn: commit or abort. From version 5 on the answer carries the producer's epoch for its next transaction (KIP-890).

use std::sync::Arc;

use millstream_core::txn::{Checked, Outcome, ProducerIdAndEpoch, TransactionVersion};
use millstream_protocol::{
    ErrorCode,
    messages::{EndTxnRequest, EndTxnResponse},
};

use super::init_producer_id::fenced_for;
use crate::{broker::Broker, context::RequestContext};

/// First version whose clients know PRODUCER_FENCED.
const KNOWS_FENCED: i16 = 2;
/// First version of transaction version 2.
const VERSION_TWO: i16 = 5;

pub(crate) async fn handle(broker: Arc<Broker>, context: RequestContext, request: EndTxnRequest) -> EndTxnResponse {
    let version = if context.version >= VERSION_TWO {
        TransactionVersion::Two
    } else {
        TransactionVersion::One
    };
    match end(&broker, request, version).await {
        Ok(producer) => EndTxnResponse {
            throttle_time_ms: 0,
            error_code: 0,
            producer_id: producer.id,
            producer_epoch: producer.epoch,
        },
        Err(error) => EndTxnResponse {
            throttle_time_ms: 0,
            error_code: fenced_for(error, context.version >= KNOWS_FENCED).code(),
            producer_id: -1,
            producer_epoch: -1,
        },
    }
}

async fn end(broker: &Arc<Broker>, request: EndTxnRequest, version: TransactionVersion) -> Checked<ProducerIdAndEpoch> {
    if request.transactional_id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    let producer = ProducerIdAndEpoch {
        id: request.producer_id,
        epoch: request.producer_epoch,
    };
    let outcome = if request.committed { Outcome::Commit } else { Outcome::Abort };
    let transactions = &broker.transactions;
    transactions
        .end(broker, request.transactional_id.into(), producer, outcome, version)
        .await
}
