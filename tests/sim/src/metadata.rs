//! The shell of the metadata controller: one decision at a time, applied and answered once its records are durable.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, Result};
use millstream_core::metadata::{
    ClusterImage, MetadataRecord,
    configs::Overrides,
    controller::{Context, Decision, Outcome, Refusal, restart_broker},
};
use millstream_history::history::{Answer, CallId, Partition};
use millstream_log::Log;
use uuid::Uuid;

use crate::batches;

/// The id of the only node.
pub const NODE_ID: i32 = 1;

/// The image, its log, and the decision that waits to be durable.
pub struct Metadata {
    log: Arc<Log>,
    image: ClusterImage,
    fixed_configs: Overrides,
    pending: Option<Pending>,
}

struct Pending {
    records: Vec<MetadataRecord>,
    call: CallId,
    answer: Answer,
}

/// What became of a request at once.
pub enum Proposal {
    /// Its records are in the log; the answer comes with their sync.
    Waits,
    /// It was decided that nothing happens.
    Refused(String),
}

impl Metadata {
    /// Replays the log, and begins a new leader epoch as a starting broker does.
    pub fn load(log: Arc<Log>, now_ms: i64) -> Result<Self> {
        let image = batches::replay_metadata(&log, ClusterImage::empty(Uuid::from_u128(7))).context("replay metadata")?;
        let mut metadata = Self {
            log,
            image,
            fixed_configs: Overrides::new(),
            pending: None,
        };
        let records = metadata.decide(now_ms, |context| restart_broker(context, NODE_ID)).records;
        if !records.is_empty() {
            metadata.append(&records, now_ms)?;
            metadata.log.sync(now_ms)?;
            metadata.apply(&records)?;
        }
        Ok(metadata)
    }

    fn decide<R>(&self, now_ms: i64, decide: impl FnOnce(&Context<'_>) -> Decision<R>) -> Decision<R> {
        decide(&Context {
            image: &self.image,
            brokers: &[NODE_ID],
            fixed_configs: &self.fixed_configs,
            now_ms,
            cluster_admin: true,
        })
    }

    fn append(&self, records: &[MetadataRecord], now_ms: i64) -> Result<()> {
        let (header, batch) = batches::of_metadata(records, now_ms)?;
        self.log.append(&header, &batch, 0, now_ms, None)?;
        Ok(())
    }

    fn apply(&mut self, records: &[MetadataRecord]) -> Result<()> {
        records
            .iter()
            .try_for_each(|record| self.image.apply(record))
            .context("apply decided metadata")
    }

    /// Whether a decision waits: the next one has to, too.
    pub fn is_busy(&self) -> bool {
        self.pending.is_some()
    }

    /// Decides on a request and appends its records. An append that fails changes nothing.
    pub fn propose(&mut self, now_ms: i64, call: CallId, decide: impl FnOnce(&Context<'_>) -> Decision<Outcome<Answer>>) -> Proposal {
        assert!(!self.is_busy(), "two metadata decisions at a time");
        let Decision { records, reply } = self.decide(now_ms, decide);
        let answer = match reply {
            Ok(answer) => answer,
            Err(Refusal { code, message }) => return Proposal::Refused(format!("{code:?}: {message}")),
        };
        if let Err(error) = self.append(&records, now_ms) {
            return Proposal::Refused(format!("{error:#}"));
        }
        self.pending = Some(Pending { records, call, answer });
        Proposal::Waits
    }

    /// The call whose records are durable when the log is so up to here, after applying them.
    pub fn take_answer(&mut self, durable: i64) -> Result<Option<(CallId, Answer)>> {
        if durable < self.log.log_end_offset() {
            return Ok(None);
        }
        let Some(Pending { records, call, answer }) = self.pending.take() else {
            return Ok(None);
        };
        self.apply(&records)?;
        Ok(Some((call, answer)))
    }

    /// Every partition of every topic, with its leader epoch.
    pub fn partitions(&self) -> BTreeMap<Partition, i32> {
        let of_topics = self.image.topics.values().flat_map(|topic| {
            (0..).zip(&topic.partitions).map(|(number, partition)| {
                let name = Partition { topic: topic.id, number };
                (name, partition.leader_epoch)
            })
        });
        of_topics.collect()
    }

    /// The topics with their `retention.ms`.
    pub fn topics(&self) -> BTreeMap<Uuid, Option<String>> {
        let topics = self.image.topics.values();
        topics.map(|topic| (topic.id, topic.configs.get("retention.ms").cloned())).collect()
    }

    /// The name of a topic.
    pub fn name_of(&self, topic: Uuid) -> Option<String> {
        self.image.topic_by_id(topic).map(|topic| topic.name.clone())
    }
}
