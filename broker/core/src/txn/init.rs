//! InitProducerId of a transactional producer: a new instance takes over the id, or the same one asks for a new epoch (KIP-360).

use millstream_protocol::ErrorCode;

use super::{
    Checked, Decision, ProducerIdAndEpoch, TopicPartitions, Transaction, TransactionCoordinator, TransactionRecord, TransactionState,
    TransactionVersion,
};

/// The last epoch that clients get; the one above fences the last of them.
pub(super) const EPOCH_MAX: i16 = i16::MAX - 1;

/// InitProducerId with a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitProducerId {
    /// The transactional id.
    pub transactional_id: String,
    /// Time after which its transactions are aborted.
    pub timeout_ms: i32,
    /// The producer as it knows itself, or [`ProducerIdAndEpoch::NONE`] for a new instance.
    pub current: ProducerIdAndEpoch,
    /// A producer id that was never used, from the shell.
    pub fresh_producer_id: i64,
}

impl TransactionCoordinator {
    /// Whether the next change of this id may need a producer id that was never used. Soon after the answer the id is needed; should it have
    /// changed in between, the request is refused and comes again.
    pub fn needs_producer_id(&self, transactional_id: &str) -> bool {
        let transaction = self.transactions.get(transactional_id);
        transaction.is_none_or(|transaction| transaction.producer.epoch >= EPOCH_MAX - 2)
    }

    /// InitProducerId. An open transaction of the previous instance is aborted first; until that is done the answer is
    /// CONCURRENT_TRANSACTIONS, and the client asks again.
    pub fn init_producer_id(&mut self, now_ms: i64, request: &InitProducerId) -> Decision<Checked<ProducerIdAndEpoch>> {
        if request.timeout_ms <= 0 || request.timeout_ms > self.config.timeout_ms_max {
            return Decision::answer(Err(ErrorCode::InvalidTransactionTimeout));
        }
        let id = &request.transactional_id;
        if request.fresh_producer_id < 0 && self.needs_producer_id(id) {
            return Decision::answer(Err(ErrorCode::ConcurrentTransactions));
        }
        let Some(transaction) = self.transactions.get(id) else {
            let producer = ProducerIdAndEpoch {
                id: request.fresh_producer_id,
                epoch: 0,
            };
            return begin(now_ms, request, producer, -1, -1);
        };
        let named = request.current;
        let is_previous = named.id == transaction.previous_producer_id && named.epoch >= EPOCH_MAX;
        if named != ProducerIdAndEpoch::NONE && named.id != transaction.producer.id && !is_previous {
            return Decision::answer(Err(ErrorCode::ProducerFenced));
        }
        match transaction.state {
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => Decision::answer(Err(ErrorCode::ConcurrentTransactions)),
            TransactionState::Ongoing => {
                let mut decision = Decision::default();
                self.abort_fenced(now_ms, id, transaction, &mut decision);
                Decision {
                    records: decision.records,
                    ended: decision.ended,
                    response: Err(ErrorCode::ConcurrentTransactions),
                }
            }
            TransactionState::Empty | TransactionState::CompleteCommit | TransactionState::CompleteAbort => {
                match next_epoch(transaction, named, request.fresh_producer_id) {
                    Err(error) => Decision::answer(Err(error)),
                    Ok((producer, _)) if producer == transaction.producer && transaction.state == TransactionState::Empty => {
                        Decision::answer(Ok(producer))
                    }
                    Ok((producer, last_epoch)) => {
                        let previous = if producer.id == transaction.producer.id {
                            transaction.previous_producer_id
                        } else {
                            transaction.producer.id
                        };
                        begin(now_ms, request, producer, last_epoch, previous)
                    }
                }
            }
        }
    }
}

/// The producer that may use the id from now on, and the epoch that a retry would name.
fn next_epoch(transaction: &Transaction, named: ProducerIdAndEpoch, fresh_producer_id: i64) -> Checked<(ProducerIdAndEpoch, i16)> {
    let current = transaction.producer;
    if named != ProducerIdAndEpoch::NONE {
        let is_retry = named.epoch == transaction.last_epoch && transaction.last_epoch >= 0 || named.id != current.id;
        if is_retry && current.epoch <= EPOCH_MAX {
            // The answer to a change was lost: it is the same again.
            return Ok((current, transaction.last_epoch));
        }
        if !is_retry && named.epoch != current.epoch {
            return Err(ErrorCode::ProducerFenced);
        }
    }
    if current.epoch >= EPOCH_MAX {
        let rotated = ProducerIdAndEpoch {
            id: fresh_producer_id,
            epoch: 0,
        };
        return Ok((rotated, if named != ProducerIdAndEpoch::NONE { named.epoch } else { -1 }));
    }
    let bumped = ProducerIdAndEpoch {
        id: current.id,
        epoch: current.epoch + 1,
    };
    Ok((bumped, if named != ProducerIdAndEpoch::NONE { current.epoch } else { -1 }))
}

fn begin(
    now_ms: i64,
    request: &InitProducerId,
    producer: ProducerIdAndEpoch,
    last_epoch: i16,
    previous_producer_id: i64,
) -> Decision<Checked<ProducerIdAndEpoch>> {
    let transaction = Transaction {
        producer,
        last_epoch,
        previous_producer_id,
        next_producer_id: -1,
        timeout_ms: request.timeout_ms,
        state: TransactionState::Empty,
        partitions: TopicPartitions::new(),
        last_update_ms: now_ms,
        start_ms: -1,
        version: TransactionVersion::One,
    };
    Decision {
        records: vec![TransactionRecord {
            transactional_id: request.transactional_id.clone(),
            value: Some(transaction),
        }],
        ended: Vec::new(),
        response: Ok(producer),
    }
}
