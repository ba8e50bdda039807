//! An application in tests: topics that exist, a topology that reads them, and heartbeats.

use uuid::Uuid;

use super::{StreamsHeartbeat, StreamsHeartbeatResponse, Subtopology, Task, Tasks, TopicInfo, Topology};
use crate::{
    group::{
        modern::ModernRefusal,
        test_client::{GROUP, Shell, put_topic},
    },
    metadata::ClusterImage,
};

/// Adds a topic, or gives it another number of partitions; 0 deletes it.
pub(super) fn set_topic(image: &mut ClusterImage, name: &str, partitions: usize) {
    image.epoch += 1;
    let id = Uuid::from_u128(name.bytes().fold(0, |id, byte| id << 8 | u128::from(byte)));
    if partitions == 0 {
        image.topics.remove(name);
        image.names.remove(&id);
        return;
    }
    put_topic(image, name, id, partitions);
}

/// Part `0` reads `in`, part `1` reads `state` and keeps what it knows in `log`.
pub(super) fn topology() -> Topology {
    let part = |id: &str, source: &str, changelogs: Vec<TopicInfo>| Subtopology {
        id: id.to_owned(),
        sources: vec![source.to_owned()],
        changelogs,
        ..Subtopology::default()
    };
    let log = TopicInfo {
        name: "log".to_owned(),
        ..TopicInfo::default()
    };
    Topology {
        epoch: 0,
        subtopologies: vec![part("0", "in", Vec::new()), part("1", "state", vec![log])],
    }
}

/// `in` with 3 partitions, `state` and `log` with 2.
pub(super) fn topics() -> ClusterImage {
    let mut image = ClusterImage::empty(Uuid::from_u128(1));
    for (name, partitions) in [("in", 3), ("state", 2), ("log", 2)] {
        set_topic(&mut image, name, partitions);
    }
    image
}

pub(super) fn task(subtopology: &str, partition: i32) -> Task {
    Task {
        subtopology: subtopology.into(),
        partition,
    }
}

/// A heartbeat that says nothing new.
pub(super) fn heartbeat(member_id: &str, epoch: i32) -> StreamsHeartbeat {
    StreamsHeartbeat {
        group_id: GROUP.into(),
        member_id: member_id.into(),
        member_epoch: epoch,
        instance_id: None,
        rack_id: None,
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: -1,
        topology: None,
        owned: [None, None, None],
        process_id: None,
        endpoint: None,
        client_tags: None,
        has_task_offsets: false,
        has_task_end_offsets: false,
        shutdown_application: false,
        endpoint_epoch: 0,
        session_timeout_ms: 1_000,
        heartbeat_interval_ms: 100,
        initial_rebalance_delay_ms: 0,
        standby_replicas: 0,
    }
}

/// The heartbeat by which a member joins.
pub(super) fn joining(member_id: &str, process_id: &str) -> StreamsHeartbeat {
    StreamsHeartbeat {
        rebalance_timeout_ms: 5_000,
        topology: Some(topology()),
        owned: [Some(Tasks::new()), Some(Tasks::new()), Some(Tasks::new())],
        process_id: Some(process_id.into()),
        client_tags: Some(Vec::new()),
        endpoint_epoch: -1,
        ..heartbeat(member_id, 0)
    }
}

/// The same heartbeat with everything that the member has.
pub(super) fn owning(mut request: StreamsHeartbeat, active: &Tasks, standby: &Tasks) -> StreamsHeartbeat {
    request.owned = [Some(active.clone()), Some(standby.clone()), Some(Tasks::new())];
    request
}

pub(super) fn beat(shell: &mut Shell, image: &ClusterImage, request: &StreamsHeartbeat) -> Result<StreamsHeartbeatResponse, ModernRefusal> {
    let decision = shell.coordinator.streams_heartbeat(shell.now_ms, request, image);
    shell.run(decision)
}
