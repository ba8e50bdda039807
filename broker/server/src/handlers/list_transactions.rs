//! ListTransactions: transactional ids, by state, producer, duration, and (version 2) a pattern.

use std::sync::Arc;

use millstream_core::{
    group::compile_pattern,
    txn::{TransactionFilter, TransactionState},
};
use millstream_protocol::{
    ErrorCode, KString,
    messages::{ListTransactionsRequest, ListTransactionsResponse, list_transactions_response::TransactionState as ListedTransaction},
};

use crate::{broker::Broker, context::RequestContext};

/// States of Kafka's that no transaction is in here: a deleted one is gone, and an epoch is fenced in one step.
const EMPTY_STATES: [&str; 2] = ["Dead", "PrepareEpochFence"];

pub(crate) async fn handle(broker: Arc<Broker>, _context: RequestContext, request: ListTransactionsRequest) -> ListTransactionsResponse {
    let refused = |error: ErrorCode| ListTransactionsResponse {
        error_code: error.code(),
        ..ListTransactionsResponse::default()
    };
    let pattern = request.transactional_id_pattern.as_deref().filter(|pattern| !pattern.is_empty());
    let pattern = match pattern.map(compile_pattern) {
        None => None,
        Some(Some(pattern)) => Some(pattern),
        Some(None) => return refused(ErrorCode::InvalidRegularExpression),
    };
    let state_of = |name: &KString| TransactionState::ALL.into_iter().find(|state| state.name() == name.as_str());
    let is_known = |name: &KString| state_of(name).is_some() || EMPTY_STATES.contains(&name.as_str());
    let (known, unknown): (Vec<_>, Vec<_>) = request.state_filters.into_iter().partition(is_known);
    let filter = TransactionFilter {
        states: known.iter().filter_map(state_of).collect(),
        producer_ids: request.producer_id_filters.into_iter().collect(),
        duration_ms: request.duration_filter,
    };
    // Only states that nothing is ever in were asked for.
    let nothing_matches = filter.states.is_empty() && !(known.is_empty() && unknown.is_empty());
    let listed = match broker.transactions.list(&broker, filter).await {
        _ if nothing_matches => Vec::new(),
        Ok(listed) => listed,
        Err(error) => return refused(error),
    };
    let matching = listed
        .into_iter()
        .filter(|(id, ..)| pattern.as_ref().is_none_or(|pattern| pattern.is_match(id)));
    let transactions = matching.map(|(id, producer_id, state)| ListedTransaction {
        transactional_id: id.into(),
        producer_id,
        transaction_state: KString::from_static(state.name()),
    });
    ListTransactionsResponse {
        transaction_states: transactions.collect(),
        unknown_state_filters: unknown,
        ..ListTransactionsResponse::default()
    }
}
