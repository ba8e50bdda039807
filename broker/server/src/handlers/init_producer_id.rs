//! InitProducerId: a producer id for an idempotent producer, or the next epoch of a transactional one.
//!
//! Without a transactional id every request gets a new id with epoch 0, also one that names its old id (KIP-360): nothing is kept of
//! producers but what is in the logs.

use std::sync::Arc;

use millstream_core::txn::{Checked, ProducerIdAndEpoch};
use millstream_protocol::{
    ErrorCode,
    messages::{InitProducerIdRequest, InitProducerIdResponse},
};

use super::decisions::not_stored;
use crate::{broker::Broker, context::RequestContext};

/// First version whose clients know PRODUCER_FENCED.
const KNOWS_FENCED: i16 = 4;

/// Handles a request.
pub async fn handle(broker: Arc<Broker>, context: RequestContext, request: InitProducerIdRequest) -> InitProducerIdResponse {
    match init(&broker, request).await {
        Ok(producer) => InitProducerIdResponse {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            ..Default::default()
        },
        Err(error) => InitProducerIdResponse {
            error_code: fenced_for(error, context.version >= KNOWS_FENCED).code(),
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        },
    }
}

/// Older clients know a fenced producer as one with a wrong epoch only.
pub(super) fn fenced_for(error: ErrorCode, knows_fenced: bool) -> ErrorCode {
    if error == ErrorCode::ProducerFenced && !knows_fenced {
        ErrorCode::InvalidProducerEpoch
    } else {
        error
    }
}

async fn init(broker: &Arc<Broker>, request: InitProducerIdRequest) -> Checked<ProducerIdAndEpoch> {
    let current = ProducerIdAndEpoch {
        id: request.producer_id,
        epoch: request.producer_epoch,
    };
    // Other negative numbers are no producer's either, but only -1 says that there is none.
    if (current.id == ProducerIdAndEpoch::NONE.id) != (current.epoch == ProducerIdAndEpoch::NONE.epoch) {
        return Err(ErrorCode::InvalidRequest);
    }
    match request.transactional_id {
        None => {
            let id = broker.next_producer_id().await.map_err(|error| not_stored(&error))?;
            Ok(ProducerIdAndEpoch { id, epoch: 0 })
        }
        Some(id) if id.is_empty() => Err(ErrorCode::InvalidRequest),
        Some(id) => {
            let timeout_ms = request.transaction_timeout_ms;
            broker.transactions.init_producer_id(broker, id.into(), timeout_ms, current).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clients_that_know_a_fenced_producer_are_told_so() {
        assert_eq!(fenced_for(ErrorCode::ProducerFenced, true), ErrorCode::ProducerFenced);
        assert_eq!(fenced_for(ErrorCode::ProducerFenced, false), ErrorCode::InvalidProducerEpoch);
        assert_eq!(fenced_for(ErrorCode::InvalidTxnState, false), ErrorCode::InvalidTxnState);
    }
}
