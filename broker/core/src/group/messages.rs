//! Requests and answers of the coordinator, free of wire versions: the handlers convert.
//!
//! Strings are never null here. A handler turns a null group id into INVALID_GROUP_ID itself.

use bytes::Bytes;
use millstream_protocol::error_code::ErrorCode;
use uuid::Uuid;

use super::GroupState;

/// JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGroupRequest {
    /// The group.
    pub group_id: String,
    /// The member, empty if it has no id yet.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<String>,
    /// Client id from the request header; the prefix of a new member id.
    pub client_id: String,
    /// Where the client connects from, as Kafka shows it: `/10.0.0.1`.
    pub client_host: String,
    /// `consumer`, `connect`, …
    pub protocol_type: String,
    /// Protocols the member can do, with their metadata, most wanted first.
    pub protocols: Vec<(String, Bytes)>,
    /// Silence after which the member is removed.
    pub session_timeout_ms: i32,
    /// How long a rebalance waits for the member; below 0 (JoinGroup v0) means the session timeout.
    pub rebalance_timeout_ms: i32,
    /// Fresh randomness for a member id, from the shell.
    pub member_uuid: Uuid,
    /// JoinGroup v4 and later: a dynamic member without id is told one first (MEMBER_ID_REQUIRED, KIP-394).
    pub requires_known_member_id: bool,
    /// JoinGroup v9 and later: a restarted static leader stays leader and is told to skip the assignment (KIP-814).
    pub supports_skipping_assignment: bool,
}

/// Answer to JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGroupResponse {
    /// Outcome.
    pub error_code: ErrorCode,
    /// Generation, -1 on error.
    pub generation_id: i32,
    /// Protocol type of the group.
    pub protocol_type: Option<String>,
    /// Selected protocol.
    pub protocol_name: Option<String>,
    /// Member id of the leader, empty on error.
    pub leader: String,
    /// The leader must not compute an assignment.
    pub skip_assignment: bool,
    /// The member's id.
    pub member_id: String,
    /// All members, for the leader only.
    pub members: Vec<JoinGroupMember>,
}

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGroupMember {
    /// Its id.
    pub member_id: String,
    /// Its `group.instance.id`.
    pub group_instance_id: Option<String>,
    /// Its metadata for the selected protocol.
    pub metadata: Bytes,
}

impl JoinGroupResponse {
    /// An error for the member.
    pub fn error(error_code: ErrorCode, member_id: impl Into<String>) -> Self {
        Self {
            error_code,
            generation_id: -1,
            protocol_type: None,
            protocol_name: None,
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.into(),
            members: Vec::new(),
        }
    }
}

/// SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncGroupRequest {
    /// The group.
    pub group_id: String,
    /// Generation from the answer to JoinGroup.
    pub generation_id: i32,
    /// The member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<String>,
    /// Expected protocol type, from v5.
    pub protocol_type: Option<String>,
    /// Expected protocol, from v5.
    pub protocol_name: Option<String>,
    /// Member id and assignment, from the leader.
    pub assignments: Vec<(String, Bytes)>,
}

/// Answer to SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncGroupResponse {
    /// Outcome.
    pub error_code: ErrorCode,
    /// Protocol type of the group.
    pub protocol_type: Option<String>,
    /// Protocol of the group.
    pub protocol_name: Option<String>,
    /// What the leader gave the member.
    pub assignment: Bytes,
}

impl SyncGroupResponse {
    /// An error.
    pub fn error(error_code: ErrorCode) -> Self {
        Self {
            error_code,
            protocol_type: None,
            protocol_name: None,
            assignment: Bytes::new(),
        }
    }
}

/// Heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatRequest {
    /// The group.
    pub group_id: String,
    /// The member's generation.
    pub generation_id: i32,
    /// The member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<String>,
}

/// LeaveGroup, always in its batched form; a handler turns v0–v2 into a batch of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveGroupRequest {
    /// The group.
    pub group_id: String,
    /// Who leaves.
    pub members: Vec<LeavingMember>,
}

/// One member that leaves, or is removed by an administrator (instance id only).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeavingMember {
    /// The member, empty when named by instance id only.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<String>,
}

