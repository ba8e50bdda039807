//! Settings of the group coordinator, with Kafka's names.

use thiserror::Error;

/// `group.consumer.migration.policy`: whether a group with members may change between the classic and the consumer protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MigrationPolicy {
    /// Both ways.
    #[default]
    Bidirectional,
    /// From classic to consumer.
    Upgrade,
    /// From consumer to classic.
    Downgrade,
    /// Only while it is empty.
    Disabled,
}

impl MigrationPolicy {
    /// The policy of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [
            ("bidirectional", Self::Bidirectional),
            ("upgrade", Self::Upgrade),
            ("downgrade", Self::Downgrade),
            ("disabled", Self::Disabled),
        ];
        all.into_iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, policy)| policy)
    }

    pub(super) fn upgrades(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Upgrade)
    }

    pub(super) fn downgrades(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Downgrade)
    }
}

/// Settings of the group coordinator. All durations are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms` (6000): the shortest session timeout a member may ask for.
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms` (1800000): the longest session timeout a member may ask for.
    pub session_timeout_ms_max: i32,
    /// `group.initial.rebalance.delay.ms` (3000): how long the first rebalance of an empty group waits for more members; 0 is allowed.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size` (2147483647): members one group may have.
    pub members_max: usize,
    /// How long the first JoinGroup of a new member may stay parked (300000). Kafka has it as a constant: a new member cannot
    /// heartbeat, so only this ends a defunct one.
    pub new_member_join_timeout_ms: i32,
    /// Members of one group that were given an id with MEMBER_ID_REQUIRED and did not come back yet (10000). Ours; Kafka has no bound.
    pub pending_members_max: usize,
    /// `offset.metadata.max.bytes` (4096): bytes of metadata text that a commit may carry.
    pub offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes` (10080 minutes), in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms` (600000): pause between two passes of offset expiry.
    pub offsets_retention_check_interval_ms: i64,
    /// `group.consumer.session.timeout.ms` (45000): silence after which a member of a consumer group is removed, where its group says nothing.
    pub consumer_session_timeout_ms: i32,
    /// `group.share.session.timeout.ms` (45000): the same for share groups.
    pub share_session_timeout_ms: i32,
    /// `group.streams.session.timeout.ms` (45000): the same for streams groups.
    pub streams_session_timeout_ms: i32,
    /// `group.consumer.max.size` (2147483647)
    pub consumer_members_max: usize,
    /// `group.share.max.size` (200)
    pub share_members_max: usize,
    /// `group.streams.max.size` (2147483647)
    pub streams_members_max: usize,
    /// `group.consumer.assignors` (uniform, range): the first is the default.
    pub consumer_assignors: Vec<String>,
    /// `group.consumer.migration.policy` (bidirectional)
    pub migration: MigrationPolicy,
    /// The largest encoded group record, in bytes: what fits into a batch of the offsets topic (its `max.message.bytes`, less the framing).
    pub group_record_bytes_max: usize,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            members_max: i32::MAX as usize,
            new_member_join_timeout_ms: 300_000,
            pending_members_max: 10_000,
            offset_metadata_bytes_max: 4_096,
            offsets_retention_ms: 10_080 * 60_000,
            offsets_retention_check_interval_ms: 600_000,
            consumer_session_timeout_ms: 45_000,
            share_session_timeout_ms: 45_000,
            streams_session_timeout_ms: 45_000,
            consumer_members_max: i32::MAX as usize,
            share_members_max: 200,
            streams_members_max: i32::MAX as usize,
            consumer_assignors: vec!["uniform".to_owned(), "range".to_owned()],
            migration: MigrationPolicy::default(),
            group_record_bytes_max: 1_000_000,
        }
    }
}

/// A setting that is out of range.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{name} must be between {min} and {max}, not {value}")]
pub struct GroupConfigError {
    /// Kafka's name of the setting.
    pub name: &'static str,
    /// The refused value.
    pub value: i64,
    /// The least value allowed.
    pub min: i64,
    /// The greatest value allowed.
    pub max: i64,
}

impl GroupConfig {
    /// Checks every range; called once, at load.
    pub fn validate(&self) -> Result<(), GroupConfigError> {
        let int_max = i64::from(i32::MAX);
        let size = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        in_range("group.min.session.timeout.ms", self.session_timeout_ms_min.into(), 1, int_max)?;
        in_range(
            "group.max.session.timeout.ms",
            self.session_timeout_ms_max.into(),
            self.session_timeout_ms_min.into(),
            int_max,
        )?;
        in_range(
            "group.initial.rebalance.delay.ms",
            self.initial_rebalance_delay_ms.into(),
            0,
            int_max,
        )?;
        in_range("group.max.size", size(self.members_max), 1, int_max)?;
        in_range(
            "group.new.member.join.timeout.ms",
            self.new_member_join_timeout_ms.into(),
            1,
            int_max,
        )?;
        in_range("group.pending.members.max", size(self.pending_members_max), 1, int_max)?;
        in_range(
            "offset.metadata.max.bytes",
            size(self.offset_metadata_bytes_max),
            0,
            i64::from(i16::MAX),
        )?;
        in_range("offsets.retention.minutes", self.offsets_retention_ms, 60_000, int_max * 60_000)?;
        in_range(
            "offsets.retention.check.interval.ms",
            self.offsets_retention_check_interval_ms,
            1,
            i64::MAX,
        )?;
        in_range("group.record.max.bytes", size(self.group_record_bytes_max), 1_024, int_max)
    }
}

fn in_range(name: &'static str, value: i64, min: i64, max: i64) -> Result<(), GroupConfigError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(GroupConfigError { name, value, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(GroupConfig::default().validate(), Ok(()));
    }

    #[test]
    fn settings_for_tests_are_valid() {
        let config = GroupConfig {
            session_timeout_ms_min: 1,
            initial_rebalance_delay_ms: 0,
            ..GroupConfig::default()
        };
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn maximum_session_timeout_below_the_minimum_is_refused() {
        let config = GroupConfig {
            session_timeout_ms_max: 5_999,
            ..GroupConfig::default()
        };
        let error = config.validate().unwrap_err();
        assert_eq!(
            error.to_string(),
            "group.max.session.timeout.ms must be between 6000 and 2147483647, not 5999"
        );
    }
}
