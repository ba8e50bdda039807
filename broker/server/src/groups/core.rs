//! The group coordinator as a shard sees it, and the requests that it has parked.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use millstream_core::{
    RecordDecodeError,
    group::{
        Decision, GroupCoordinator, GroupRecord, JoinGroupRequest, JoinGroupResponse, ParkedResponse, Reply, SyncGroupRequest,
        SyncGroupResponse, Token,
    },
    metadata::ClusterImage,
};
use millstream_protocol::ErrorCode;
use tokio::sync::oneshot;

use crate::coordination::{Answer, Core, Decided, Effects, ShardHandle, sending};

/// The way to the groups of one partition.
pub(crate) type GroupShard = ShardHandle<GroupCoordinator, Parked>;

impl Core for GroupCoordinator {
    type Record = GroupRecord;
    type Effect = Reply;

    fn loaded(&mut self, now_ms: i64) -> Decided<Self> {
        decided(self.loaded(now_ms)).0
    }

    fn tick(&mut self, now_ms: i64) -> Decided<Self> {
        decided(self.tick(now_ms)).0
    }

    fn next_deadline(&self) -> Option<i64> {
        self.next_deadline()
    }

    fn apply(&mut self, record: &GroupRecord) {
        self.apply(record);
    }

    fn apply_transactional(&mut self, producer_id: i64, record: &GroupRecord) {
        self.apply_transactional(producer_id, record);
    }

    fn apply_marker(&mut self, producer_id: i64, commit: bool) {
        self.apply_marker(producer_id, commit);
    }

    fn encode(record: &GroupRecord) -> (Bytes, Option<Bytes>) {
        (record.encode_key(), record.encode_value())
    }

    fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<GroupRecord>, RecordDecodeError> {
        GroupRecord::decode(key, value)
    }
}

fn decided<R>(decision: Decision<R>) -> (Decided<GroupCoordinator>, R) {
    let Decision {
        records,
        replies,
        response,
    } = decision;
    let decided = Decided { records, effects: replies };
    (decided, response)
}

/// Who waits for the answer of a token.
enum Waiting {
    Join(oneshot::Sender<JoinGroupResponse>),
    Sync(oneshot::Sender<SyncGroupResponse>),
}

/// One entry per request that the coordinator has not answered. It answers each once, also when the client hung up.
#[derive(Default)]
pub(crate) struct Parked {
    waiting: BTreeMap<Token, Waiting>,
    next_token: Token,
}

impl Parked {
    fn park(&mut self, waiting: Waiting) -> Token {
        let token = self.next_token;
        self.next_token += 1;
        self.waiting.insert(token, waiting);
        token
    }
}

impl Effects<GroupCoordinator> for Parked {
    fn carry(&mut self, reply: Reply) -> Answer {
        let Reply { token, response } = reply;
        match (self.waiting.remove(&token), response) {
            (Some(Waiting::Join(sender)), ParkedResponse::Join(response)) => sending(sender, response),
            (Some(Waiting::Sync(sender)), ParkedResponse::Sync(response)) => sending(sender, response),
            (Some(Waiting::Join(_)), ParkedResponse::Sync(_)) | (Some(Waiting::Sync(_)), ParkedResponse::Join(_)) | (None, _) => {
                unreachable!("request {token} was answered twice or with another request's answer")
            }
        }
    }
}

impl GroupShard {
    /// JoinGroup. `image` gives the newest metadata when its turn comes.
    pub async fn join_group(
        &self,
        request: JoinGroupRequest,
        image: impl FnOnce() -> Arc<ClusterImage> + Send + 'static,
    ) -> Result<JoinGroupResponse, ErrorCode> {
        self.run(move |shard, sender| {
            let token = shard.effects.park(Waiting::Join(sender));
            let decision = shard.core.join_group(shard.now_ms(), token, request, &image());
            shard.carry_out(decided(decision).0)
        })
        .await
    }

    /// SyncGroup. `image` gives the newest metadata when its turn comes.
    pub async fn sync_group(
        &self,
        request: SyncGroupRequest,
        image: impl FnOnce() -> Arc<ClusterImage> + Send + 'static,
    ) -> Result<SyncGroupResponse, ErrorCode> {
        self.run(move |shard, sender| {
            let token = shard.effects.park(Waiting::Sync(sender));
            let decision = shard.core.sync_group(shard.now_ms(), token, request, &image());
            shard.carry_out(decided(decision).0)
        })
        .await
    }

    /// Any other call: `act` decides, and the answer comes once everything it may depend on is durable.
    pub async fn decide<R: Send + 'static>(
        &self,
        act: impl FnOnce(&mut GroupCoordinator, i64) -> Decision<R> + Send + 'static,
    ) -> Result<R, ErrorCode> {
        self.call(move |coordinator, now_ms| decided(act(coordinator, now_ms))).await
    }
}
