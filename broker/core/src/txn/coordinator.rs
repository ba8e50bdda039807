//! [`TransactionCoordinator`]: one value per partition of `__transaction_state`; what adds to a transaction, what ends with time, and what is
//! told about it.

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::ErrorCode;

use super::{
    Checked, Decision, ProducerIdAndEpoch, TopicPartitions, Transaction, TransactionRecord, TransactionState, TransactionVersion,
    init::EPOCH_MAX,
};

/// Settings, named as Kafka's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionConfig {
    /// `transaction.max.timeout.ms`
    pub timeout_ms_max: i32,
    /// `transactional.id.expiration.ms`
    pub id_expiration_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`
    pub id_expiration_check_interval_ms: i64,
}

impl Default for TransactionConfig {
    fn default() -> Self {
        Self {
            timeout_ms_max: 900_000,
            id_expiration_ms: 604_800_000,
            id_expiration_check_interval_ms: 3_600_000,
        }
    }
}

/// Partitions that a transaction is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddPartitions {
    /// The transactional id.
    pub transactional_id: String,
    /// Who asks.
    pub producer: ProducerIdAndEpoch,
    /// What to add.
    pub partitions: TopicPartitions,
    /// How the client does it: by a request of its own (1) or by writing (2).
    pub version: TransactionVersion,
}

/// Which transactions ListTransactions tells of. Empty or negative: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionFilter {
    /// In one of these states.
    pub states: Vec<TransactionState>,
    /// Of one of these producers.
    pub producer_ids: BTreeSet<i64>,
    /// Open for longer than this many milliseconds.
    pub duration_ms: i64,
}

/// Coordinates the transactions of one partition. The module doc of [`super`] says how to drive it.
#[derive(Debug)]
pub struct TransactionCoordinator {
    pub(super) config: TransactionConfig,
    pub(super) transactions: BTreeMap<String, Transaction>,
    /// Deadlines of the open transactions, kept by `apply`.
    deadlines: BTreeSet<(i64, String)>,
    next_expiration_ms: Option<i64>,
}

impl TransactionCoordinator {
    /// A coordinator without state, ready for replay.
    pub fn new(config: TransactionConfig) -> Self {
        Self {
            config,
            transactions: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            next_expiration_ms: None,
        }
    }

    /// A record that the log took: live after the append, and on replay.
    pub fn apply(&mut self, record: &TransactionRecord) {
        let id = &record.transactional_id;
        if let Some(deadline_ms) = self.transactions.get(id).and_then(Transaction::deadline_ms) {
            self.deadlines.remove(&(deadline_ms, id.clone()));
        }
        match &record.value {
            Some(transaction) => {
                if let Some(deadline_ms) = transaction.deadline_ms() {
                    self.deadlines.insert((deadline_ms, id.clone()));
                }
                self.transactions.insert(id.clone(), transaction.clone());
            }
            None => {
                self.transactions.remove(id);
            }
        }
    }

    /// Replay is over: transactions that were ending get their markers (again).
    pub fn loaded(&mut self, now_ms: i64) -> Decision {
        self.next_expiration_ms = Some(now_ms.saturating_add(self.config.id_expiration_check_interval_ms));
        let ending = self.transactions.iter().filter(|(_, transaction)| transaction.state.is_ending());
        Decision {
            ended: ending.map(|(id, transaction)| transaction.ended(id)).collect(),
            ..Decision::default()
        }
    }

    /// When `tick` is due.
    pub fn next_deadline(&self) -> Option<i64> {
        let first = self.deadlines.first().map(|(deadline_ms, _)| *deadline_ms);
        first.into_iter().chain(self.next_expiration_ms).min()
    }

    /// Aborts transactions that timed out, and forgets ids that were not used for long.
    pub fn tick(&mut self, now_ms: i64) -> Decision {
        let mut decision = Decision::default();
        let due = self.deadlines.iter().take_while(|(deadline_ms, _)| *deadline_ms <= now_ms);
        for (_, id) in due {
            if let Some(transaction) = self.transactions.get(id) {
                self.abort_fenced(now_ms, id, transaction, &mut decision);
            }
        }
        if self.next_expiration_ms.is_some_and(|due_ms| due_ms <= now_ms) {
            self.next_expiration_ms = Some(now_ms.saturating_add(self.config.id_expiration_check_interval_ms.max(1)));
            let oldest_ms = now_ms.saturating_sub(self.config.id_expiration_ms);
            let is_expired = |transaction: &Transaction| {
                let idle = !transaction.state.is_ending() && transaction.state != TransactionState::Ongoing;
                idle && transaction.last_update_ms <= oldest_ms
            };
            let expired = self.transactions.iter().filter(|(_, transaction)| is_expired(transaction));
            decision.records.extend(expired.map(|(id, _)| TransactionRecord {
                transactional_id: id.clone(),
                value: None,
            }));
        }
        decision
    }

    /// The transaction of a producer that asks for something: it must be the current one.
    pub(super) fn owned(&self, transactional_id: &str, producer: ProducerIdAndEpoch) -> Checked<&Transaction> {
        let transaction = self.transactions.get(transactional_id).ok_or(ErrorCode::InvalidProducerIdMapping)?;
        if transaction.producer.id != producer.id {
            Err(ErrorCode::InvalidProducerIdMapping)
        } else if transaction.producer.epoch != producer.epoch || producer.epoch > EPOCH_MAX {
            Err(ErrorCode::ProducerFenced)
        } else {
            Ok(transaction)
        }
    }

    /// AddPartitionsToTxn, AddOffsetsToTxn, and what a write with transaction version 2 does implicitly.
    pub fn add_partitions(&mut self, now_ms: i64, request: &AddPartitions) -> Decision<Checked> {
        let transaction = match self.owned(&request.transactional_id, request.producer) {
            Ok(transaction) if transaction.state.is_ending() => return Decision::answer(Err(ErrorCode::ConcurrentTransactions)),
            Ok(transaction) => transaction,
            Err(error) => return Decision::answer(Err(error)),
        };
        let is_open = transaction.state == TransactionState::Ongoing;
        if is_open && contains(&transaction.partitions, &request.partitions) {
            return Decision::answer(Ok(()));
        }
        let mut changed = transaction.clone();
        if !is_open {
            changed.partitions.clear();
            changed.start_ms = now_ms;
        }
        changed.state = TransactionState::Ongoing;
        changed.last_update_ms = now_ms;
        changed.version = request.version;
        for (topic, partitions) in &request.partitions {
            changed.partitions.entry(topic.clone()).or_default().extend(partitions);
        }
        Decision {
            records: vec![TransactionRecord {
                transactional_id: request.transactional_id.clone(),
                value: Some(changed),
            }],
            ended: Vec::new(),
            response: Ok(()),
        }
    }

    /// Whether a producer's open transaction has a partition, before the first write there (KIP-890, part 1).
    pub fn verify(&self, transactional_id: &str, producer: ProducerIdAndEpoch, topic: &str, partition: i32) -> Checked {
        let transaction = self.owned(transactional_id, producer)?;
        if transaction.state.is_ending() {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        let has_it = transaction
            .partitions
            .get(topic)
            .is_some_and(|partitions| partitions.contains(&partition));
        if transaction.state == TransactionState::Ongoing && has_it {
            Ok(())
        } else {
            Err(ErrorCode::TransactionAbortable)
        }
    }

    /// DescribeTransactions for one id.
    pub fn describe(&self, transactional_id: &str) -> Option<&Transaction> {
        self.transactions.get(transactional_id)
    }

    /// ListTransactions. A duration chooses those that are not complete; Kafka lists what ended long ago as well.
    pub fn list(&self, now_ms: i64, filter: &TransactionFilter) -> Vec<(String, i64, TransactionState)> {
        let matches = |transaction: &Transaction| {
            let is_running = transaction.state == TransactionState::Ongoing || transaction.state.is_ending();
            let runs_long = is_running && now_ms.saturating_sub(transaction.start_ms) > filter.duration_ms;
            (filter.states.is_empty() || filter.states.contains(&transaction.state))
                && (filter.producer_ids.is_empty() || filter.producer_ids.contains(&transaction.producer.id))
                && (filter.duration_ms < 0 || runs_long)
        };
        let listed = self.transactions.iter().filter(|(_, transaction)| matches(transaction));
        listed
            .map(|(id, transaction)| (id.clone(), transaction.producer.id, transaction.state))
            .collect()
    }

    /// What the log defines; two coordinators that applied the same records are equal.
    pub fn hard_state(&self) -> &BTreeMap<String, Transaction> {
        &self.transactions
    }
}

fn contains(all: &TopicPartitions, some: &TopicPartitions) -> bool {
    some.iter()
        .all(|(topic, partitions)| all.get(topic).is_some_and(|known| known.is_superset(partitions)))
}
