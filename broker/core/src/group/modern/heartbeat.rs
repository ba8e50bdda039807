//! ConsumerGroupHeartbeat and ShareGroupHeartbeat: joining, staying, changing and leaving are all one request (KIP-848, KIP-932).

use millstream_protocol::ErrorCode;

use super::{
    ClassicProtocols, MemberState, ModernChange, ModernGroup, ModernKind, ModernMember, ModernRecord, STATIC_LEAVE_EPOCH, Subscription,
    TopicIdPartitions,
    leave::session_key,
    reconcile::next_assignment,
    regexes::{Matches, forget_regexes},
    target::{TOPICS_UNKNOWN, retarget, topics_hash},
    validate::{check_epoch, validate},
};
use crate::{
    group::{Decision, GroupCoordinator, GroupRecord, GroupState},
    metadata::ClusterImage,
};

/// Most bytes of the records by which a group changes its protocol: they go to the log in one batch, so that a crash leaves all or none.
pub(super) const CONVERSION_BYTES_MAX: usize = 480 << 10;

/// A heartbeat, free of wire versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModernHeartbeat {
    /// The kind of group it is for.
    pub kind: ModernKind,
    /// The group.
    pub group_id: String,
    /// The member; a new one chooses its id itself.
    pub member_id: String,
    /// Its epoch: 0 to join, -1 to leave, -2 to leave for a while (static members).
    pub member_epoch: i32,
    /// `group.instance.id`.
    pub instance_id: Option<String>,
    /// Its rack; `None` if it did not change.
    pub rack_id: Option<String>,
    /// Client id from the request header.
    pub client_id: String,
    /// Where it connects from, as Kafka shows it: `/10.0.0.1`.
    pub client_host: String,
    /// Time to give up partitions, -1 if it did not change.
    pub rebalance_timeout_ms: i32,
    /// Topics by name; `None` if they did not change.
    pub topics: Option<Vec<String>>,
    /// Topics by pattern; `None` if it did not change, empty for none.
    pub regex: Option<String>,
    /// The assignor it prefers; `None` if it did not change.
    pub assignor: Option<String>,
    /// What it owns; `None` if that did not change.
    pub owned: Option<TopicIdPartitions>,
    /// Set if this is the JoinGroup of a member that speaks the classic protocol.
    pub classic: Option<ClassicJoin>,
    /// `consumer.session.timeout.ms` or `share.session.timeout.ms` of the group.
    pub session_timeout_ms: i32,
    /// `consumer.heartbeat.interval.ms` or `share.heartbeat.interval.ms` of the group.
    pub heartbeat_interval_ms: i32,
}

/// What is special in the heartbeat that a classic member's JoinGroup is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicJoin {
    /// What it joins with.
    pub protocols: ClassicProtocols,
    /// It came without an id, and was given one.
    pub is_new_id: bool,
}

/// Answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModernHeartbeatResponse {
    /// The member.
    pub member_id: String,
    /// Its epoch from now on.
    pub member_epoch: i32,
    /// When to come again.
    pub heartbeat_interval_ms: i32,
    /// What it may read; `None` if that did not change.
    pub assignment: Option<TopicIdPartitions>,
}

/// Why a heartbeat was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModernRefusal {
    /// Its code.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

impl ModernRefusal {
    pub(in crate::group) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

pub(super) type Answer = Result<ModernHeartbeatResponse, ModernRefusal>;

/// What a heartbeat comes to.
struct Granted {
    response: ModernHeartbeatResponse,
    /// The static member whose place was taken.
    replaced: Option<String>,
    /// The member as it is from now on.
    member: ModernMember,
    /// What was found out about the group's patterns.
    found: Matches,
}

/// What a heartbeat works on and adds to.
pub(super) struct Turn<'a> {
    pub request: &'a ModernHeartbeat,
    pub records: &'a mut Vec<GroupRecord>,
}

impl Turn<'_> {
    pub fn record(&mut self, change: ModernChange) {
        self.records.push(GroupRecord::Modern(ModernRecord {
            kind: self.request.kind,
            group_id: self.request.group_id.clone(),
            change,
        }));
    }
}

impl GroupCoordinator {
    /// A heartbeat. `image` is the metadata that subscriptions are resolved with.
    pub fn modern_heartbeat(&mut self, now_ms: i64, request: &ModernHeartbeat, image: &ClusterImage) -> Decision<Answer> {
        let mut decision = Decision::default();
        if let Err(refusal) = validate(request, &self.config) {
            return decision.with_response(Err(refusal));
        }
        let response = self.run_heartbeat(now_ms, request, image, &mut decision);
        decision.with_response(response)
    }

