//! The states of a classic group, and which may follow which.

use std::fmt;

/// States of a classic group; the module doc of [`super`] has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// No members; perhaps offsets.
    Empty,
    /// Waits for members to join.
    PreparingRebalance,
    /// Waits for the leader's assignment.
    CompletingRebalance,
    /// Everybody has an assignment.
    Stable,
    /// Does not exist.
    Dead,
}

impl GroupState {
    /// All states.
    pub const ALL: [Self; 5] = [
        Self::Empty,
        Self::PreparingRebalance,
        Self::CompletingRebalance,
        Self::Stable,
        Self::Dead,
    ];

    /// The state's name in DescribeGroups and ListGroups.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }

    /// Whether a group in this state may enter `next`.
    pub fn can_become(self, next: Self) -> bool {
        match self {
            Self::Empty => matches!(next, Self::PreparingRebalance | Self::Dead),
            Self::PreparingRebalance => matches!(next, Self::Empty | Self::CompletingRebalance | Self::Dead),
            Self::CompletingRebalance => matches!(next, Self::Stable | Self::PreparingRebalance | Self::Dead),
            Self::Stable => matches!(next, Self::PreparingRebalance | Self::Dead),
            Self::Dead => false,
        }
    }
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
