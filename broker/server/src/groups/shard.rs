//! The task that owns the groups of one partition of `__consumer_offsets`.
//!
//! Commands are taken one at a time. A decision's records are appended and applied before the next command; its answers wait in the
//! [`Outbox`] for the high watermark, so that the next command need not. Reads wait as well: they may show what is not durable yet.
//!
//! When the task ends, whatever it still holds is dropped, and every waiting request sees its channel close: that is the
//! answer NOT_COORDINATOR, whether the request was queued, parked in the coordinator, or waiting for durability.

use std::{collections::BTreeMap, sync::Arc};

use millstream_core::group::{
    Decision, GroupConfig, GroupCoordinator, GroupRecord, JoinGroupRequest, JoinGroupResponse, ParkedResponse, Reply, SyncGroupRequest,
    SyncGroupResponse, Token,
};
use millstream_protocol::ErrorCode;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{
    outbox::{Answer, Outbox},
    storage::{self, StorageError},
    time::GroupTime,
};
use crate::partition::Partition;

/// Commands that may wait for a shard; whoever sends more waits.
const COMMANDS_MAX: usize = 1_024;
/// What a request learns whose shard ended.
const GONE: ErrorCode = ErrorCode::NotCoordinator;

type Call = Box<dyn FnOnce(&mut GroupCoordinator, i64) -> Decision<Answer> + Send>;

enum Command {
    Join(JoinGroupRequest, oneshot::Sender<JoinGroupResponse>),
    Sync(SyncGroupRequest, oneshot::Sender<SyncGroupResponse>),
    /// Everything whose answer is known at once.
    Call(Call),
}

/// The way to a shard.
#[derive(Clone)]
pub(super) struct ShardHandle {
    commands: mpsc::Sender<Command>,
}

impl ShardHandle {
    /// Whether the shard is no more, so that a new one may be started.
    pub fn has_ended(&self) -> bool {
        self.commands.is_closed()
    }

    /// JoinGroup.
    pub async fn join_group(&self, request: JoinGroupRequest) -> Result<JoinGroupResponse, ErrorCode> {
        let (sender, receiver) = oneshot::channel();
        self.send(Command::Join(request, sender)).await?;
        receiver.await.map_err(|_| GONE)
    }

    /// SyncGroup.
    pub async fn sync_group(&self, request: SyncGroupRequest) -> Result<SyncGroupResponse, ErrorCode> {
        let (sender, receiver) = oneshot::channel();
        self.send(Command::Sync(request, sender)).await?;
        receiver.await.map_err(|_| GONE)
    }

    /// Any other call: `act` decides, and the answer comes once everything it may depend on is durable.
    pub async fn call<R: Send + 'static>(
        &self,
        act: impl FnOnce(&mut GroupCoordinator, i64) -> Decision<R> + Send + 'static,
    ) -> Result<R, ErrorCode> {
        let (sender, receiver) = oneshot::channel();
        let call: Call = Box::new(move |coordinator, now_ms| {
            let Decision {
                records,
                replies,
                response,
            } = act(coordinator, now_ms);
            Decision {
                records,
                replies,
                response: sending(sender, response),
            }
        });
        self.send(Command::Call(call)).await?;
        receiver.await.map_err(|_| GONE)
    }

    async fn send(&self, command: Command) -> Result<(), ErrorCode> {
        self.commands.send(command).await.map_err(|_| GONE)
    }
}

fn sending<R: Send + 'static>(sender: oneshot::Sender<R>, response: R) -> Answer {
    Box::new(move || {
        // Who asked may have hung up.
        let _ = sender.send(response);
    })
}

/// Starts a shard. It loads from the log first, and ends when the log fails or `stopping` turns true.
pub(super) fn start(
    partition: Arc<Partition>,
    config: GroupConfig,
    time: GroupTime,
    stopping: watch::Receiver<bool>,
) -> (ShardHandle, JoinHandle<()>) {
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    let task = tokio::spawn(async move {
        let number = partition.id.partition;
        if let Err(error) = run(partition, config, time, stopping, commands).await {
            tracing::error!(partition = number, %error, "a group coordinator gave up; the next request loads its groups again");
        }
    });
    (ShardHandle { commands: sender }, task)
}

