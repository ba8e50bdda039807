//! A producer: either plain (one try per batch) or idempotent (a few batches in flight, retried in order until answered).

use std::collections::VecDeque;

use bytes::Bytes;
use millstream_history::history::{Answer, Call, CallId, Partition};
use millstream_log::AppendError;
use millstream_protocol::record::BatchHeader;

use crate::{
    batches,
    node::{Flaw, Sent},
    stage::Stage,
};

/// Batches in flight per producer; the log remembers five.
const IN_FLIGHT_MAX: usize = 4;

/// A producer.
pub struct Producer {
    index: usize,
    is_idempotent: bool,
    life: Option<Life>,
    /// Batches that were not answered yet, oldest first. Those that must be sent again come after those that are on their way.
    outstanding: VecDeque<Batch>,
    values_sent: u64,
}

/// What an idempotent producer is between two restarts of it.
struct Life {
    producer_id: i64,
    partition: Partition,
    next_sequence: i32,
}

struct Batch {
    call: CallId,
    partition: Partition,
    encoded: (BatchHeader, Bytes),
    in_flight: bool,
}

impl Producer {
    /// A producer that has sent nothing.
    pub fn new(index: usize, is_idempotent: bool) -> Self {
        Self {
            index,
            is_idempotent,
            life: None,
            outstanding: VecDeque::new(),
            values_sent: 0,
        }
    }

    /// Does one thing.
    pub fn act(&mut self, stage: &mut Stage) {
        let Some(partitions) = stage.process().map(|process| process.partitions()) else {
            return;
        };
        if partitions.is_empty() {
            return;
        }
        if let Some(position) = self.outstanding.iter().position(|batch| !batch.in_flight) {
            return self.transmit(stage, position);
        }
        if self.outstanding.len() >= IN_FLIGHT_MAX {
            if stage.rng.one_in(4) {
                self.disconnected(stage);
            }
            return;
        }
        let partition = partitions[stage.rng.index(partitions.len())];
        if !self.is_idempotent {
            return self.send(stage, partition, None);
        }
        if self.life.is_none() || stage.rng.one_in(60) {
            self.restart(stage, partition);
        }
        if let Some(life) = &self.life {
            let (partition, identity) = (life.partition, (life.producer_id, life.next_sequence));
            self.send(stage, partition, Some(identity));
        }
    }

    /// A new life: what was on its way stays unknown.
    fn restart(&mut self, stage: &mut Stage, partition: Partition) {
        self.outstanding.drain(..).for_each(|batch| stage.unknown(batch.call));
        self.life = stage.producer_ids.pop().map(|producer_id| Life {
            producer_id,
            partition,
            next_sequence: 0,
        });
    }

    fn send(&mut self, stage: &mut Stage, partition: Partition, identity: batches::Identity) {
        let count = 1 + stage.rng.below(4);
        let values: Vec<u64> = (0..count)
            .map(|index| ((self.index as u64) << 32) + self.values_sent + index)
            .collect();
        self.values_sent += count;
        let padding = stage.rng.index(200);
        let identity = identity.filter(|_| stage.node.flaw != Some(Flaw::ForgetsSequences));
        let encoded = match batches::of_values(identity, stage.now_ms, &values, padding) {
            Ok(encoded) => encoded,
            Err(error) => return stage.surprise(format!("encode a batch: {error:#}")),
        };
        if let Some(life) = &mut self.life {
            life.next_sequence += i32::try_from(count).unwrap_or_default();
        }
        let call = stage.invoke(Call::Send {
            producer: self.index,
            partition,
            values,
            transaction: None,
            timestamp: None,
        });
        self.outstanding.push_back(Batch {
            call,
            partition,
            encoded,
            in_flight: false,
        });
        self.transmit(stage, self.outstanding.len() - 1);
    }

    fn transmit(&mut self, stage: &mut Stage, position: usize) {
        let batch = &mut self.outstanding[position];
        let (call, now_ms) = (batch.call, stage.now_ms);
        let Some(process) = stage.process() else { return };
        let outcome = process.send(self.index, call, batch.partition, &batch.encoded, now_ms);
        match outcome {
            Some(Ok(())) => batch.in_flight = true,
            Some(Err(error)) if !self.is_idempotent => {
                stage.fail(call, error.to_string());
                self.outstanding.remove(position);
            }
            Some(Err(AppendError::Log(_))) => {}
            // Whoever retries in order is never out of order, nor fenced by itself.
            Some(Err(error)) => stage.surprise(format!("E1 a retry was refused: {error}")),
            None if self.is_idempotent => {
                // The topic was deleted, maybe after an earlier try.
                self.outstanding.drain(..).for_each(|batch| stage.unknown(batch.call));
                self.life = None;
            }
            None => {
                stage.fail(call, "unknown topic");
                self.outstanding.remove(position);
            }
        }
    }

    /// An acknowledgement is on its way to the producer.
    pub fn on_sent(&mut self, stage: &mut Stage, sent: Sent) {
        let Some(position) = self.outstanding.iter().position(|batch| batch.call == sent.call) else {
            return;
        };
        if !stage.loses_answer() {
            self.outstanding.remove(position);
            stage.ok(sent.call, Answer::Sent(sent.base_offset));
        } else if self.is_idempotent {
            self.outstanding.range_mut(position..).for_each(|batch| batch.in_flight = false);
        } else {
            self.outstanding.remove(position);
            stage.unknown(sent.call);
        }
    }

    /// The connection broke, or the producer lost its patience.
    pub fn disconnected(&mut self, stage: &mut Stage) {
        if self.is_idempotent {
            self.outstanding.iter_mut().for_each(|batch| batch.in_flight = false);
        } else {
            self.outstanding.drain(..).for_each(|batch| stage.unknown(batch.call));
        }
    }
}
