//! The task that owns the coordinator of one partition of an internal topic.
//!
//! Commands are taken one at a time. A decision's records are appended and applied before the next command; its answers wait in the
//! [`Outbox`] for the high watermark, so that the next command need not. Reads wait as well: they may show what is not durable yet.
//!
//! When the task ends, whatever it still holds is dropped, and every waiting request sees its channel close: that is the
//! answer NOT_COORDINATOR, whether the request was queued, parked in the coordinator, or waiting for durability.

use std::sync::Arc;

use millstream_log::VerificationGuard;
use millstream_protocol::{ErrorCode, record::Marker};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{
    Core, Decided, Effects,
    outbox::{Answer, Outbox},
    storage::{self, StorageError},
    time::CoordinatorTime,
};
use crate::partition::Partition;

/// Commands that may wait for a shard; whoever sends more waits.
const COMMANDS_MAX: usize = 1_024;
/// What a request learns whose shard ended.
const GONE: ErrorCode = ErrorCode::NotCoordinator;

type Command<C, E> = Box<dyn FnOnce(&mut Shard<C, E>) -> Result<(), StorageError> + Send>;

/// The producer whose transaction a write belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Producer {
    pub id: i64,
    pub epoch: i16,
    /// For the transaction's first write to the partition.
    pub guard: Option<VerificationGuard>,
}

/// The way to a shard.
pub(crate) struct ShardHandle<C: Core, E> {
    commands: mpsc::Sender<Command<C, E>>,
}

impl<C: Core, E> Clone for ShardHandle<C, E> {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
        }
    }
}

impl<C: Core, E: Effects<C>> ShardHandle<C, E> {
    /// Whether the shard is no more, so that a new one may be started.
    pub fn has_ended(&self) -> bool {
        self.commands.is_closed()
    }

    /// Lets `act` run in the shard. It answers through the channel it is given, which a shard that ends closes.
    pub async fn run<R: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Shard<C, E>, oneshot::Sender<R>) -> Result<(), StorageError> + Send + 'static,
    ) -> Result<R, ErrorCode> {
        let (sender, receiver) = oneshot::channel();
        let command: Command<C, E> = Box::new(move |shard| act(shard, sender));
        self.commands.send(command).await.map_err(|_| GONE)?;
        receiver.await.map_err(|_| GONE)
    }

    /// A call whose answer is known at once; it is sent once everything it may depend on is durable.
    pub async fn call<R: Send + 'static>(&self, act: impl FnOnce(&mut C, i64) -> (Decided<C>, R) + Send + 'static) -> Result<R, ErrorCode> {
        self.run(move |shard, sender| {
            let now_ms = shard.now_ms();
            let (decided, response) = act(&mut shard.core, now_ms);
            shard.carry_out(decided)?;
            shard.answer(sending(sender, response));
            Ok(())
        })
        .await
    }
}

/// An answer through a channel.
pub(crate) fn sending<R: Send + 'static>(sender: oneshot::Sender<R>, response: R) -> Answer {
    Box::new(move || {
        // Who asked may have hung up.
        let _ = sender.send(response);
    })
}

/// Starts a shard. It loads from the log first, and ends when the log fails or `stopping` turns true.
pub(crate) fn start<C: Core, E: Effects<C>>(
    partition: Arc<Partition>,
    core: C,
    effects: E,
    time: CoordinatorTime,
    stopping: watch::Receiver<bool>,
) -> (ShardHandle<C, E>, JoinHandle<()>) {
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    let task = tokio::spawn(async move {
        let (topic, number) = (partition.topic.clone(), partition.id.partition);
        if let Err(error) = run(partition, core, effects, time, stopping, commands).await {
            tracing::error!(topic, partition = number, %error, "a coordinator gave up; the next request loads its state again");
        }
    });
    (ShardHandle { commands: sender }, task)
}