async fn run(
    partition: Arc<Partition>,
    config: GroupConfig,
    time: GroupTime,
    stopping: watch::Receiver<bool>,
    commands: mpsc::Receiver<Command>,
) -> Result<(), StorageError> {
    let reader = Arc::clone(&partition);
    let replayed = tokio::task::spawn_blocking(move || storage::replay(&reader, config)).await;
    let coordinator = replayed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    let shard = Shard {
        partition,
        time,
        coordinator,
        outbox: Outbox::default(),
        parked: BTreeMap::new(),
        next_token: 0,
    };
    shard.serve(stopping, commands).await
}

/// Who waits for the answer of a token.
enum Parked {
    Join(oneshot::Sender<JoinGroupResponse>),
    Sync(oneshot::Sender<SyncGroupResponse>),
}

struct Shard {
    partition: Arc<Partition>,
    time: GroupTime,
    coordinator: GroupCoordinator,
    outbox: Outbox,
    /// One entry per request that the coordinator has not answered. It answers each once, also when the client hung up.
    parked: BTreeMap<Token, Parked>,
    next_token: Token,
}

impl Shard {
    async fn serve(mut self, mut stopping: watch::Receiver<bool>, mut commands: mpsc::Receiver<Command>) -> Result<(), StorageError> {
        let (partition, time) = (Arc::clone(&self.partition), self.time);
        let now_ms = time.now_ms();
        let loaded = self.coordinator.loaded(now_ms);
        self.carry_out(now_ms, loaded)?;
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
                    Some(command) => self.take(command)?,
                    None => return Ok(()),
                },
                () = time.sleep_until(self.coordinator.next_deadline()) => {
                    let now_ms = time.now_ms();
                    let decision = self.coordinator.tick(now_ms);
                    self.carry_out(now_ms, decision)?;
                }
            }
        }
    }

    fn take(&mut self, command: Command) -> Result<(), StorageError> {
        let now_ms = self.time.now_ms();
        match command {
            Command::Join(request, sender) => {
                let token = self.park(Parked::Join(sender));
                let decision = self.coordinator.join_group(now_ms, token, request);
                self.carry_out(now_ms, decision)
            }
            Command::Sync(request, sender) => {
                let token = self.park(Parked::Sync(sender));
                let decision = self.coordinator.sync_group(now_ms, token, request);
                self.carry_out(now_ms, decision)
            }
            Command::Call(call) => {
                let Decision {
                    records,
                    replies,
                    response,
                } = call(&mut self.coordinator, now_ms);
                self.write(now_ms, &records)?;
                self.answer(replies, Some(response));
                Ok(())
            }
        }
    }

    fn park(&mut self, waiting: Parked) -> Token {
        let token = self.next_token;
        self.next_token += 1;
        self.parked.insert(token, waiting);
        token
    }

    fn carry_out(&mut self, now_ms: i64, decision: Decision) -> Result<(), StorageError> {
        self.write(now_ms, &decision.records)?;
        self.answer(decision.replies, None);
        Ok(())
    }

    fn write(&mut self, now_ms: i64, records: &[GroupRecord]) -> Result<(), StorageError> {
        storage::append(&self.partition, records, now_ms)?;
        for record in records {
            self.coordinator.apply(record);
        }
        Ok(())
    }

    /// Answers as soon as everything in the log is safe; at once if it is.
    fn answer(&mut self, replies: Vec<Reply>, response: Option<Answer>) {
        let log_end_offset = self.partition.log().log_end_offset();
        for Reply { token, response } in replies {
            let answer = match (self.parked.remove(&token), response) {
                (Some(Parked::Join(sender)), ParkedResponse::Join(response)) => sending(sender, response),
                (Some(Parked::Sync(sender)), ParkedResponse::Sync(response)) => sending(sender, response),
                (Some(Parked::Join(_)), ParkedResponse::Sync(_)) | (Some(Parked::Sync(_)), ParkedResponse::Join(_)) | (None, _) => {
                    unreachable!("request {token} was answered twice or with another request's answer")
                }
            };
            self.outbox.push(log_end_offset, answer);
        }
        if let Some(answer) = response {
            self.outbox.push(log_end_offset, answer);
        }
        self.outbox.release(self.partition.high_watermark());
    }
}
