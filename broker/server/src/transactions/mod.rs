//! Transactions: the shell around [`TransactionCoordinator`], one task per partition of `__transaction_state`.
//!
//! ```text
//! TransactionService   which partition coordinates a transactional id; what handlers ask
//! markers              writes the markers of transactions whose outcome is decided, until all are durable
//! verify               may this batch begin a transaction on this partition?
//! ```

mod markers;
mod verify;

use std::sync::Arc;

use bytes::Bytes;
use millstream_core::{
    RecordDecodeError,
    metadata::names::TRANSACTION_STATE,
    txn::{
        AddPartitions, Checked, Decision, EndTransaction, EndedTransaction, InitProducerId, Outcome, ProducerIdAndEpoch, TopicPartitions,
        Transaction, TransactionConfig, TransactionCoordinator, TransactionFilter, TransactionRecord, TransactionState, TransactionVersion,
    },
};
use millstream_protocol::ErrorCode;

use self::markers::Markers;
pub(crate) use self::{
    markers::write_marker,
    verify::{guard_for, verified_write},
};
use crate::{
    broker::Broker,
    clock::Clock,
    config::BrokerConfig,
    coordination::{Core, Decided, ShardHandle, Shards},
    handlers::not_stored,
    partition::Partition,
};

type TransactionShard = ShardHandle<TransactionCoordinator, Markers>;

/// All transactional ids of which this broker is the coordinator.
pub struct TransactionService {
    config: TransactionConfig,
    shards: Shards<TransactionCoordinator, Markers>,
}

impl TransactionService {
    /// A service without transactions.
    pub fn new(config: &BrokerConfig, clock: &dyn Clock) -> Self {
        Self {
            config: TransactionConfig {
                timeout_ms_max: i32::try_from(config.number("transaction.max.timeout.ms")).unwrap_or(i32::MAX),
                id_expiration_ms: config.number("transactional.id.expiration.ms"),
                id_expiration_check_interval_ms: config.number("transaction.remove.expired.transaction.cleanup.interval.ms"),
            },
            shards: Shards::new(TRANSACTION_STATE, clock),
        }
    }

    /// Starts to load what the log knows, and finishes transactions that were ending.
    pub fn load(&self, broker: &Arc<Broker>) {
        for partition in self.shards.partitions(broker) {
            if let Err(error) = self.shard(broker, &partition) {
                tracing::warn!(partition = partition.id.partition, ?error, "transactions are not loaded");
            }
        }
    }

    /// Ends all shards.
    pub async fn stop(&self) {
        self.shards.stop().await;
    }

    /// Makes sure that the id has a coordinator, and that it is this broker.
    pub(crate) async fn find(&self, broker: &Arc<Broker>, transactional_id: &str) -> Result<(), ErrorCode> {
        self.shard_of(broker, transactional_id).await.map(|_| ())
    }

    /// InitProducerId with a transactional id.
    pub(crate) async fn init_producer_id(
        &self,
        broker: &Arc<Broker>,
        transactional_id: String,
        timeout_ms: i32,
        current: ProducerIdAndEpoch,
    ) -> Checked<ProducerIdAndEpoch> {
        let shard = self.shard_of(broker, &transactional_id).await?;
        let fresh_producer_id = fresh_id(broker, &shard, &transactional_id).await?;
        let request = InitProducerId {
            transactional_id,
            timeout_ms,
            current,
            fresh_producer_id,
        };
        decide(&shard, move |core, now_ms| core.init_producer_id(now_ms, &request)).await?
    }

    /// AddPartitionsToTxn, AddOffsetsToTxn, and what a write with transaction version 2 does implicitly.
    pub(crate) async fn add_partitions(&self, broker: &Arc<Broker>, request: AddPartitions) -> Checked {
        if request.transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        let shard = self.shard_of(broker, &request.transactional_id).await?;
        decide(&shard, move |core, now_ms| core.add_partitions(now_ms, &request)).await?
    }

    /// Whether an open transaction has a partition.
    pub(crate) async fn verify(
        &self,
        broker: &Arc<Broker>,
        transactional_id: &str,
        producer: ProducerIdAndEpoch,
        topic: &str,
        partition: i32,
    ) -> Checked {
        if transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        let shard = self.shard_of(broker, transactional_id).await?;
        let (id, topic) = (transactional_id.to_owned(), topic.to_owned());
        ask(&shard, move |core, _| core.verify(&id, producer, &topic, partition)).await?
    }

    /// EndTxn. Answers once the outcome is decided; the markers follow.
    pub(crate) async fn end(
        &self,
        broker: &Arc<Broker>,
        transactional_id: String,
        producer: ProducerIdAndEpoch,
        outcome: Outcome,
        version: TransactionVersion,
    ) -> Checked<ProducerIdAndEpoch> {
        let shard = self.shard_of(broker, &transactional_id).await?;
        let fresh_producer_id = fresh_id(broker, &shard, &transactional_id).await?;
        let request = EndTransaction {
            transactional_id,
            producer,
            outcome,
            version,
            fresh_producer_id,
        };
        decide(&shard, move |core, now_ms| core.end(now_ms, &request)).await?
    }

