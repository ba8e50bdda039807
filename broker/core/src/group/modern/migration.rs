//! Groups with members change their protocol (KIP-848, `group.consumer.migration.policy`).
//!
//! *Up*, when a member of the new protocol joins a classic group: the generation becomes the group's epoch, and each member keeps what
//! it was assigned. *Down*, when the last member of the new protocol goes and classic ones are left: they rebalance among themselves.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use millstream_protocol::ErrorCode;
use uuid::Uuid;

use super::{
    ClassicProtocols, CurrentAssignment, MemberState, ModernChange, ModernGroup, ModernHeartbeat, ModernKind, ModernMember, ModernRecord,
    ModernRefusal, Subscription, TopicIdPartitions,
    classic::{CONSUMER, by_id},
    heartbeat::{CONVERSION_BYTES_MAX, Turn},
    leave::session_key,
    target::topics_hash,
};
use crate::{
    group::{
        Decision, GroupCoordinator, GroupRecord, GroupState, JoinGroupResponse, ParkedResponse, Reply, SyncGroupResponse,
        consumer_protocol::{read_assignment, read_subscription, version_of, write_assignment},
        state::{ClassicGroup, Member},
    },
    metadata::ClusterImage,
};

impl GroupCoordinator {
    /// The consumer group that a classic group with members becomes, with the records that make it one. The classic group stays for now.
    pub(super) fn upgraded(
        &mut self,
        request: &ModernHeartbeat,
        image: &ClusterImage,
        records: &mut Vec<GroupRecord>,
    ) -> Result<ModernGroup, ModernRefusal> {
        let group_id = &request.group_id;
        let refused = |why: &str| {
            ModernRefusal::new(
                ErrorCode::GroupIdNotFound,
                format!("Cannot upgrade classic group {group_id} to consumer group: {why}"),
            )
        };
        let Some(classic) = self.groups.get(group_id) else {
            return Err(refused("it does not exist."));
        };
        if !self.config.migration.upgrades() {
            return Err(refused("the online upgrade is disabled."));
        }
        if classic.protocol_type.as_deref() != Some(CONSUMER) {
            return Err(refused("the group does not use the consumer embedded protocol."));
        }
        if classic.member_count() > self.config.consumer_members_max {
            return Err(refused("the group is too large."));
        }
        // While members join, the protocol of the last generation may not be everybody's any more.
        let selected = classic
            .protocol
            .clone()
            .filter(|_| classic.state() != GroupState::PreparingRebalance);
        let protocol = selected.or_else(|| classic.select_protocol());
        let is_settled = classic.state() == GroupState::Stable && classic.generation > 0;
        let mut group = ModernGroup::new(ModernKind::Consumer);
        (group.epoch, group.assignment_epoch) = (classic.generation, classic.generation);
        let mut read = Vec::new();
        let mut taken = TopicIdPartitions::new();
        for member in classic.members() {
            let assigned = read_assignment(&member.assignment).ok_or_else(|| refused("an assignment cannot be read."))?;
            if assigned.has_user_data {
                return Err(refused("a custom assignor with user metadata is in use."));
            }
            let metadata = member.metadata(protocol.as_deref());
            let subscribed = read_subscription(&metadata).ok_or_else(|| refused("a subscription cannot be read."))?;
            let assigned = take(by_id(&assigned.partitions, image), &mut taken);
            read.push((member, subscribed, assigned));
        }
        for (member, subscribed, mut assigned) in read {
            // What a cooperative consumer owned when it joined it may still read, though it is nobody's now.
            for (id, numbers) in take(by_id(&subscribed.owned, image), &mut taken) {
                assigned.entry(id).or_default().extend(numbers);
            }
            group.target.insert(member.id.clone(), assigned.clone());
            let upgraded = ModernMember {
                subscription: Subscription {
                    instance_id: member.instance_id.clone(),
                    rack_id: subscribed.rack_id,
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    topics: subscribed.topics.into_iter().collect(),
                    regex: None,
                    rebalance_timeout_ms: member.rebalance_timeout_ms,
                    assignor: None,
                    classic: Some(ClassicProtocols {
                        session_timeout_ms: member.session_timeout_ms,
                        protocols: member.protocols.clone(),
                    }),
                },
                current: CurrentAssignment {
                    epoch: classic.generation,
                    previous_epoch: classic.generation,
                    state: MemberState::Stable,
                    assigned,
                    revoking: TopicIdPartitions::new(),
                },
            };
            group.members.insert(member.id.clone(), upgraded);
        }
        let (topics, _) = self.resolve(&group, image);
        let is_taken = |id: &Uuid, count: i32| taken.get(id).map_or(0, BTreeSet::len) >= usize::try_from(count).unwrap_or(0);
        if is_settled && topics.iter().all(|(id, count)| is_taken(id, *count)) {
            group.topics_hash = topics_hash(&topics);
        }
        // Otherwise the hash stays that of nothing: what the classic group left undone needs a new target, whoever joins.
        records.push(GroupRecord::Group {
            group_id: group_id.clone(),
            value: None,
        });
        let mut turn = Turn { request, records };
        for (id, member) in &group.members {
            turn.record(ModernChange::Member(id.clone(), Some(member.subscription.clone())));
        }
        turn.record(ModernChange::Group(Some((group.epoch, group.topics_hash))));
        for (id, target) in &group.target {
            turn.record(ModernChange::Target(id.clone(), Some(target.clone())));
        }
        turn.record(ModernChange::TargetEpoch(Some(group.assignment_epoch)));
        for (id, member) in &group.members {
            turn.record(ModernChange::Current(id.clone(), Some(member.current.clone())));
        }
        Ok(group)
    }

