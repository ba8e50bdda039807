//! What becomes of one record: the table of verdicts, policies and hooks.
//!
//! | | produce | view |
//! |---|---|---|
//! | verdict `reject` | reject | drop |
//! | verdict `divert` | divert; reject without a dead-letter topic | drop |
//! | failure, policy `reject` | reject | stall |
//! | failure, policy `drop` | drop | drop |
//! | failure, policy `pass` | keep | keep |
//! | failure, policy `divert` | divert; reject without a dead-letter topic | stall |
//! | failure, policy `stall` | stall | stall |
//!
//! A failure is an `error` verdict, or a call that failed on this record alone. Views have no side effects: they are read again and
//! again, so nothing they see goes to a dead-letter topic, and they can refuse nothing.

use millstream_core::transform::{FailurePolicy, Hook};

/// What to do with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Keep,
    Drop,
    Reject,
    Divert,
    Stall,
}

/// What a binding's records are judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) hook: Hook,
    pub(crate) policy: FailurePolicy,
    pub(crate) has_dead_letter_topic: bool,
}

impl Rules {
    /// For the verdict `reject`.
    pub(crate) fn on_reject(self) -> Action {
        match self.hook {
            Hook::Produce => Action::Reject,
            Hook::View => Action::Drop,
        }
    }

    /// For the verdict `divert`.
    pub(crate) fn on_divert(self) -> Action {
        match (self.hook, self.has_dead_letter_topic) {
            (Hook::Produce, true) => Action::Divert,
            (Hook::Produce, false) => Action::Reject,
            (Hook::View, _) => Action::Drop,
        }
    }

    /// For a record on which the plugin failed.
    pub(crate) fn on_failure(self) -> Action {
        match (self.policy, self.hook) {
            (FailurePolicy::Drop, _) => Action::Drop,
            (FailurePolicy::Pass, _) => Action::Keep,
            (FailurePolicy::Stall, _) | (FailurePolicy::Reject | FailurePolicy::Divert, Hook::View) => Action::Stall,
            (FailurePolicy::Reject, Hook::Produce) => Action::Reject,
            (FailurePolicy::Divert, Hook::Produce) if self.has_dead_letter_topic => Action::Divert,
            (FailurePolicy::Divert, Hook::Produce) => Action::Reject,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_follow_the_table() {
        use FailurePolicy as P;
        let cases = [
            (P::Reject, Hook::Produce, true, Action::Reject),
            (P::Reject, Hook::View, true, Action::Stall),
            (P::Drop, Hook::Produce, false, Action::Drop),
            (P::Drop, Hook::View, false, Action::Drop),
            (P::Pass, Hook::Produce, false, Action::Keep),
            (P::Pass, Hook::View, false, Action::Keep),
            (P::Divert, Hook::Produce, true, Action::Divert),
            (P::Divert, Hook::Produce, false, Action::Reject),
            (P::Divert, Hook::View, true, Action::Stall),
            (P::Divert, Hook::View, false, Action::Stall),
            (P::Stall, Hook::Produce, true, Action::Stall),
            (P::Stall, Hook::View, true, Action::Stall),
        ];
        for (policy, hook, has_dead_letter_topic, expected) in cases {
            let rules = Rules {
                hook,
                policy,
                has_dead_letter_topic,
            };
            assert_eq!(rules.on_failure(), expected, "{rules:?}");
        }
    }

    #[test]
    fn views_refuse_and_divert_nothing() {
        for has_dead_letter_topic in [false, true] {
            let rules = Rules {
                hook: Hook::View,
                policy: FailurePolicy::Stall,
                has_dead_letter_topic,
            };
            assert_eq!((rules.on_reject(), rules.on_divert()), (Action::Drop, Action::Drop));
        }
        let produce = Rules {
            hook: Hook::Produce,
            policy: FailurePolicy::Drop,
            has_dead_letter_topic: false,
        };
        assert_eq!((produce.on_reject(), produce.on_divert()), (Action::Reject, Action::Reject));
        assert_eq!(
            Rules {
                has_dead_letter_topic: true,
                ..produce
            }
            .on_divert(),
            Action::Divert
        );
    }
}