    /// A checked heartbeat.
    pub(super) fn run_heartbeat(
        &mut self,
        now_ms: i64,
        request: &ModernHeartbeat,
        image: &ClusterImage,
        decision: &mut Decision,
    ) -> Answer {
        if let Some(response) = self.unchanged(now_ms, request, image) {
            return Ok(response);
        }
        if request.member_epoch < 0 {
            let group = self.modern_group_for(request, image, &mut decision.records)?;
            // By the names of what its members have it may become classic.
            self.resolve(&group, image);
            return self.leave_modern(now_ms, request, &group, decision);
        }
        let granted = self.heartbeat_or_refuse(request, image, decision);
        let granted = granted.and_then(|granted| self.check_sizes(request, decision, &granted.found).map(|()| granted));
        if granted.is_err() {
            decision.records.clear();
        }
        let Granted {
            response,
            replaced,
            member,
            found,
        } = granted?;
        // From here on it is sure: now what the log does not hold may change.
        if let Some(replaced) = &replaced {
            self.forget_timers(request.kind, &request.group_id, replaced);
        }
        self.checked_images.insert(request.group_id.clone(), image.epoch);
        self.renew_modern_timers(now_ms, request, &member);
        self.write_down(now_ms, &request.group_id, found);
        if self.hard.modern(&request.group_id).is_none() {
            self.dissolve_classic(now_ms, request, decision);
        }
        Ok(response)
    }

    /// What could not be read back from the log must not get there, nor a conversion that a crash could cut in two.
    fn check_sizes(&self, request: &ModernHeartbeat, decision: &Decision, found: &Matches) -> Result<(), ModernRefusal> {
        let sizes = decision
            .records
            .iter()
            .map(|record| record.encode_value().map_or(0, |value| value.len()));
        let max = self.config.group_record_bytes_max;
        let group = self.hard.modern(&request.group_id);
        if sizes.clone().any(|size| size > max) || found.brings_too_much(request, group, max) {
            let message = "The subscription or its assignment is too large.";
            return Err(ModernRefusal::new(ErrorCode::InvalidRequest, message));
        }
        let keys: usize = decision.records.iter().map(|record| record.encode_key().len()).sum();
        if self.groups.contains_key(&request.group_id) && keys + sizes.sum::<usize>() > CONVERSION_BYTES_MAX {
            let message = format!("Classic group {} is too large to be upgraded with members in it.", request.group_id);
            return Err(ModernRefusal::new(ErrorCode::GroupIdNotFound, message));
        }
        Ok(())
    }

    /// What the heartbeat of a member that stays comes to. Only caches change here.
    fn heartbeat_or_refuse(
        &mut self,
        request: &ModernHeartbeat,
        image: &ClusterImage,
        decision: &mut Decision,
    ) -> Result<Granted, ModernRefusal> {
        let group = self.modern_group_for(request, image, &mut decision.records)?;
        let mut turn = Turn {
            request,
            records: &mut decision.records,
        };
        let (replaced, member) = self.find_member(&group, request)?;
        let mut group = group;
        if let Some(replaced) = &replaced {
            take_over(&mut turn, &mut group, replaced);
        }
        let updated = updated_subscription(request, member.as_ref());
        let is_new = member.is_none();
        let before = member.clone().unwrap_or_default();
        let is_new_id = is_new || replaced.is_some();
        if is_new_id || updated != before.subscription {
            turn.record(ModernChange::Member(request.member_id.clone(), Some(updated.clone())));
        }
        // A new member is one that wanted nothing until now.
        let wants_topics = updated.topics != before.subscription.topics;
        let (old_regex, new_regex) = (before.subscription.regex.as_ref(), updated.regex.as_ref());
        let is_other = wants_topics || old_regex != new_regex;
        // Another assignor is used from the next epoch on, and makes none.
        let wants_other = group.epoch == 0 || wants_topics || group.makes_epoch(old_regex, new_regex);
        // Compared is what was wanted until now, with new metadata: a pattern that is not resolved yet makes its epoch when it is.
        group.members.insert(request.member_id.clone(), before.clone());
        let is_checked = self.checked_images.get(&request.group_id) == Some(&image.epoch) && group.topics_hash != TOPICS_UNKNOWN;
        let are_topics_other = !is_checked && topics_hash(&self.resolve(&group, image).0) != group.topics_hash;
        group.members.insert(
            request.member_id.clone(),
            ModernMember {
                subscription: updated,
                current: before.current.clone(),
            },
        );
        forget_regexes(&mut turn, &mut group);
        let (topics, subscriptions) = self.resolve(&group, image);
        let hash = topics_hash(&topics);
        if wants_other || are_topics_other {
            // An epoch without a hash was made for what is different already.
            group.epoch += i32::from(wants_other || group.topics_hash != TOPICS_UNKNOWN);
            group.topics_hash = hash;
            turn.record(ModernChange::Group(Some((group.epoch, hash))));
        }
        if group.epoch > group.assignment_epoch {
            retarget(&mut turn, &mut group, &self.config, &topics, &subscriptions);
        }
        let mut target = group.target.get(&request.member_id).cloned().unwrap_or_default();
        let wanted = subscriptions.get(&request.member_id);
        if group.kind == ModernKind::Consumer {
            target.retain(|topic, _| wanted.is_some_and(|wanted| wanted.contains(topic)));
        }
        let (owned, chosen) = (request.owned.as_ref(), wanted.filter(|_| is_other));
        let next = next_assignment(&group, &request.member_id, &before.current, &target, owned, chosen);
        let found = self.new_matches(&group, &subscriptions, image);
        if next != before.current || is_new_id {
            turn.record(ModernChange::Current(request.member_id.clone(), Some(next.clone())));
        }
        let tells = request.member_epoch == 0 || is_full(request) || next.assigned != before.current.assigned;
        let mut member = group.members.remove(&request.member_id).unwrap_or_default();
        member.current = next;
        let response = ModernHeartbeatResponse {
            member_id: request.member_id.clone(),
            member_epoch: member.current.epoch,
            heartbeat_interval_ms: request.heartbeat_interval_ms,
            assignment: tells.then(|| member.current.assigned.clone()),
        };
        Ok(Granted {
            response,
            replaced,
            member,
            found,
        })
    }

