//! How a transaction ends: by its producer, by its timeout, by a new instance of its producer; and its completion.

use millstream_protocol::ErrorCode;

use super::{
    Checked, Decision, ProducerIdAndEpoch, Transaction, TransactionCoordinator, TransactionRecord, TransactionState, TransactionVersion,
    init::EPOCH_MAX,
};

/// How a transaction shall end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its records become visible.
    Commit,
    /// They never do.
    Abort,
}

/// EndTxn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndTransaction {
    /// The transactional id.
    pub transactional_id: String,
    /// Who asks.
    pub producer: ProducerIdAndEpoch,
    /// How it shall end.
    pub outcome: Outcome,
    /// The client's version of the protocol.
    pub version: TransactionVersion,
    /// A producer id that was never used, from the shell.
    pub fresh_producer_id: i64,
}

/// What EndTxn asks for, seen from a state of the transaction.
enum Step {
    /// The outcome is decided now.
    End,
    /// It was decided before: a retry.
    Done,
    Refuse(ErrorCode),
}

impl TransactionCoordinator {
    /// EndTxn: decides the outcome. Answers with the producer's epoch for the next transaction, which is a new one under version 2.
    pub fn end(&mut self, now_ms: i64, request: &EndTransaction) -> Decision<Checked<ProducerIdAndEpoch>> {
        let id = &request.transactional_id;
        let Some(transaction) = self.transactions.get(id) else {
            return Decision::answer(Err(ErrorCode::InvalidProducerIdMapping));
        };
        let is_retry = match check_producer(transaction, request) {
            Ok(is_retry) => is_retry,
            Err(error) => return Decision::answer(Err(error)),
        };
        match step(transaction.state, request, is_retry) {
            Step::Refuse(error) => Decision::answer(Err(error)),
            Step::Done => Decision::answer(Ok(transaction.producer)),
            Step::End => {
                let mut changed = transaction.clone();
                changed.state = match request.outcome {
                    Outcome::Commit => TransactionState::PrepareCommit,
                    Outcome::Abort => TransactionState::PrepareAbort,
                };
                if transaction.state != TransactionState::Ongoing {
                    changed.partitions.clear();
                    changed.start_ms = now_ms;
                }
                changed.last_update_ms = now_ms;
                changed.version = request.version;
                let mut next = changed.producer;
                if request.version == TransactionVersion::Two {
                    if request.fresh_producer_id < 0 && changed.producer.epoch >= EPOCH_MAX {
                        return Decision::answer(Err(ErrorCode::ConcurrentTransactions));
                    }
                    changed.last_epoch = changed.producer.epoch;
                    // `check_producer` lets nobody in beyond the last epoch of clients.
                    changed.producer.epoch = changed.producer.epoch.saturating_add(1);
                    next = changed.producer;
                    if changed.producer.epoch > EPOCH_MAX {
                        // The markers still name the old id; the next transaction has a new one.
                        changed.next_producer_id = request.fresh_producer_id;
                        next = ProducerIdAndEpoch {
                            id: request.fresh_producer_id,
                            epoch: 0,
                        };
                    }
                }
                Decision {
                    ended: vec![changed.ended(id)],
                    records: vec![TransactionRecord {
                        transactional_id: id.clone(),
                        value: Some(changed),
                    }],
                    response: Ok(next),
                }
            }
        }
    }

    /// Aborts an open transaction under a new epoch, which fences whoever ran it.
    pub(super) fn abort_fenced(&self, now_ms: i64, transactional_id: &str, transaction: &Transaction, decision: &mut Decision) {
        assert!(
            transaction.state == TransactionState::Ongoing,
            "transaction of {transactional_id} is fenced in state {}",
            transaction.state.name()
        );
        let mut aborted = transaction.clone();
        aborted.state = TransactionState::PrepareAbort;
        // One that asks for a new epoch, or under version 2 gives the transaction up, may go on with this one, as nobody else has it.
        aborted.last_epoch = aborted.producer.epoch;
        aborted.producer.epoch = aborted.producer.epoch.saturating_add(1);
        aborted.last_update_ms = now_ms;
        decision.ended.push(aborted.ended(transactional_id));
        decision.records.push(TransactionRecord {
            transactional_id: transactional_id.to_owned(),
            value: Some(aborted),
        });
    }

