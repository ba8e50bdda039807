//! The records of streams groups, in Kafka's own binary form.
//!
//! Keys are `i16` record type, then strings with an `i16` length: the group, and the member where the record is about one. Values are
//! version 0 and flexible.
//! ```text
//! 17  group         i32 epoch, i64 hash of the topics, tag 0: i32 validated topology epoch, tag 1: setting[]?
//! 19  member        string? instance, string? rack, string client id, string client host, i32 rebalance timeout, i32 topology epoch,
//!                   string process id, endpoint? { string host, u16 port }, tag[] { string key, string value }
//! 20  target epoch  i32
//! 21  target        task ids of active, standby and warm-up tasks
//! 22  current       i32 epoch, i32 previous epoch, i8 state, task ids as in 21 assigned, and the same to give up
//! 23  topology      i32 epoch, subtopology[] { string id, string[] sources, string[] patterns, topic[] changelogs, string[] sinks,
//!                   topic[] repartition sources, { i16[] sources, i16[] patterns, i16[] repartition sources }[] }
//!
//! task ids          { string subtopology, i32[] partitions, tag 0: i32[]? assignment epochs of active tasks }[]
//! topic             string name, i32 partitions, i16 replication factor, { string key, string value }[]
//! ```

use std::{collections::BTreeMap, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    CopartitionGroup, CurrentTasks, Endpoint, HeldTasks, MemberMetadata, NOT_VALIDATED, RoleTasks, Subtopology, Task, TaskState, Tasks,
    TopicInfo, Topology,
};
use crate::records::{
    Reader, RecordDecodeError, put_compact_array_length, put_compact_nullable_string, put_compact_string, put_string, put_unsigned_varint,
};

/// What a group's own record says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupValue {
    /// See [`super::StreamsGroup::epoch`].
    pub epoch: i32,
    /// See [`super::StreamsGroup::topics_hash`].
    pub topics_hash: u64,
    /// See [`super::StreamsGroup::validated_epoch`].
    pub validated_epoch: i32,
    /// See [`super::StreamsGroup::assignment_configs`].
    pub assignment_configs: BTreeMap<String, String>,
}

/// A change of a group's hard state; `None` takes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamsChange {
    /// Epoch and what it was made for. Taken away, the group is gone.
    Group(Option<GroupValue>),
    /// What the application consists of.
    Topology(Option<Arc<Topology>>),
    /// Who a member is.
    Member(String, Option<MemberMetadata>),
    /// The epoch that the target is for.
    TargetEpoch(Option<i32>),
    /// A member's target.
    Target(String, Option<RoleTasks>),
    /// What a member has.
    Current(String, Option<CurrentTasks>),
}

impl StreamsChange {
    /// Whether it takes something away.
    pub fn is_tombstone(&self) -> bool {
        match self {
            Self::Group(value) => value.is_none(),
            Self::Topology(value) => value.is_none(),
            Self::Member(_, value) => value.is_none(),
            Self::TargetEpoch(value) => value.is_none(),
            Self::Target(_, value) => value.is_none(),
            Self::Current(_, value) => value.is_none(),
        }
    }
}

/// A record of a streams group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsRecord {
    /// The group.
    pub group_id: String,
    /// What changes.
    pub change: StreamsChange,
}

impl StreamsRecord {
    /// The record's key.
    pub fn encode_key(&self) -> Bytes {
        let (number, member_id) = match &self.change {
            StreamsChange::Group(_) => (17, None),
            StreamsChange::Member(member_id, _) => (19, Some(member_id)),
            StreamsChange::TargetEpoch(_) => (20, None),
            StreamsChange::Target(member_id, _) => (21, Some(member_id)),
            StreamsChange::Current(member_id, _) => (22, Some(member_id)),
            StreamsChange::Topology(_) => (23, None),
        };
        let mut out = BytesMut::new();
        out.put_i16(number);
        put_string(&mut out, &self.group_id);
        if let Some(member_id) = member_id {
            put_string(&mut out, member_id);
        }
        out.freeze()
    }