    /// The answer to a member that has all it should have and says nothing new: most heartbeats.
    fn unchanged(&mut self, now_ms: i64, request: &ModernHeartbeat, image: &ClusterImage) -> Option<ModernHeartbeatResponse> {
        let group = self.hard.modern(&request.group_id).filter(|group| group.kind == request.kind)?;
        let member = group.members.get(&request.member_id)?;
        let (subscription, current) = (&member.subscription, &member.current);
        let is_settled = current.state == MemberState::Stable
            && [request.member_epoch, group.epoch, group.assignment_epoch] == [current.epoch; 3]
            && self.checked_images.get(&request.group_id) == Some(&image.epoch);
        let says_nothing = subscription.classic.is_none()
            && request.topics.is_none()
            && request.regex.is_none()
            && request.assignor.is_none()
            && request.rack_id.is_none()
            && request.rebalance_timeout_ms < 0
            && request.instance_id == subscription.instance_id;
        if request.member_epoch <= 0 || !is_settled || !says_nothing {
            return None;
        }
        let key = session_key(request.kind, &request.group_id, &request.member_id);
        self.timers.schedule(key, now_ms.saturating_add(request.session_timeout_ms.into()));
        Some(ModernHeartbeatResponse {
            member_id: request.member_id.clone(),
            member_epoch: request.member_epoch,
            heartbeat_interval_ms: request.heartbeat_interval_ms,
            assignment: None,
        })
    }

    /// The group, which a member that joins brings into being. An empty classic group makes way.
    fn modern_group_for(
        &mut self,
        request: &ModernHeartbeat,
        image: &ClusterImage,
        records: &mut Vec<GroupRecord>,
    ) -> Result<ModernGroup, ModernRefusal> {
        let group_id = &request.group_id;
        if let Some(group) = self.hard.modern(group_id) {
            if group.kind == request.kind {
                return Ok(group.clone());
            }
            return Err(not_a(request.kind, group_id));
        } else if self.hard.streams(group_id).is_some() {
            return Err(not_a(request.kind, group_id));
        } else if self.state_of(group_id) != GroupState::Dead {
            if request.member_epoch != 0 || request.kind == ModernKind::Share {
                return Err(not_a(request.kind, group_id));
            }
            if self.state_of(group_id) != GroupState::Empty {
                return self.upgraded(request, image, records);
            }
            // Groups that only ever had offsets have no record.
            if self.groups.contains_key(group_id) {
                records.push(GroupRecord::Group {
                    group_id: group_id.clone(),
                    value: None,
                });
            }
        }
        if request.member_epoch != 0 {
            let message = format!("Group {group_id} not found.");
            return Err(ModernRefusal::new(ErrorCode::GroupIdNotFound, message));
        }
        Ok(ModernGroup::new(request.kind))
    }