/// Answer to LeaveGroup. With v0–v2 a handler reports the single member's error as the error of the response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveGroupResponse {
    /// Outcome for the request as a whole.
    pub error_code: ErrorCode,
    /// In request order: who, and the outcome.
    pub members: Vec<(LeavingMember, ErrorCode)>,
}

/// OffsetCommit, and TxnOffsetCommit.
///
/// Whether a topic exists and may be read is checked by the handler, which leaves out the partitions it refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommitRequest {
    /// The group; the empty id is allowed here, for old simple consumers.
    pub group_id: String,
    /// The member's generation; -1 for a commit from outside the group.
    pub generation_id: i32,
    /// The member; empty for a commit from outside the group.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<String>,
    /// Retention of v2–v4, if it is not -1.
    pub retention_time_ms: Option<i64>,
    /// OffsetCommit v9 and later: a group that does not exist is GROUP_ID_NOT_FOUND and not ILLEGAL_GENERATION (KIP-848).
    pub knows_group_id_not_found: bool,
    /// What to commit.
    pub topics: Vec<(String, Vec<OffsetCommitPartition>)>,
}

/// One offset to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommitPartition {
    /// The partition.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// Leader epoch of the last record read, -1 if unknown.
    pub leader_epoch: i32,
    /// The client's own text; null becomes empty, as in Kafka.
    pub metadata: Option<String>,
}

/// An outcome per topic and partition, in request order.
pub type PartitionOutcomes = Vec<(String, Vec<(i32, ErrorCode)>)>;

/// OffsetFetch for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetFetchRequest {
    /// The group.
    pub group_id: String,
    /// Topics and partitions, or `None` for all that have a committed offset.
    pub topics: Option<Vec<(String, Vec<i32>)>>,
    /// The member that asks, and its epoch, from version 9 on (KIP-848); `None` from outside the group.
    pub member: Option<(String, i32)>,
    /// Answer UNSTABLE_OFFSET_COMMIT where an open transaction holds an offset (KIP-447).
    pub require_stable: bool,
}

/// Answer to OffsetFetch for one group: topics in request order, or sorted for "all".
pub type OffsetFetchResponse = Vec<(String, Vec<FetchedOffset>)>;

/// The committed offset of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The partition.
    pub partition: i32,
    /// The committed offset, -1 if there is none.
    pub offset: i64,
    /// Committed leader epoch, -1 if unknown.
    pub leader_epoch: i32,
    /// Committed text.
    pub metadata: String,
    /// Outcome.
    pub error_code: ErrorCode,
}

/// Answer to OffsetDelete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetDeleteResponse {
    /// Outcome for the group.
    pub error_code: ErrorCode,
    /// Outcome per partition; empty if the group's outcome is an error.
    pub topics: PartitionOutcomes,
}

/// A group as DescribeGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// GROUP_ID_NOT_FOUND for an unknown group. A handler sends it from v6 on; before that, the Dead state alone says so.
    pub error_code: ErrorCode,
    /// Whether a group of another kind has the id: to a request about classic groups it is not there.
    pub is_other_kind: bool,
    /// The group.
    pub group_id: String,
    /// Its state.
    pub state: GroupState,
    /// Its protocol type, empty if it never had members.
    pub protocol_type: String,
    /// Its protocol when stable, else empty.
    pub protocol: String,
    /// Its members.
    pub members: Vec<MemberDescription>,
}

/// A member as DescribeGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    /// Its id.
    pub member_id: String,
    /// Its `group.instance.id`.
    pub group_instance_id: Option<String>,
    /// Its client id.
    pub client_id: String,
    /// Its host.
    pub client_host: String,
    /// Its metadata when the group is stable, else empty.
    pub metadata: Bytes,
    /// Its assignment when the group is stable, else empty.
    pub assignment: Bytes,
}

/// A group as ListGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group.
    pub group_id: String,
    /// Its protocol type, empty if it never had members.
    pub protocol_type: String,
    /// Name of its state.
    pub state: &'static str,
    /// `classic`, `consumer` or `share`.
    pub group_type: &'static str,
}