    /// A classic group is gone, as the heartbeat that replaces it succeeded. Its members learn of it when they come back.
    pub(super) fn dissolve_classic(&mut self, now_ms: i64, request: &ModernHeartbeat, decision: &mut Decision) {
        let Some(group) = self.groups.remove(&request.group_id) else {
            return;
        };
        group.cancel_timers(&mut self.timers);
        for member in group.members() {
            if let Some(token) = member.awaiting_join {
                let response = JoinGroupResponse::error(ErrorCode::RebalanceInProgress, member.id.as_str());
                let response = ParkedResponse::Join(response);
                decision.replies.push(Reply { token, response });
            }
            if let Some(token) = member.awaiting_sync {
                let response = ParkedResponse::Sync(SyncGroupResponse::error(ErrorCode::RebalanceInProgress));
                decision.replies.push(Reply { token, response });
            }
            let is_replaced = member.instance_id.is_some() && member.instance_id == request.instance_id;
            if !is_replaced && member.id != request.member_id {
                let key = session_key(ModernKind::Consumer, &request.group_id, &member.id);
                self.timers.schedule(key, now_ms.saturating_add(member.session_timeout_ms.into()));
            }
        }
    }

    /// The classic group that is left when these members go, and perhaps one joins; `None` if it stays a consumer group.
    pub(super) fn downgraded(
        &self,
        group: &ModernGroup,
        group_id: &str,
        removed: &BTreeSet<String>,
        joiner: Option<Member>,
    ) -> Option<ClassicGroup> {
        if group.kind != ModernKind::Consumer || !self.config.migration.downgrades() {
            return None;
        }
        let rest = || group.members.iter().filter(|(id, _)| !removed.contains(*id));
        let count = rest().count() + joiner.iter().count();
        let are_all_classic = rest().all(|(_, member)| member.subscription.classic.is_some());
        if !are_all_classic || count == 0 || count > self.config.members_max {
            return None;
        }
        let classic = rest().map(|(id, member)| {
            let subscription = &member.subscription;
            let classic = subscription.classic.as_ref()?;
            Some(Member {
                id: id.clone(),
                instance_id: subscription.instance_id.clone(),
                client_id: subscription.client_id.clone(),
                client_host: subscription.client_host.clone(),
                session_timeout_ms: classic.session_timeout_ms,
                rebalance_timeout_ms: subscription.rebalance_timeout_ms,
                protocols: classic.protocols.clone(),
                assignment: self.assignment_of(member, classic)?,
                awaiting_join: None,
                awaiting_sync: None,
                is_new: false,
            })
        });
        // A group in which something has no known name stays as it is, for now.
        let mut members = classic.collect::<Option<Vec<_>>>()?;
        members.extend(joiner);
        let classic = ClassicGroup::of_consumers(group_id.to_owned(), group.epoch, members);
        // Three tombstones for each member, whose keys hold both ids, one for each pattern, and the group's record.
        let keys = group.members.keys().map(|id| 3 * (id.len() + group_id.len() + 64)).sum::<usize>();
        let regexes = group.regexes.keys().map(|regex| regex.len() + group_id.len() + 64).sum::<usize>();
        let size = classic.to_metadata().encode().len();
        (size <= self.config.group_record_bytes_max && keys + regexes + size <= CONVERSION_BYTES_MAX).then_some(classic)
    }