    /// All markers of the transaction that was ended at `prepared_ms` are durable.
    pub fn markers_written(&mut self, now_ms: i64, transactional_id: &str, producer: ProducerIdAndEpoch, prepared_ms: i64) -> Decision {
        let ending = self.transactions.get(transactional_id);
        let Some(transaction) = ending.filter(|transaction| {
            transaction.state.is_ending() && transaction.producer == producer && transaction.last_update_ms == prepared_ms
        }) else {
            // Told twice, as after a reload, or of an earlier transaction.
            return Decision::default();
        };
        let mut complete = transaction.clone();
        complete.state = if transaction.state == TransactionState::PrepareCommit {
            TransactionState::CompleteCommit
        } else {
            TransactionState::CompleteAbort
        };
        complete.partitions.clear();
        complete.last_update_ms = now_ms;
        if complete.next_producer_id >= 0 {
            complete.previous_producer_id = complete.producer.id;
            complete.producer = ProducerIdAndEpoch {
                id: complete.next_producer_id,
                epoch: 0,
            };
            complete.next_producer_id = -1;
        }
        Decision {
            records: vec![TransactionRecord {
                transactional_id: transactional_id.to_owned(),
                value: Some(complete),
            }],
            ..Decision::default()
        }
    }
}

/// Whether the request is a retry of the one that ended the transaction; an error if it is not the current producer's.
fn check_producer(transaction: &Transaction, request: &EndTransaction) -> Checked<bool> {
    let (current, named) = (transaction.producer, request.producer);
    let decided = !matches!(transaction.state, TransactionState::Ongoing | TransactionState::Empty);
    // Only where the transaction ended under version 2 is the epoch after its producer's own still its producer's: else it is another's.
    if request.version == TransactionVersion::Two && transaction.version == TransactionVersion::Two && decided && current.epoch <= EPOCH_MAX
    {
        let rotated = named.id == transaction.previous_producer_id && named.epoch >= EPOCH_MAX && current.epoch == 0;
        let bumped = named.id == current.id && named.epoch.checked_add(1) == Some(current.epoch);
        if rotated || bumped {
            return Ok(true);
        }
    }
    if named.epoch > EPOCH_MAX {
        // This epoch only fences.
        Err(ErrorCode::ProducerFenced)
    } else if named.id != current.id {
        Err(ErrorCode::InvalidProducerIdMapping)
    } else if named.epoch != current.epoch {
        Err(ErrorCode::ProducerFenced)
    } else {
        Ok(false)
    }
}

fn step(state: TransactionState, request: &EndTransaction, is_retry: bool) -> Step {
    let is_new = request.version == TransactionVersion::Two && !is_retry;
    match (state, request.outcome) {
        (TransactionState::Ongoing, _) => Step::End,
        // The next transaction of a producer of version 2 was begun and is given up before the last one is complete.
        (TransactionState::PrepareCommit | TransactionState::PrepareAbort, _) if is_new => Step::Refuse(ErrorCode::ConcurrentTransactions),
        (TransactionState::PrepareCommit, Outcome::Commit) | (TransactionState::PrepareAbort, Outcome::Abort) => {
            Step::Refuse(ErrorCode::ConcurrentTransactions)
        }
        // Under version 2 a producer may abort a transaction of which it does not know whether the broker heard of it.
        (TransactionState::Empty | TransactionState::CompleteCommit | TransactionState::CompleteAbort, Outcome::Abort) if is_new => {
            Step::End
        }
        (TransactionState::CompleteCommit, Outcome::Commit) | (TransactionState::CompleteAbort, Outcome::Abort) if !is_new => Step::Done,
        (
            TransactionState::Empty
            | TransactionState::PrepareCommit
            | TransactionState::PrepareAbort
            | TransactionState::CompleteCommit
            | TransactionState::CompleteAbort,
            _,
        ) => Step::Refuse(ErrorCode::InvalidTxnState),
    }
}