    /// The record's value, `None` for a tombstone.
    pub fn encode_value(&self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        out.put_i16(0);
        match &self.change {
            StreamsChange::Group(value) => {
                put_group(&mut out, value.as_ref()?);
                return Some(out.freeze());
            }
            StreamsChange::Member(_, value) => put_member(&mut out, value.as_ref()?),
            StreamsChange::TargetEpoch(value) => out.put_i32((*value)?),
            StreamsChange::Target(_, value) => {
                let tasks = value.as_ref()?;
                for tasks in [&tasks.active, &tasks.standby, &tasks.warmup] {
                    put_tasks(&mut out, tasks);
                }
            }
            StreamsChange::Current(_, value) => {
                let current = value.as_ref()?;
                out.put_i32(current.epoch);
                out.put_i32(current.previous_epoch);
                out.put_i8(state_code(current.state));
                for held in [&current.assigned, &current.revoking] {
                    put_active(&mut out, &held.active);
                    put_tasks(&mut out, &held.standby);
                    put_tasks(&mut out, &held.warmup);
                }
            }
            StreamsChange::Topology(value) => put_topology(&mut out, value.as_ref()?),
        }
        put_unsigned_varint(&mut out, 0);
        Some(out.freeze())
    }

    /// Reads a record; `Ok(None)` if its key belongs to something else.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Self>, RecordDecodeError> {
        let mut key = Reader::new(key);
        let number = key.i16()?;
        if !matches!(number, 17 | 19..=23) {
            return Ok(None);
        }
        let group_id = key.string()?;
        let value = value
            .map(|value| Reader::of_value(value, 0..=0, 0).map(|(_, reader)| reader))
            .transpose()?;
        let change = match number {
            17 => StreamsChange::Group(value.map(read_group).transpose()?),
            19 => StreamsChange::Member(key.string()?, value.map(read_member).transpose()?),
            20 => StreamsChange::TargetEpoch(value.map(|mut value| value.i32()).transpose()?),
            21 => StreamsChange::Target(key.string()?, value.map(read_target).transpose()?),
            22 => StreamsChange::Current(key.string()?, value.map(read_current).transpose()?),
            _ => StreamsChange::Topology(value.map(|value| read_topology(value).map(Arc::new)).transpose()?),
        };
        Ok(Some(Self { group_id, change }))
    }
}

fn put_tagged(out: &mut BytesMut, tag: u32, field: &[u8]) {
    put_unsigned_varint(out, tag);
    put_unsigned_varint(out, u32::try_from(field.len()).unwrap_or(u32::MAX));
    out.put_slice(field);
}

fn put_array<T>(out: &mut BytesMut, items: impl ExactSizeIterator<Item = T>, mut put: impl FnMut(&mut BytesMut, T)) {
    put_compact_array_length(out, items.len());
    items.for_each(|item| put(out, item));
}

fn read_array<'a, T>(
    value: &mut Reader<'a>,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, RecordDecodeError>,
) -> Result<Vec<T>, RecordDecodeError> {
    let mut items = Vec::new();
    for _ in 0..value.nullable_array_length()?.unwrap_or(0) {
        items.push(read(value)?);
    }
    Ok(items)
}

fn put_pair(out: &mut BytesMut, (key, text): (&String, &String)) {
    put_compact_string(out, key);
    put_compact_string(out, text);
    put_unsigned_varint(out, 0);
}

fn read_pair(value: &mut Reader<'_>) -> Result<(String, String), RecordDecodeError> {
    let pair = (value.string()?, value.string()?);
    value.skip_tagged_fields()?;
    Ok(pair)
}

fn put_group(out: &mut BytesMut, group: &GroupValue) {
    out.put_i32(group.epoch);
    out.put_u64(group.topics_hash);
    put_unsigned_varint(out, if group.validated_epoch == NOT_VALIDATED { 1 } else { 2 });
    if group.validated_epoch != NOT_VALIDATED {
        put_tagged(out, 0, &group.validated_epoch.to_be_bytes());
    }
    let mut configs = BytesMut::new();
    put_array(&mut configs, group.assignment_configs.iter(), put_pair);
    put_tagged(out, 1, &configs);
}