    /// DescribeTransactions for one id.
    pub(crate) async fn describe(&self, broker: &Arc<Broker>, transactional_id: &str) -> Checked<Option<Transaction>> {
        let shard = self.shard_of(broker, transactional_id).await?;
        let id = transactional_id.to_owned();
        ask(&shard, move |core, _| core.describe(&id).cloned()).await
    }

    /// ListTransactions.
    pub(crate) async fn list(&self, broker: &Arc<Broker>, filter: TransactionFilter) -> Checked<Vec<(String, i64, TransactionState)>> {
        let filter = Arc::new(filter);
        let mut listed = Vec::new();
        for partition in self.shards.partitions(broker) {
            let filter = Arc::clone(&filter);
            listed.extend(ask(&self.shard(broker, &partition)?, move |core, now_ms| core.list(now_ms, &filter)).await?);
        }
        Ok(listed)
    }

    /// All markers of a transaction are durable.
    async fn markers_written(
        &self,
        broker: &Arc<Broker>,
        transactional_id: String,
        producer: ProducerIdAndEpoch,
        prepared_ms: i64,
    ) -> Checked {
        let shard = self.shard_of(broker, &transactional_id).await?;
        decide(&shard, move |core, now_ms| {
            core.markers_written(now_ms, &transactional_id, producer, prepared_ms)
        })
        .await
    }

    async fn shard_of(&self, broker: &Arc<Broker>, transactional_id: &str) -> Result<TransactionShard, ErrorCode> {
        self.shard(broker, &self.shards.partition_of(broker, transactional_id).await?)
    }

    fn shard(&self, broker: &Arc<Broker>, partition: &Arc<Partition>) -> Result<TransactionShard, ErrorCode> {
        self.shards.shard(partition, || {
            let effects = Markers::new(Arc::downgrade(broker), partition.leader_epoch());
            (TransactionCoordinator::new(self.config.clone()), effects)
        })
    }
}

async fn decide<R: Send + 'static>(
    shard: &TransactionShard,
    act: impl FnOnce(&mut TransactionCoordinator, i64) -> Decision<R> + Send + 'static,
) -> Result<R, ErrorCode> {
    shard
        .call(move |core, now_ms| {
            let Decision { records, ended, response } = act(core, now_ms);
            (Decided { records, effects: ended }, response)
        })
        .await
}

async fn ask<R: Send + 'static>(
    shard: &TransactionShard,
    look: impl FnOnce(&TransactionCoordinator, i64) -> R + Send + 'static,
) -> Result<R, ErrorCode> {
    let nothing = || Decided {
        records: Vec::new(),
        effects: Vec::new(),
    };
    shard.call(move |core, now_ms| (nothing(), look(core, now_ms))).await
}

/// A producer id that was never used, if the transactional id needs one: most requests do not.
async fn fresh_id(broker: &Arc<Broker>, shard: &TransactionShard, transactional_id: &str) -> Checked<i64> {
    let id = transactional_id.to_owned();
    if ask(shard, move |core, _| core.needs_producer_id(&id)).await? {
        broker.next_producer_id().await.map_err(|error| not_stored(&error))
    } else {
        Ok(-1)
    }
}

/// The partitions of one topic.
pub(crate) fn one_partition(topic: &str, partition: i32) -> TopicPartitions {
    TopicPartitions::from([(topic.to_owned(), [partition].into())])
}

impl Core for TransactionCoordinator {
    type Record = TransactionRecord;
    type Effect = EndedTransaction;

    fn loaded(&mut self, now_ms: i64) -> Decided<Self> {
        let Decision { records, ended, .. } = self.loaded(now_ms);
        Decided { records, effects: ended }
    }

    fn tick(&mut self, now_ms: i64) -> Decided<Self> {
        let Decision { records, ended, .. } = self.tick(now_ms);
        Decided { records, effects: ended }
    }

    fn next_deadline(&self) -> Option<i64> {
        self.next_deadline()
    }

    fn apply(&mut self, record: &TransactionRecord) {
        self.apply(record);
    }

    fn apply_transactional(&mut self, producer_id: i64, record: &TransactionRecord) {
        tracing::error!(
            producer_id,
            id = record.transactional_id,
            "a record of {TRANSACTION_STATE} within a transaction is ignored"
        );
    }

    fn apply_marker(&mut self, producer_id: i64, _commit: bool) {
        tracing::error!(producer_id, "a marker on {TRANSACTION_STATE} is ignored");
    }

    fn encode(record: &TransactionRecord) -> (Bytes, Option<Bytes>) {
        (record.encode_key(), record.encode_value())
    }

    fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<TransactionRecord>, RecordDecodeError> {
        TransactionRecord::decode(key, value).map(Some)
    }
}