    /// The member that speaks, and the static member that it replaces.
    fn find_member(&self, group: &ModernGroup, request: &ModernHeartbeat) -> Result<(Option<String>, Option<ModernMember>), ModernRefusal> {
        if let Some(classic) = &request.classic {
            return self.find_classic_member(group, request, classic);
        }
        let unknown = || unknown_member(request);
        if let Some(instance_id) = &request.instance_id {
            let holder = group.static_member(instance_id);
            if request.member_epoch == 0 {
                return match holder {
                    Some((id, member)) if *id != request.member_id => {
                        // A classic one does not say goodbye when it stops.
                        if member.current.epoch != STATIC_LEAVE_EPOCH && member.subscription.classic.is_none() {
                            let message = format!(
                                "Static member {} with instance id {instance_id} was fenced by the group coordinator because the instance id is still owned by member {id}.",
                                request.member_id
                            );
                            return Err(ModernRefusal::new(ErrorCode::UnreleasedInstanceId, message));
                        }
                        let mut taken = member.clone();
                        taken.current.epoch = 0;
                        Ok((Some(id.clone()), Some(taken)))
                    }
                    Some((_, member)) => Ok((None, Some(rejoining(member)))),
                    None => self.room_for_one(group).map(|()| (None, None)),
                };
            }
            match holder {
                None => return Err(unknown()),
                Some((id, _)) if *id != request.member_id => {
                    let message = format!(
                        "Static member {} with instance id {instance_id} was fenced by member {id}.",
                        request.member_id
                    );
                    return Err(ModernRefusal::new(ErrorCode::FencedInstanceId, message));
                }
                Some(_) => {}
            }
        }
        let Some(member) = group.members.get(&request.member_id) else {
            if request.member_epoch == 0 {
                return self.room_for_one(group).map(|()| (None, None));
            }
            return Err(unknown());
        };
        if request.member_epoch == 0 {
            return Ok((None, Some(rejoining(member))));
        }
        check_epoch(request, &member.current)?;
        Ok((None, Some(member.clone())))
    }

    pub(super) fn room_for_one(&self, group: &ModernGroup) -> Result<(), ModernRefusal> {
        let max = match group.kind {
            ModernKind::Consumer => self.config.consumer_members_max,
            ModernKind::Share => self.config.share_members_max,
        };
        if group.members.len() < max {
            return Ok(());
        }
        let message = format!("The group has reached its maximum capacity of {max} members.");
        Err(ModernRefusal::new(ErrorCode::GroupMaxSizeReached, message))
    }
}

/// A static member comes back under a new id: it takes over what the old one had.
fn take_over(turn: &mut Turn<'_>, group: &mut ModernGroup, replaced: &str) {
    let id = || replaced.to_owned();
    if let Some(target) = group.target.remove(replaced) {
        turn.record(ModernChange::Target(turn.request.member_id.clone(), Some(target.clone())));
        group.target.insert(turn.request.member_id.clone(), target);
    }
    group.members.remove(replaced);
    turn.record(ModernChange::Current(id(), None));
    turn.record(ModernChange::Target(id(), None));
    turn.record(ModernChange::Member(id(), None));
}

/// A member that joins again under its id starts over; what it had is still its own.
fn rejoining(member: &ModernMember) -> ModernMember {
    let mut member = member.clone();
    member.current.epoch = 0;
    member
}

fn updated_subscription(request: &ModernHeartbeat, member: Option<&ModernMember>) -> Subscription {
    let mut updated = member.map(|member| member.subscription.clone()).unwrap_or_default();
    updated.client_id.clone_from(&request.client_id);
    updated.client_host.clone_from(&request.client_host);
    if request.instance_id.is_some() {
        updated.instance_id.clone_from(&request.instance_id);
    }
    if request.rack_id.is_some() {
        updated.rack_id.clone_from(&request.rack_id);
    }
    if request.rebalance_timeout_ms >= 0 {
        updated.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(topics) = &request.topics {
        updated.topics = topics.iter().cloned().collect();
    }
    if let Some(regex) = &request.regex {
        updated.regex = Some(regex.clone()).filter(|regex| !regex.is_empty());
    }
    if request.assignor.is_some() {
        updated.assignor.clone_from(&request.assignor);
    }
    updated.classic = request.classic.as_ref().map(|classic| classic.protocols.clone());
    updated
}

/// Everything is said, as in a first heartbeat or after an error.
fn is_full(request: &ModernHeartbeat) -> bool {
    match request.kind {
        ModernKind::Consumer => {
            request.rebalance_timeout_ms >= 0 && (request.topics.is_some() || request.regex.is_some()) && request.owned.is_some()
        }
        ModernKind::Share => request.topics.is_some(),
    }
}

pub(super) fn unknown_member(request: &ModernHeartbeat) -> ModernRefusal {
    let (member_id, group_id) = (&request.member_id, &request.group_id);
    let message = format!("Member {member_id} is not a member of group {group_id}.");
    ModernRefusal::new(ErrorCode::UnknownMemberId, message)
}

fn not_a(kind: ModernKind, group_id: &str) -> ModernRefusal {
    let kind = kind.name();
    ModernRefusal::new(ErrorCode::GroupIdNotFound, format!("Group {group_id} is not a {kind} group."))
}