fn read_group(mut value: Reader<'_>) -> Result<GroupValue, RecordDecodeError> {
    let mut group = GroupValue {
        epoch: value.i32()?,
        topics_hash: value.i64()?.cast_unsigned(),
        validated_epoch: NOT_VALIDATED,
        assignment_configs: BTreeMap::new(),
    };
    value.tagged_fields(|tag, field| {
        match tag {
            0 => group.validated_epoch = field.i32()?,
            1 => group.assignment_configs = read_array(field, read_pair)?.into_iter().collect(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(group)
}

fn put_member(out: &mut BytesMut, member: &MemberMetadata) {
    put_compact_nullable_string(out, member.instance_id.as_deref());
    put_compact_nullable_string(out, member.rack_id.as_deref());
    put_compact_string(out, &member.client_id);
    put_compact_string(out, &member.client_host);
    out.put_i32(member.rebalance_timeout_ms);
    out.put_i32(member.topology_epoch);
    put_compact_string(out, &member.process_id);
    match &member.endpoint {
        Some(endpoint) => {
            out.put_i8(1);
            put_compact_string(out, &endpoint.host);
            out.put_u16(endpoint.port);
            put_unsigned_varint(out, 0);
        }
        None => out.put_i8(-1),
    }
    put_array(out, member.client_tags.iter(), put_pair);
}

fn read_member(mut value: Reader<'_>) -> Result<MemberMetadata, RecordDecodeError> {
    Ok(MemberMetadata {
        instance_id: value.nullable_string()?,
        rack_id: value.nullable_string()?,
        client_id: value.string()?,
        client_host: value.string()?,
        rebalance_timeout_ms: value.i32()?,
        topology_epoch: value.i32()?,
        process_id: value.string()?,
        endpoint: if value.i8()? == 1 {
            let endpoint = Endpoint {
                host: value.string()?,
                port: value.i16()?.cast_unsigned(),
            };
            value.skip_tagged_fields()?;
            Some(endpoint)
        } else {
            None
        },
        client_tags: read_array(&mut value, read_pair)?.into_iter().collect(),
    })
}

/// Tasks grouped by subtopology.
fn by_subtopology<'a>(tasks: impl Iterator<Item = (&'a Task, i32)>) -> Vec<(&'a str, Vec<(i32, i32)>)> {
    let mut grouped: Vec<(&str, Vec<(i32, i32)>)> = Vec::new();
    for (task, epoch) in tasks {
        match grouped.last_mut() {
            Some((id, partitions)) if *id == &*task.subtopology => partitions.push((task.partition, epoch)),
            _ => grouped.push((&task.subtopology, vec![(task.partition, epoch)])),
        }
    }
    grouped
}

pub(super) fn put_tasks(out: &mut BytesMut, tasks: &Tasks) {
    let grouped = by_subtopology(tasks.iter().map(|task| (task, 0)));
    put_array(out, grouped.into_iter(), |out, (id, partitions)| {
        put_compact_string(out, id);
        put_array(out, partitions.into_iter(), |out, (partition, _)| out.put_i32(partition));
        put_unsigned_varint(out, 0);
    });
}

fn put_active(out: &mut BytesMut, tasks: &BTreeMap<Task, i32>) {
    let grouped = by_subtopology(tasks.iter().map(|(task, epoch)| (task, *epoch)));
    put_array(out, grouped.into_iter(), |out, (id, partitions)| {
        put_compact_string(out, id);
        put_array(out, partitions.iter(), |out, (partition, _)| out.put_i32(*partition));
        let mut epochs = BytesMut::new();
        put_array(&mut epochs, partitions.iter(), |out, (_, epoch)| out.put_i32(*epoch));
        put_unsigned_varint(out, 1);
        put_tagged(out, 0, &epochs);
    });
}

/// Tasks, and the assignment epochs of those that have one.
fn read_task_ids(value: &mut Reader<'_>) -> Result<Vec<(Task, Option<i32>)>, RecordDecodeError> {
    let mut tasks = Vec::new();
    for _ in 0..value.nullable_array_length()?.unwrap_or(0) {
        let subtopology: Arc<str> = value.string()?.into();
        let partitions = read_array(value, Reader::i32)?;
        let mut epochs = None;
        value.tagged_fields(|tag, field| {
            if tag == 0 {
                let length = field.nullable_array_length()?;
                let read = (0..length.unwrap_or(0)).map(|_| field.i32()).collect::<Result<Vec<_>, _>>()?;
                epochs = length.map(|_| read);
            }
            Ok(())
        })?;
        if let Some(epochs) = epochs.as_ref().filter(|epochs| epochs.len() != partitions.len()) {
            return Err(RecordDecodeError::BadLength(i64::try_from(epochs.len()).unwrap_or(i64::MAX)));
        }
        for (index, partition) in partitions.into_iter().enumerate() {
            let epoch = epochs.as_ref().and_then(|epochs| epochs.get(index)).copied();
            let subtopology = Arc::clone(&subtopology);
            tasks.push((Task { subtopology, partition }, epoch));
        }
    }
    Ok(tasks)
}

fn read_tasks(value: &mut Reader<'_>) -> Result<Tasks, RecordDecodeError> {
    Ok(read_task_ids(value)?.into_iter().map(|(task, _)| task).collect())
}

fn read_target(mut value: Reader<'_>) -> Result<RoleTasks, RecordDecodeError> {
    Ok(RoleTasks {
        active: read_tasks(&mut value)?,
        standby: read_tasks(&mut value)?,
        warmup: read_tasks(&mut value)?,
    })
}

fn state_code(state: TaskState) -> i8 {
    match state {
        TaskState::Stable => 1,
        TaskState::UnrevokedTasks => 2,
        TaskState::UnreleasedTasks => 3,
        TaskState::Unknown => 127,
    }
}

fn read_current(mut value: Reader<'_>) -> Result<CurrentTasks, RecordDecodeError> {
    let (epoch, previous_epoch) = (value.i32()?, value.i32()?);
    let state = match value.i8()? {
        1 => TaskState::Stable,
        2 => TaskState::UnrevokedTasks,
        3 => TaskState::UnreleasedTasks,
        _ => TaskState::Unknown,
    };
    let mut read_held = || {
        let active = read_task_ids(&mut value)?.into_iter();
        Ok(HeldTasks {
            // Older records do not say since when.
            active: active.map(|(task, since)| (task, since.unwrap_or(epoch))).collect(),
            standby: read_tasks(&mut value)?,
            warmup: read_tasks(&mut value)?,
        })
    };
    let (assigned, revoking) = (read_held()?, read_held()?);
    Ok(CurrentTasks {
        epoch,
        previous_epoch,
        state,
        assigned,
        revoking,
    })
}

fn put_topic(out: &mut BytesMut, topic: &TopicInfo) {
    put_compact_string(out, &topic.name);
    out.put_i32(topic.partitions);
    out.put_i16(topic.replication_factor);
    put_array(out, topic.configs.iter(), |out, (key, text)| put_pair(out, (key, text)));
    put_unsigned_varint(out, 0);
}

fn read_topic(value: &mut Reader<'_>) -> Result<TopicInfo, RecordDecodeError> {
    let topic = TopicInfo {
        name: value.string()?,
        partitions: value.i32()?,
        replication_factor: value.i16()?,
        configs: read_array(value, read_pair)?,
    };
    value.skip_tagged_fields()?;
    Ok(topic)
}

fn put_topology(out: &mut BytesMut, topology: &Topology) {
    out.put_i32(topology.epoch);
    let put_name = |out: &mut BytesMut, name: &String| put_compact_string(out, name);
    let put_index = |out: &mut BytesMut, index: &i16| out.put_i16(*index);
    put_array(out, topology.subtopologies.iter(), |out, part| {
        put_compact_string(out, &part.id);
        put_array(out, part.sources.iter(), put_name);
        put_array(out, part.source_regexes.iter(), put_name);
        put_array(out, part.changelogs.iter(), put_topic);
        put_array(out, part.sinks.iter(), put_name);
        put_array(out, part.repartition_sources.iter(), put_topic);
        put_array(out, part.copartition_groups.iter(), |out, group| {
            for indices in [&group.sources, &group.source_regexes, &group.repartition_sources] {
                put_array(out, indices.iter(), put_index);
            }
            put_unsigned_varint(out, 0);
        });
        put_unsigned_varint(out, 0);
    });
}

fn read_topology(mut value: Reader<'_>) -> Result<Topology, RecordDecodeError> {
    let epoch = value.i32()?;
    let subtopologies = read_array(&mut value, |value| {
        let part = Subtopology {
            id: value.string()?,
            sources: read_array(value, Reader::string)?,
            source_regexes: read_array(value, Reader::string)?,
            changelogs: read_array(value, read_topic)?,
            sinks: read_array(value, Reader::string)?,
            repartition_sources: read_array(value, read_topic)?,
            copartition_groups: read_array(value, |value| {
                let group = CopartitionGroup {
                    sources: read_array(value, Reader::i16)?,
                    source_regexes: read_array(value, Reader::i16)?,
                    repartition_sources: read_array(value, Reader::i16)?,
                };
                value.skip_tagged_fields()?;
                Ok(group)
            })?,
        };
        value.skip_tagged_fields()?;
        Ok(part)
    })?;
    Ok(Topology { epoch, subtopologies })
}
