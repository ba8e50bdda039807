//! What administrators see of consumer and share groups, and what commits and fetches of offsets check.

use millstream_protocol::ErrorCode;

use super::{ModernChange, ModernKind, ModernMember, ModernRecord, ModernRefusal, TopicIdPartitions, target::preferred_assignor};
use crate::group::{Decision, GroupCoordinator, GroupRecord, GroupState};

/// A group as ConsumerGroupDescribe and ShareGroupDescribe show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModernDescription {
    /// The group.
    pub group_id: String,
    /// Name of its state.
    pub state: &'static str,
    /// Its epoch.
    pub epoch: i32,
    /// The epoch of its target.
    pub assignment_epoch: i32,
    /// The assignor in use.
    pub assignor: &'static str,
    /// Its members.
    pub members: Vec<ModernMemberDescription>,
}

/// A member with its id and target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModernMemberDescription {
    /// Its id.
    pub member_id: String,
    /// What the log says of it.
    pub member: ModernMember,
    /// What it is to have.
    pub target: TopicIdPartitions,
}

impl GroupCoordinator {
    /// Describes a group of this kind.
    pub fn describe_modern(&self, kind: ModernKind, group_id: &str) -> Result<ModernDescription, ModernRefusal> {
        let group = self.hard.modern(group_id).filter(|group| group.kind == kind);
        let group = group.ok_or_else(|| self.no_such_group(kind.name(), group_id))?;
        let members = group.members.iter().map(|(member_id, member)| ModernMemberDescription {
            member_id: member_id.clone(),
            member: member.clone(),
            target: group.target.get(member_id).cloned().unwrap_or_default(),
        });
        Ok(ModernDescription {
            group_id: group_id.to_owned(),
            state: group.state().name(),
            epoch: group.epoch,
            assignment_epoch: group.assignment_epoch,
            assignor: preferred_assignor(group, &self.config),
            members: members.collect(),
        })
    }

    /// Makes sure that there is a share group without members, so that its offsets can be set before anybody reads.
    pub fn create_empty_share_group(&self, group_id: &str) -> Decision<Result<(), ErrorCode>> {
        let outcome = match self.hard.modern(group_id) {
            Some(group) if group.kind == ModernKind::Share && group.members.is_empty() => Ok(()),
            Some(group) if group.kind == ModernKind::Share => Err(ErrorCode::NonEmptyGroup),
            None if self.state_of(group_id) == GroupState::Dead => {
                return Decision {
                    records: vec![GroupRecord::Modern(ModernRecord {
                        kind: ModernKind::Share,
                        group_id: group_id.to_owned(),
                        change: ModernChange::Group(Some((0, 0))),
                    })],
                    ..Decision::<()>::default()
                }
                .with_response(Ok(()));
            }
            // It is of another kind.
            Some(_) | None => Err(ErrorCode::GroupIdNotFound),
        };
        Decision::<()>::default().with_response(outcome)
    }

    /// Why there is no group of a kind.
    pub(in crate::group) fn no_such_group(&self, kind: &str, group_id: &str) -> ModernRefusal {
        let message = match self.state_of(group_id) {
            GroupState::Dead => format!("Group {group_id} not found."),
            _ => format!("Group {group_id} is not a {kind} group."),
        };
        ModernRefusal::new(ErrorCode::GroupIdNotFound, message)
    }

    /// Whether a member may commit or fetch offsets under this epoch.
    pub(in crate::group) fn check_member_epoch(
        &self,
        group_id: &str,
        member_id: &str,
        epoch: i32,
        is_commit: bool,
    ) -> Result<(), ErrorCode> {
        let Some(group) = self.hard.modern(group_id) else { return Ok(()) };
        if group.kind == ModernKind::Share && is_commit {
            // Its offsets are elsewhere.
            return Err(ErrorCode::GroupIdNotFound);
        }
        if is_commit && epoch < 0 && group.members.is_empty() {
            // From outside the group: an administrator, or a consumer that assigns itself.
            return Ok(());
        }
        let member = group.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if member.current.epoch == epoch {
            Ok(())
        } else if member.subscription.classic.is_some() {
            Err(ErrorCode::IllegalGeneration)
        } else {
            Err(ErrorCode::StaleMemberEpoch)
        }
    }

    /// Whether this is a member that speaks the new protocol.
    pub(in crate::group) fn is_modern_member(&self, group_id: &str, member_id: &str) -> bool {
        let member = self.hard.modern(group_id).and_then(|group| group.members.get(member_id));
        member.is_some_and(|member| member.subscription.classic.is_none())
    }

    /// Whether some member of a consumer group subscribes to a topic.
    pub(in crate::group) fn is_subscribed_modern(&self, group_id: &str, topic: &str) -> bool {
        let Some(group) = self.hard.modern(group_id) else { return false };
        let by_name = group.members.values().any(|member| member.subscription.topics.contains(topic));
        by_name || group.regexes.values().any(|resolved| resolved.topics.contains(topic))
    }

    /// A classic group takes the place of an empty consumer or streams group; one with members is joined, and a share group stays.
    pub(in crate::group) fn make_way_for_classic(&mut self, group_id: &str, records: &mut Vec<GroupRecord>) -> Result<(), ErrorCode> {
        if let Some(group) = self.hard.streams(group_id) {
            if !group.members.is_empty() {
                return Err(ErrorCode::InconsistentGroupProtocol);
            }
            self.bury_streams(group_id, records);
            return Ok(());
        }
        match self.hard.modern(group_id) {
            None => Ok(()),
            Some(group) if group.kind == ModernKind::Consumer && group.members.is_empty() => {
                self.bury_modern(group_id, records);
                Ok(())
            }
            Some(_) => Err(ErrorCode::InconsistentGroupProtocol),
        }
    }

    /// Removes an empty group of any kind.
    pub(in crate::group) fn bury_modern(&mut self, group_id: &str, records: &mut Vec<GroupRecord>) {
        let Some(group) = self.hard.modern(group_id) else { return };
        assert!(group.members.is_empty(), "group {group_id} is deleted with members");
        let kind = group.kind;
        self.checked_images.remove(group_id);
        // Without members there are neither targets nor patterns, unless a crash cut the records of the last ones who left.
        let targets = group.target.keys().map(|id| ModernChange::Target(id.clone(), None));
        let regexes = group.regexes.keys().map(|regex| ModernChange::Regex(regex.clone(), None));
        let group = [ModernChange::TargetEpoch(None), ModernChange::Group(None)];
        for change in targets.chain(regexes).chain(group) {
            records.push(GroupRecord::Modern(ModernRecord {
                kind,
                group_id: group_id.to_owned(),
                change,
            }));
        }
    }
}
