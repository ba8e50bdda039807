//! The error codes of the Kafka protocol.

mod text;

use std::fmt;

/// What a response says about the outcome of a request or a part of it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(i16)]
pub enum ErrorCode {
    /// The server failed in an unexpected way.
    UnknownServerError = -1,
    /// No error.
    #[default]
    None = 0,
    /// The offset is outside the range of offsets kept for the partition.
    OffsetOutOfRange = 1,
    /// The record batch does not match its checksum or is malformed.
    CorruptMessage = 2,
    /// This broker does not host the partition, or it does not exist.
    UnknownTopicOrPartition = 3,
    /// The fetch size is invalid.
    InvalidFetchSize = 4,
    /// The partition has no leader at the moment.
    LeaderNotAvailable = 5,
    /// This broker is not the leader or a follower of the partition.
    NotLeaderOrFollower = 6,
    /// The request timed out.
    RequestTimedOut = 7,
    /// The broker is not available.
    BrokerNotAvailable = 8,
    /// The replica is not available.
    ReplicaNotAvailable = 9,
    /// The record batch is larger than the maximum allowed.
    MessageTooLarge = 10,
    /// The controller moved to another broker.
    StaleControllerEpoch = 11,
    /// The metadata of the committed offset is too large.
    OffsetMetadataTooLarge = 12,
    /// The connection was lost before a response arrived.
    NetworkException = 13,
    /// The coordinator is still loading its state.
    CoordinatorLoadInProgress = 14,
    /// The coordinator is not available.
    CoordinatorNotAvailable = 15,
    /// This broker is not the coordinator.
    NotCoordinator = 16,
    /// The topic name is invalid.
    InvalidTopicException = 17,
    /// The request holds more records than a segment can take.
    RecordListTooLarge = 18,
    /// Fewer replicas are in sync than the topic requires.
    NotEnoughReplicas = 19,
    /// The records were written, but too few replicas were in sync.
    NotEnoughReplicasAfterAppend = 20,
    /// The value of required acks is invalid.
    InvalidRequiredAcks = 21,
    /// The generation of the group is not the current one.
    IllegalGeneration = 22,
    /// The group's members use another protocol.
    InconsistentGroupProtocol = 23,
    /// The group id is invalid.
    InvalidGroupId = 24,
    /// The coordinator does not know this member.
    UnknownMemberId = 25,
    /// The session timeout is outside the allowed range.
    InvalidSessionTimeout = 26,
    /// The group is rebalancing, so the member must rejoin.
    RebalanceInProgress = 27,
    /// The offset commit is too large.
    InvalidCommitOffsetSize = 28,
    /// Access to the topic is denied.
    TopicAuthorizationFailed = 29,
    /// Access to the group is denied.
    GroupAuthorizationFailed = 30,
    /// Access to the cluster is denied.
    ClusterAuthorizationFailed = 31,
    /// The timestamp of the record is outside the allowed range.
    InvalidTimestamp = 32,
    /// The SASL mechanism is not enabled.
    UnsupportedSaslMechanism = 33,
    /// The request is not allowed in this state of authentication.
    IllegalSaslState = 34,
    /// The version of the request is not supported.
    UnsupportedVersion = 35,
    /// A topic with this name exists already.
    TopicAlreadyExists = 36,
    /// The number of partitions is invalid.
    InvalidPartitions = 37,
    /// The replication factor is invalid.
    InvalidReplicationFactor = 38,
    /// The replica assignment is invalid.
    InvalidReplicaAssignment = 39,
    /// The configuration is invalid.
    InvalidConfig = 40,
    /// This broker is not the controller.
    NotController = 41,
    /// The request is malformed or contradicts itself.
    InvalidRequest = 42,
    /// The record format of the partition does not support this request.
    UnsupportedForMessageFormat = 43,
    /// The request breaks a policy.
    PolicyViolation = 44,
    /// The sequence number of the batch does not follow the last one.
    OutOfOrderSequenceNumber = 45,
    /// The sequence number of the batch was seen before.
    DuplicateSequenceNumber = 46,
    /// The producer epoch is older than the current one.
    InvalidProducerEpoch = 47,
    /// The transaction is in a state that does not allow this.
    InvalidTxnState = 48,
    /// The producer id does not belong to the transactional id.
    InvalidProducerIdMapping = 49,
    /// The transaction timeout is above the maximum allowed.
    InvalidTransactionTimeout = 50,
    /// Another operation on this transaction is still in progress.
    ConcurrentTransactions = 51,
    /// The transaction coordinator was replaced by a newer one.
    TransactionCoordinatorFenced = 52,
    /// Access to the transactional id is denied.
    TransactionalIdAuthorizationFailed = 53,
    /// Security features are disabled.
    SecurityDisabled = 54,
    /// The operation was not attempted because another one in the batch failed.
    OperationNotAttempted = 55,
    /// The log directory failed while it was accessed.
    KafkaStorageError = 56,
    /// The log directory does not exist.
    LogDirNotFound = 57,
    /// Authentication failed.
    SaslAuthenticationFailed = 58,
    /// The broker holds no state for this producer id.
    UnknownProducerId = 59,
    /// A reassignment of the partition is in progress.
    ReassignmentInProgress = 60,
    /// Delegation tokens are disabled.
    DelegationTokenAuthDisabled = 61,
    /// The delegation token does not exist.
    DelegationTokenNotFound = 62,
    /// The delegation token belongs to someone else.
    DelegationTokenOwnerMismatch = 63,
    /// Delegation tokens are not allowed on this connection.
    DelegationTokenRequestNotAllowed = 64,
    /// Access to the delegation token is denied.
    DelegationTokenAuthorizationFailed = 65,
    /// The delegation token is expired.
    DelegationTokenExpired = 66,
    /// The principal type is not supported.
    InvalidPrincipalType = 67,
    /// The group is not empty.
    NonEmptyGroup = 68,
    /// The group does not exist.
    GroupIdNotFound = 69,
    /// The fetch session does not exist.
    FetchSessionIdNotFound = 70,
    /// The fetch session epoch is invalid.
    InvalidFetchSessionEpoch = 71,
    /// The leader has no listener that matches this one.
    ListenerNotFound = 72,
    /// Topic deletion is disabled.
    TopicDeletionDisabled = 73,
    /// The leader epoch is older than the current one.
    FencedLeaderEpoch = 74,
    /// The leader epoch is newer than the broker knows.
    UnknownLeaderEpoch = 75,
    /// The compression type is not supported.
    UnsupportedCompressionType = 76,
    /// The broker epoch is not the current one.
    StaleBrokerEpoch = 77,
    /// The leader has not caught up to this offset yet.
    OffsetNotAvailable = 78,
    /// The member must join again with the id it was given.
    MemberIdRequired = 79,
    /// The preferred leader is not available.
    PreferredLeaderNotAvailable = 80,
    /// The group is full.
    GroupMaxSizeReached = 81,
    /// Another member uses the same instance id.
    FencedInstanceId = 82,
    /// No eligible leader is available.
    EligibleLeadersNotAvailable = 83,
    /// The election is not needed, the leader is in place.
    ElectionNotNeeded = 84,
    /// No reassignment is in progress.
    NoReassignmentInProgress = 85,
    /// The group is subscribed to the topic.
    GroupSubscribedToTopic = 86,
    /// A record failed validation.
    InvalidRecord = 87,
    /// Some offsets are not stable until their transaction ends.
    UnstableOffsetCommit = 88,
    /// The request rate exceeds the quota.
    ThrottlingQuotaExceeded = 89,
    /// A newer producer uses the same transactional id.
    ProducerFenced = 90,
    /// The resource does not exist.
    ResourceNotFound = 91,
    /// The resource exists already.
    DuplicateResource = 92,
    /// The credential is not acceptable.
    UnacceptableCredential = 93,
    /// The sender's voters differ from ours.
    InconsistentVoterSet = 94,
    /// The update's version is invalid.
    InvalidUpdateVersion = 95,
    /// The features could not be updated.
    FeatureUpdateFailed = 96,
    /// The principal could not be read.
    PrincipalDeserializationFailure = 97,
    /// The snapshot does not exist.
    SnapshotNotFound = 98,
    /// The position is outside the snapshot.
    PositionOutOfRange = 99,
    /// The broker does not know the topic id.
    UnknownTopicId = 100,
    /// Another broker is registered with this id.
    DuplicateBrokerRegistration = 101,
    /// The broker id is not registered.
    BrokerIdNotRegistered = 102,
    /// The topic id does not match the one in the log.
    InconsistentTopicId = 103,
    /// The cluster id does not match.
    InconsistentClusterId = 104,
    /// The transactional id does not exist.
    TransactionalIdNotFound = 105,
    /// The session mixes requests with and without topic ids.
    FetchSessionTopicIdError = 106,
    /// The replica cannot join the in-sync replicas.
    IneligibleReplica = 107,
    /// A new leader was elected.
    NewLeaderElected = 108,
    /// The offset was moved to tiered storage.
    OffsetMovedToTieredStorage = 109,
    /// The member epoch is fenced, so the member must rejoin.
    FencedMemberEpoch = 110,
    /// Another member still holds the instance id.
    UnreleasedInstanceId = 111,
    /// The assignor is not supported.
    UnsupportedAssignor = 112,
    /// The member epoch is not the current one.
    StaleMemberEpoch = 113,
    /// The request was sent to an endpoint of the wrong type.
    MismatchedEndpointType = 114,
    /// The endpoint type is not supported.
    UnsupportedEndpointType = 115,
    /// The controller id is unknown.
    UnknownControllerId = 116,
    /// The subscription id is unknown.
    UnknownSubscriptionId = 117,
    /// The telemetry is too large.
    TelemetryTooLarge = 118,
    /// The registration is invalid.
    InvalidRegistration = 119,
    /// The transaction failed and must be aborted.
    TransactionAbortable = 120,
    /// The record is in a state that does not allow this.
    InvalidRecordState = 121,
    /// The share session does not exist.
    ShareSessionNotFound = 122,
    /// The share session epoch is invalid.
    InvalidShareSessionEpoch = 123,
    /// The state epoch is older than the current one.
    FencedStateEpoch = 124,
    /// The voter's key is not the one registered.
    InvalidVoterKey = 125,
    /// The voter is part of the quorum already.
    DuplicateVoter = 126,
    /// The voter is not part of the quorum.
    VoterNotFound = 127,
    /// The regular expression is invalid.
    InvalidRegularExpression = 128,
    /// The client must bootstrap again.
    RebootstrapRequired = 129,
    /// The topology is invalid.
    StreamsInvalidTopology = 130,
    /// The topology epoch is invalid.
    StreamsInvalidTopologyEpoch = 131,
    /// The topology epoch is older than the current one.
    StreamsTopologyFenced = 132,
    /// The broker has no room for another share session.
    ShareSessionLimitReached = 133,
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The error with this number; none if Kafka has no such error.
    pub const fn from_code(code: i16) -> Option<Self> {
        Some(match code {
            -1 => Self::UnknownServerError,
            0 => Self::None,
            1 => Self::OffsetOutOfRange,
            2 => Self::CorruptMessage,
            3 => Self::UnknownTopicOrPartition,
            4 => Self::InvalidFetchSize,
            5 => Self::LeaderNotAvailable,
            6 => Self::NotLeaderOrFollower,
            7 => Self::RequestTimedOut,
            8 => Self::BrokerNotAvailable,
            9 => Self::ReplicaNotAvailable,
            10 => Self::MessageTooLarge,
            11 => Self::StaleControllerEpoch,
            12 => Self::OffsetMetadataTooLarge,
            13 => Self::NetworkException,
            14 => Self::CoordinatorLoadInProgress,
            15 => Self::CoordinatorNotAvailable,
            16 => Self::NotCoordinator,
            17 => Self::InvalidTopicException,
            18 => Self::RecordListTooLarge,
            19 => Self::NotEnoughReplicas,
            20 => Self::NotEnoughReplicasAfterAppend,
            21 => Self::InvalidRequiredAcks,
            22 => Self::IllegalGeneration,
            23 => Self::InconsistentGroupProtocol,
            24 => Self::InvalidGroupId,
            25 => Self::UnknownMemberId,
            26 => Self::InvalidSessionTimeout,
            27 => Self::RebalanceInProgress,
            28 => Self::InvalidCommitOffsetSize,
            29 => Self::TopicAuthorizationFailed,
            30 => Self::GroupAuthorizationFailed,
            31 => Self::ClusterAuthorizationFailed,
            32 => Self::InvalidTimestamp,
            33 => Self::UnsupportedSaslMechanism,
            34 => Self::IllegalSaslState,
            35 => Self::UnsupportedVersion,
            36 => Self::TopicAlreadyExists,
            37 => Self::InvalidPartitions,
            38 => Self::InvalidReplicationFactor,
            39 => Self::InvalidReplicaAssignment,
            40 => Self::InvalidConfig,
            41 => Self::NotController,
            42 => Self::InvalidRequest,
            43 => Self::UnsupportedForMessageFormat,
            44 => Self::PolicyViolation,
            45 => Self::OutOfOrderSequenceNumber,
            46 => Self::DuplicateSequenceNumber,
            47 => Self::InvalidProducerEpoch,
            48 => Self::InvalidTxnState,
            49 => Self::InvalidProducerIdMapping,
            50 => Self::InvalidTransactionTimeout,
            51 => Self::ConcurrentTransactions,
            52 => Self::TransactionCoordinatorFenced,
            53 => Self::TransactionalIdAuthorizationFailed,
            54 => Self::SecurityDisabled,
            55 => Self::OperationNotAttempted,
            56 => Self::KafkaStorageError,
            57 => Self::LogDirNotFound,
            58 => Self::SaslAuthenticationFailed,
            59 => Self::UnknownProducerId,
            60 => Self::ReassignmentInProgress,
            61 => Self::DelegationTokenAuthDisabled,
            62 => Self::DelegationTokenNotFound,
            63 => Self::DelegationTokenOwnerMismatch,
            64 => Self::DelegationTokenRequestNotAllowed,
            65 => Self::DelegationTokenAuthorizationFailed,
            66 => Self::DelegationTokenExpired,
            67 => Self::InvalidPrincipalType,
            68 => Self::NonEmptyGroup,
            69 => Self::GroupIdNotFound,
            70 => Self::FetchSessionIdNotFound,
            71 => Self::InvalidFetchSessionEpoch,
            72 => Self::ListenerNotFound,
            73 => Self::TopicDeletionDisabled,
            74 => Self::FencedLeaderEpoch,
            75 => Self::UnknownLeaderEpoch,
            76 => Self::UnsupportedCompressionType,
            77 => Self::StaleBrokerEpoch,
            78 => Self::OffsetNotAvailable,
            79 => Self::MemberIdRequired,
            80 => Self::PreferredLeaderNotAvailable,
            81 => Self::GroupMaxSizeReached,
            82 => Self::FencedInstanceId,
            83 => Self::EligibleLeadersNotAvailable,
            84 => Self::ElectionNotNeeded,
            85 => Self::NoReassignmentInProgress,
            86 => Self::GroupSubscribedToTopic,
            87 => Self::InvalidRecord,
            88 => Self::UnstableOffsetCommit,
            89 => Self::ThrottlingQuotaExceeded,
            90 => Self::ProducerFenced,
            91 => Self::ResourceNotFound,
            92 => Self::DuplicateResource,
            93 => Self::UnacceptableCredential,
            94 => Self::InconsistentVoterSet,
            95 => Self::InvalidUpdateVersion,
            96 => Self::FeatureUpdateFailed,
            97 => Self::PrincipalDeserializationFailure,
            98 => Self::SnapshotNotFound,
            99 => Self::PositionOutOfRange,
            100 => Self::UnknownTopicId,
            101 => Self::DuplicateBrokerRegistration,
            102 => Self::BrokerIdNotRegistered,
            103 => Self::InconsistentTopicId,
            104 => Self::InconsistentClusterId,
            105 => Self::TransactionalIdNotFound,
            106 => Self::FetchSessionTopicIdError,
            107 => Self::IneligibleReplica,
            108 => Self::NewLeaderElected,
            109 => Self::OffsetMovedToTieredStorage,
            110 => Self::FencedMemberEpoch,
            111 => Self::UnreleasedInstanceId,
            112 => Self::UnsupportedAssignor,
            113 => Self::StaleMemberEpoch,
            114 => Self::MismatchedEndpointType,
            115 => Self::UnsupportedEndpointType,
            116 => Self::UnknownControllerId,
            117 => Self::UnknownSubscriptionId,
            118 => Self::TelemetryTooLarge,
            119 => Self::InvalidRegistration,
            120 => Self::TransactionAbortable,
            121 => Self::InvalidRecordState,
            122 => Self::ShareSessionNotFound,
            123 => Self::InvalidShareSessionEpoch,
            124 => Self::FencedStateEpoch,
            125 => Self::InvalidVoterKey,
            126 => Self::DuplicateVoter,
            127 => Self::VoterNotFound,
            128 => Self::InvalidRegularExpression,
            129 => Self::RebootstrapRequired,
            130 => Self::StreamsInvalidTopology,
            131 => Self::StreamsInvalidTopologyEpoch,
            132 => Self::StreamsTopologyFenced,
            133 => Self::ShareSessionLimitReached,
            _ => return None,
        })
    }

