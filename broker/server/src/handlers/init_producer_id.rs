//! InitProducerId: a producer id for an idempotent producer.
//!
//! Without a transactional id every request gets a new id with epoch 0, also one that names its old id (KIP-360): nothing is kept of
//! producers but what is in the logs. Transactional ids are refused until there are transactions.

use std::sync::Arc;

use millstream_protocol::{
    ErrorCode,
    messages::{InitProducerIdRequest, InitProducerIdResponse},
};

use super::decisions::not_stored;
use crate::{broker::Broker, context::RequestContext};

/// Handles a request.
pub async fn handle(broker: Arc<Broker>, context: RequestContext, request: InitProducerIdRequest) -> InitProducerIdResponse {
    if let Err(error) = check(&request) {
        tracing::warn!(client = %context.client_id, %error, "a transactional producer was refused: transactions are not served yet");
        return refused(error);
    }
    match broker.next_producer_id().await {
        Ok(producer_id) => InitProducerIdResponse {
            producer_id,
            producer_epoch: 0,
            ..Default::default()
        },
        Err(error) => refused(not_stored(&error)),
    }
}

fn check(request: &InitProducerIdRequest) -> Result<(), ErrorCode> {
    match request.transactional_id.as_deref() {
        None => Ok(()),
        Some("") => Err(ErrorCode::InvalidRequest),
        // Of all fatal codes this is the one whose text in every client says what is wrong, and none of them tries again.
        Some(_) => Err(ErrorCode::UnsupportedVersion),
    }
}

fn refused(error: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code: error.code(),
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use millstream_protocol::KString;

    use super::*;

    fn request(transactional_id: Option<&str>) -> InitProducerIdRequest {
        InitProducerIdRequest {
            transactional_id: transactional_id.map(KString::from),
            ..Default::default()
        }
    }

    #[test]
    fn only_producers_without_transactions_are_served() {
        assert_eq!(check(&request(None)), Ok(()));
        assert_eq!(
            check(&InitProducerIdRequest {
                producer_id: 7,
                producer_epoch: 3,
                ..request(None)
            }),
            Ok(())
        );
        assert_eq!(check(&request(Some("t"))), Err(ErrorCode::UnsupportedVersion));
        assert_eq!(check(&request(Some(""))), Err(ErrorCode::InvalidRequest));
    }

    #[test]
    fn a_refusal_carries_no_producer_id() {
        let response = refused(ErrorCode::UnsupportedVersion);
        assert_eq!((response.error_code, response.producer_id, response.producer_epoch), (35, -1, -1));
    }
}
