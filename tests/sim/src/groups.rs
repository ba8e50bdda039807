//! The shell of one group coordinator: append, apply, answer once durable; on a refused append, unload and replay.

use std::sync::Arc;

use anyhow::{Context, Result};
use millstream_core::group::{Decision, GroupConfig, GroupCoordinator, ParkedResponse, Reply, Token};
use millstream_log::Log;
use millstream_protocol::ErrorCode;

use crate::batches;

/// The answer to a request to the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupAnswer {
    /// To a join or a sync.
    Parked(ParkedResponse),
    /// To a heartbeat or a commit.
    Code(ErrorCode),
    /// The committed offsets by partition number.
    Committed(Vec<(i32, i64)>),
    /// The coordinator lost its footing. The request may have been done or not.
    Lost,
}

/// What the request's caller gets once everything is durable, if it is not parked.
pub type Immediate = Option<(Token, GroupAnswer)>;

/// A coordinator, its log, and the answers that wait for it.
pub struct Groups {
    coordinator: GroupCoordinator,
    log: Arc<Log>,
    /// With the log end that must be durable first.
    waiting: Vec<(i64, Token, GroupAnswer)>,
}

fn config() -> GroupConfig {
    GroupConfig {
        initial_rebalance_delay_ms: 500,
        // An empty group that expires starts again with generation 1, which would look like two owners in one generation.
        offsets_retention_check_interval_ms: i64::MAX,
        ..GroupConfig::default()
    }
}

impl Groups {
    /// Replays the log.
    pub fn load(log: Arc<Log>, now_ms: i64) -> Result<Self> {
        let coordinator = batches::replay_group(&log, GroupCoordinator::new(config())).context("replay groups")?;
        let mut groups = Self {
            coordinator,
            log,
            waiting: Vec::new(),
        };
        let decision = groups.coordinator.loaded(now_ms);
        groups.settle(now_ms, decision, None)?;
        Ok(groups)
    }

    /// Lets the coordinator decide, and carries the decision out.
    pub fn run(
        &mut self,
        now_ms: i64,
        token: Token,
        decide: impl FnOnce(&mut GroupCoordinator) -> Decision<Option<GroupAnswer>>,
    ) -> Result<()> {
        let Decision {
            records,
            replies,
            response,
        } = decide(&mut self.coordinator);
        let decision = Decision {
            records,
            replies,
            response: (),
        };
        self.settle(now_ms, decision, response.map(|answer| (token, answer)))
    }

    /// Does what is due.
    pub fn tick(&mut self, now_ms: i64) -> Result<()> {
        if self.coordinator.next_deadline().is_none_or(|due| due > now_ms) {
            return Ok(());
        }
        let decision = self.coordinator.tick(now_ms);
        self.settle(now_ms, decision, None)
    }

    /// The answers that may leave when the log is durable up to here.
    pub fn take_answers(&mut self, durable: i64) -> Vec<(Token, GroupAnswer)> {
        let (ready, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(until, ..)| *until <= durable);
        self.waiting = waiting;
        let ready: Vec<(i64, Token, GroupAnswer)> = ready;
        ready.into_iter().map(|(_, token, answer)| (token, answer)).collect()
    }

    fn settle(&mut self, now_ms: i64, decision: Decision, immediate: Immediate) -> Result<()> {
        let Decision { records, replies, .. } = decision;
        let mut answers: Vec<(Token, GroupAnswer)> = replies.into_iter().map(parked).chain(immediate).collect();
        if !records.is_empty() {
            let (header, batch) = batches::of_group(&records, now_ms)?;
            if self.log.append(&header, &batch, 0, now_ms, None).is_err() {
                answers.extend(self.coordinator.unload(ErrorCode::NotCoordinator).into_iter().map(parked));
                answers.extend(self.waiting.drain(..).map(|(_, token, answer)| (token, answer)));
                let lost = answers.into_iter().map(|(token, _)| (0, token, GroupAnswer::Lost)).collect();
                *self = Self::load(Arc::clone(&self.log), now_ms)?;
                self.waiting = lost;
                return Ok(());
            }
            records.iter().for_each(|record| self.coordinator.apply(record));
        }
        let until = self.log.log_end_offset();
        self.waiting
            .extend(answers.into_iter().map(|(token, answer)| (until, token, answer)));
        Ok(())
    }

    /// Whether a replay of the log gives what is in memory.
    pub fn agrees_with_log(&self) -> Result<bool> {
        let replayed = batches::replay_group(&self.log, GroupCoordinator::new(config()))?;
        Ok(replayed.hard_state() == self.coordinator.hard_state())
    }
}

fn parked(reply: Reply) -> (Token, GroupAnswer) {
    (reply.token, GroupAnswer::Parked(reply.response))
}