    /// Whether this is [`ErrorCode::None`].
    pub const fn is_none(self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether a client may send the same request again and hope for better.
    pub const fn is_retriable(self) -> bool {
        matches!(
            self,
            Self::CorruptMessage
                | Self::UnknownTopicOrPartition
                | Self::LeaderNotAvailable
                | Self::NotLeaderOrFollower
                | Self::RequestTimedOut
                | Self::ReplicaNotAvailable
                | Self::NetworkException
                | Self::CoordinatorLoadInProgress
                | Self::CoordinatorNotAvailable
                | Self::NotCoordinator
                | Self::NotEnoughReplicas
                | Self::NotEnoughReplicasAfterAppend
                | Self::NotController
                | Self::ConcurrentTransactions
                | Self::KafkaStorageError
                | Self::FetchSessionIdNotFound
                | Self::InvalidFetchSessionEpoch
                | Self::ListenerNotFound
                | Self::FencedLeaderEpoch
                | Self::UnknownLeaderEpoch
                | Self::OffsetNotAvailable
                | Self::PreferredLeaderNotAvailable
                | Self::EligibleLeadersNotAvailable
                | Self::ElectionNotNeeded
                | Self::UnstableOffsetCommit
                | Self::ThrottlingQuotaExceeded
                | Self::UnknownTopicId
                | Self::InconsistentTopicId
                | Self::FetchSessionTopicIdError
                | Self::ShareSessionNotFound
                | Self::InvalidShareSessionEpoch
                | Self::ShareSessionLimitReached
        )
    }
}

impl From<ErrorCode> for i16 {
    fn from(error: ErrorCode) -> Self {
        error.code()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_dense_and_round_trip() {
        for code in -1..=133 {
            let error = ErrorCode::from_code(code).unwrap();
            assert_eq!(i16::from(error), code);
            assert_eq!(error.name().replace('_', ""), format!("{error:?}").to_uppercase());
            assert!(!error.message().is_empty());
        }
    }

    #[test]
    fn unknown_codes_are_none() {
        for code in [i16::MIN, -2, 134, i16::MAX] {
            assert_eq!(ErrorCode::from_code(code), None);
        }
    }

    #[test]
    fn retriable_errors_are_those_of_kafka() {
        assert!(ErrorCode::NotLeaderOrFollower.is_retriable());
        assert!(!ErrorCode::ProducerFenced.is_retriable());
    }
}