    /// What a classic member may read, as it would be told.
    fn assignment_of(&self, member: &ModernMember, classic: &ClassicProtocols) -> Option<Bytes> {
        let mut named: BTreeMap<&String, BTreeSet<i32>> = BTreeMap::new();
        for (id, numbers) in member.current.assigned.iter().chain(&member.current.revoking) {
            named.entry(self.topic_names.get(id)?).or_default().extend(numbers);
        }
        let named = named
            .into_iter()
            .map(|(name, numbers)| (name.clone(), numbers.into_iter().collect()));
        let version = classic.protocols.first().map_or(0, |(_, metadata)| version_of(metadata));
        write_assignment(version, named.collect())
    }

    /// A consumer group is classic from now on, and rebalances.
    pub(super) fn become_classic(&mut self, now_ms: i64, group_id: &str, mut classic: ClassicGroup, decision: &mut Decision) {
        classic.state_timestamp_ms = Some(now_ms);
        self.bury_modern_members(group_id, &mut decision.records);
        decision.records.push(GroupRecord::Group {
            group_id: group_id.to_owned(),
            value: Some(classic.to_metadata()),
        });
        self.groups.insert(group_id.to_owned(), classic);
        self.with_group(now_ms, group_id, decision, |group, turn| {
            for member_id in group.member_ids() {
                group.renew_session(turn, &member_id);
            }
            group.begin_rebalance(turn);
        });
    }

    /// Takes a consumer group out of the log with all that it has: what a compaction leaves must not bring it back.
    fn bury_modern_members(&mut self, group_id: &str, records: &mut Vec<GroupRecord>) {
        let Some(group) = self.hard.modern(group_id) else { return };
        let kind = group.kind;
        let known: BTreeSet<&String> = group.members.keys().chain(group.target.keys()).collect();
        let changes: Vec<ModernChange> = known
            .iter()
            .flat_map(|id| {
                [
                    ModernChange::Current((*id).clone(), None),
                    ModernChange::Target((*id).clone(), None),
                ]
            })
            .chain([ModernChange::TargetEpoch(None)])
            .chain(known.iter().map(|id| ModernChange::Member((*id).clone(), None)))
            .chain(group.regexes.keys().map(|regex| ModernChange::Regex(regex.clone(), None)))
            .chain([ModernChange::Group(None)])
            .collect();
        let members: Vec<String> = group.members.keys().cloned().collect();
        records.extend(changes.into_iter().map(|change| {
            GroupRecord::Modern(ModernRecord {
                kind,
                group_id: group_id.to_owned(),
                change,
            })
        }));
        self.checked_images.remove(group_id);
        for member_id in members {
            self.forget_timers(kind, group_id, &member_id);
        }
    }
}

/// Those of the partitions that nobody took yet: each has one owner.
fn take(partitions: TopicIdPartitions, taken: &mut TopicIdPartitions) -> TopicIdPartitions {
    let mut own = TopicIdPartitions::new();
    for (id, numbers) in partitions {
        let known = taken.entry(id).or_default();
        let free: BTreeSet<i32> = numbers.into_iter().filter(|number| known.insert(*number)).collect();
        if !free.is_empty() {
            own.insert(id, free);
        }
    }
    own
}
