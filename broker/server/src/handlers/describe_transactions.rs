//! DescribeTransactions: the state of transactional ids.

use std::sync::Arc;

use millstream_core::txn::Transaction;
use millstream_protocol::{
    ErrorCode, KString,
    messages::{
        DescribeTransactionsRequest, DescribeTransactionsResponse,
        describe_transactions_response::{TopicData, TransactionState},
    },
};

use super::once;
use crate::{broker::Broker, context::RequestContext};

pub(crate) async fn handle(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let mut states = Vec::with_capacity(request.transactional_ids.len());
    for id in once(request.transactional_ids) {
        let error = match broker.transactions.describe(&broker, &id).await {
            _ if id.is_empty() => ErrorCode::InvalidRequest,
            Ok(Some(transaction)) => {
                states.push(to_wire(id, transaction));
                continue;
            }
            Ok(None) => ErrorCode::TransactionalIdNotFound,
            Err(error) => error,
        };
        states.push(TransactionState {
            error_code: error.code(),
            transactional_id: id,
            ..TransactionState::default()
        });
    }
    DescribeTransactionsResponse {
        throttle_time_ms: 0,
        transaction_states: states,
    }
}

fn to_wire(transactional_id: KString, transaction: Transaction) -> TransactionState {
    let topics = transaction.partitions.into_iter().map(|(topic, partitions)| TopicData {
        topic: topic.into(),
        partitions: partitions.into_iter().collect(),
    });
    TransactionState {
        error_code: 0,
        transactional_id,
        transaction_state: KString::from_static(transaction.state.name()),
        transaction_timeout_ms: transaction.timeout_ms,
        transaction_start_time_ms: transaction.start_ms,
        producer_id: transaction.producer.id,
        producer_epoch: transaction.producer.epoch,
        topics: topics.collect(),
    }
}
