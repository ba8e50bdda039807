//! An administrator: creates and deletes topics, alters a configuration, deletes records, takes blocks of producer ids; one at a time.

use millstream_core::metadata::{
    configs::ConfigChange,
    controller::{
        AlterConfigs, Alteration, ConfigResource, Context, Decision, NewTopic, Outcome, TopicRef, allocate_producer_ids, alter_configs,
        create_topics, delete_topics,
    },
};
use millstream_history::history::{Answer, Call, CallId};
use uuid::Uuid;

use crate::{metadata::Proposal, stage::Stage};

/// Topics that there may be at a time.
const TOPICS_MAX: usize = 6;
/// A block has many more ids; a run needs few, and so takes many blocks.
const IDS_USED_PER_BLOCK: usize = 4;

/// The administrator.
#[derive(Default)]
pub struct Admin {
    pending: Option<CallId>,
    retentions_set: u64,
    topics_created: u64,
}

impl Admin {
    /// Does one thing; never deletes the topic that the group reads.
    pub fn act(&mut self, stage: &mut Stage, group_topic: Uuid) {
        let Some(process) = stage.process() else { return };
        if process.metadata.is_busy() {
            return;
        }
        let topics: Vec<Uuid> = process.metadata.topics().into_keys().collect();
        let Some(&topic) = topics.get(stage.rng.index(topics.len().max(1))) else {
            return;
        };
        match stage.rng.below(10) {
            0..4 if topics.len() < TOPICS_MAX => {
                self.topics_created += 1;
                let (id, name) = (stage.rng.uuid(), format!("topic-{}", self.topics_created));
                let partitions = if stage.rng.one_in(2) { 1 } else { 2 };
                self.create_topic(stage, id, &name, partitions);
            }
            4..6 if topic != group_topic => self.delete_topic(stage, topic),
            6..8 => self.set_retention(stage, topic),
            8 => self.take_producer_ids(stage),
            9 if stage.rng.one_in(2) => Self::delete_records(stage, group_topic),
            _ => Self::list_topics(stage),
        }
    }

    /// CreateTopics.
    pub fn create_topic(&mut self, stage: &mut Stage, id: Uuid, name: &str, partitions: i32) {
        let new = NewTopic {
            name: name.to_owned(),
            id,
            num_partitions: partitions,
            replication_factor: 1,
            assignments: Vec::new(),
            configs: Vec::new(),
        };
        self.propose(stage, Call::CreateTopic { topic: id }, |context| {
            first(create_topics(context, &[new], false), |_| Answer::Done)
        });
    }

    fn delete_topic(&mut self, stage: &mut Stage, topic: Uuid) {
        self.propose(stage, Call::DeleteTopic { topic }, |context| {
            first(delete_topics(context, &[TopicRef::Id(topic)]), |_| Answer::Done)
        });
    }

    fn set_retention(&mut self, stage: &mut Stage, topic: Uuid) {
        let Some(name) = stage.process().and_then(|process| process.metadata.name_of(topic)) else {
            return;
        };
        self.retentions_set += 1;
        let value = (86_400_000 + self.retentions_set).to_string();
        let item = AlterConfigs {
            resource: ConfigResource::Topic(name),
            alteration: Alteration::Changes(vec![ConfigChange::set("retention.ms", &value)]),
        };
        self.propose(stage, Call::SetRetention { topic, value }, |context| {
            first(alter_configs(context, &[item], false), |()| Answer::Done)
        });
    }

    /// What InitProducerId does when its block is used up.
    pub fn take_producer_ids(&mut self, stage: &mut Stage) {
        self.propose(stage, Call::TakeProducerIds, |context| {
            let Decision { records, reply } = allocate_producer_ids(context);
            Decision {
                records,
                reply: reply.map(Answer::ProducerIds),
            }
        });
    }

    /// DeleteRecords, of any topic that the group does not read.
    fn delete_records(stage: &mut Stage, group_topic: Uuid) {
        let Some(process) = stage.process() else { return };
        let mut partitions = process.partitions();
        partitions.retain(|partition| partition.topic != group_topic);
        let Some(&partition) = partitions.get(stage.rng.index(partitions.len().max(1))) else {
            return;
        };
        let Some(Ok(range)) = stage.process().map(|process| process.range(partition)) else {
            return;
        };
        let length = u64::try_from(range.end - range.start).unwrap_or_default();
        let before = range.start + i64::try_from(stage.rng.below(length + 1)).unwrap_or_default();
        let call = stage.invoke(Call::DeleteRecords { partition, before });
        match stage.process().map(|process| process.delete_records(partition, before)) {
            Some(Ok(())) => stage.ok(call, Answer::Done),
            Some(Err(error)) => {
                stage.unknown(call);
                stage.broke(&error);
            }
            None => stage.fail(call, "the node is down"),
        }
    }

    /// Metadata of all topics.
    pub fn list_topics(stage: &mut Stage) {
        let call = stage.invoke(Call::ListTopics);
        match stage.process().map(|process| process.metadata.topics()) {
            Some(topics) => stage.ok(call, Answer::Topics(topics)),
            None => stage.fail(call, "the node is down"),
        }
    }

    fn propose(&mut self, stage: &mut Stage, call: Call, decide: impl FnOnce(&Context<'_>) -> Decision<Outcome<Answer>>) {
        let (call, now_ms) = (stage.invoke(call), stage.now_ms);
        match stage.process().map(|process| process.metadata.propose(now_ms, call, decide)) {
            Some(Proposal::Waits) => self.pending = Some(call),
            Some(Proposal::Refused(reason)) => stage.fail(call, reason),
            None => stage.fail(call, "the node is down"),
        }
    }

    /// The answer to a request is on its way.
    pub fn on_answer(&mut self, stage: &mut Stage, call: CallId, answer: Answer) {
        if self.pending.take() != Some(call) {
            return stage.surprise(format!("the answer to call {call} was not waited for"));
        }
        if stage.loses_answer() {
            return stage.unknown(call);
        }
        if let Answer::ProducerIds(ids) = &answer {
            stage.producer_ids.extend(ids.clone().take(IDS_USED_PER_BLOCK));
        }
        stage.ok(call, answer);
    }

    /// The connection broke.
    pub fn disconnected(&mut self, stage: &mut Stage) {
        if let Some(call) = self.pending.take() {
            stage.unknown(call);
        }
    }
}

/// A decision on one item as the answer to its call.
fn first<T>(decision: Decision<Vec<Outcome<T>>>, answer: impl FnOnce(T) -> Answer) -> Decision<Outcome<Answer>> {
    let Decision { records, mut reply } = decision;
    Decision {
        records,
        reply: reply.remove(0).map(answer),
    }
}