async fn run<C: Core, E: Effects<C>>(
    partition: Arc<Partition>,
    mut core: C,
    effects: E,
    time: CoordinatorTime,
    stopping: watch::Receiver<bool>,
    commands: mpsc::Receiver<Command<C, E>>,
) -> Result<(), StorageError> {
    let reader = Arc::clone(&partition);
    let replayed = tokio::task::spawn_blocking(move || storage::replay(&reader, &mut core).map(|()| core)).await;
    let core = replayed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    let shard = Shard {
        partition,
        time,
        core,
        effects,
        outbox: Outbox::default(),
    };
    shard.serve(stopping, commands).await
}

/// A coordinator, its log, and the answers that wait.
pub(crate) struct Shard<C: Core, E> {
    /// The partition of the internal topic.
    pub partition: Arc<Partition>,
    /// The coordinator.
    pub core: C,
    /// What carries its effects out.
    pub effects: E,
    time: CoordinatorTime,
    outbox: Outbox,
}

impl<C: Core, E: Effects<C>> Shard<C, E> {
    async fn serve(mut self, mut stopping: watch::Receiver<bool>, mut commands: mpsc::Receiver<Command<C, E>>) -> Result<(), StorageError> {
        let (partition, time) = (Arc::clone(&self.partition), self.time);
        let loaded = self.core.loaded(time.now_ms());
        self.carry_out(loaded)?;
        loop {
            let waits_for = self.outbox.next_offset();
            // Every arm may be cancelled: the first, second and last hold nothing, and a channel loses no message.
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return Ok(()),
                is_safe = partition.wait_for(waits_for.unwrap_or(0)), if waits_for.is_some() => {
                    if !is_safe {
                        // The log is closed: nothing more becomes durable here.
                        return Ok(());
                    }
                    self.outbox.release(partition.high_watermark());
                }
                command = commands.recv() => match command {
                    Some(command) => command(&mut self)?,
                    None => return Ok(()),
                },
                () = time.sleep_until(self.core.next_deadline()) => {
                    let decided = self.core.tick(time.now_ms());
                    self.carry_out(decided)?;
                }
            }
        }
    }

    /// The coordinator's time.
    pub fn now_ms(&self) -> i64 {
        self.time.now_ms()
    }

    /// Appends and applies a decision's records; its effects follow once they are durable.
    pub fn carry_out(&mut self, decided: Decided<C>) -> Result<(), StorageError> {
        let Decided { records, effects } = decided;
        storage::append::<C>(&self.partition, &records, self.time.now_ms())?;
        for record in &records {
            self.core.apply(record);
        }
        for effect in effects {
            let answer = self.effects.carry(effect);
            self.answer(answer);
        }
        Ok(())
    }

    /// Appends and applies records as part of a producer's transaction. The inner error is a refusal, upon which nothing was written.
    pub fn write_transactional(&mut self, producer: Producer, records: &[C::Record]) -> Result<Result<(), ErrorCode>, StorageError> {
        if let Err(refused) = storage::append_transactional::<C>(&self.partition, producer, records, self.time.now_ms())? {
            return Ok(Err(refused));
        }
        for record in records {
            self.core.apply_transactional(producer.id, record);
        }
        Ok(Ok(()))
    }

    /// Appends and applies the end of a producer's transaction. The inner error is a refusal, upon which nothing was written.
    pub fn write_marker(&mut self, producer_id: i64, producer_epoch: i16, marker: Marker) -> Result<Result<(), ErrorCode>, StorageError> {
        if let Err(refused) = storage::append_marker(&self.partition, producer_id, producer_epoch, marker, self.time.now_ms())? {
            return Ok(Err(refused));
        }
        self.core.apply_marker(producer_id, marker.commit);
        Ok(Ok(()))
    }

    /// Answers as soon as everything in the log is safe; at once if it is.
    pub fn answer(&mut self, answer: Answer) {
        self.outbox.push(self.partition.log().log_end_offset(), answer);
        self.outbox.release(self.partition.high_watermark());
    }
}
