//! ConsumerGroupDescribe: consumer groups with their members' current and target assignments (KIP-848).

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use millstream_core::{
    group::modern::{ModernDescription, ModernKind, ModernMemberDescription, TopicIdPartitions},
    metadata::ClusterImage,
};
use millstream_protocol::{
    KString,
    messages::{
        ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
        consumer_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions},
    },
};

use super::{
    describe_groups::{Refused, described, group_operations},
    once,
};
use crate::{broker::Broker, context::RequestContext, features::GroupKind, groups::GROUPS_AT_ONCE};

/// The member speaks the classic protocol.
const CLASSIC_MEMBER: i8 = 0;
/// The member speaks the consumer protocol.
const CONSUMER_MEMBER: i8 = 1;

pub(crate) async fn handle(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let operations = group_operations(request.include_authorized_operations);
    let groups = stream::iter(once(request.group_ids)).map(|group_id| describe(Arc::clone(&broker), group_id, operations));
    ConsumerGroupDescribeResponse {
        throttle_time_ms: 0,
        groups: groups.buffered(GROUPS_AT_ONCE).collect().await,
    }
}

async fn describe(broker: Arc<Broker>, group_id: KString, authorized_operations: i32) -> DescribedGroup {
    let look_up = broker
        .groups
        .describe_modern(&broker, ModernKind::Consumer, String::from(group_id.clone()));
    match described(&broker, GroupKind::Consumer, &group_id, look_up).await {
        Ok(group) => to_wire(&broker.metadata.image(), group, authorized_operations),
        Err(Refused { code, message }) => DescribedGroup {
            error_code: code.code(),
            error_message: message,
            group_id,
            ..DescribedGroup::default()
        },
    }
}

fn to_wire(image: &ClusterImage, group: ModernDescription, authorized_operations: i32) -> DescribedGroup {
    DescribedGroup {
        group_id: group.group_id.into(),
        group_state: KString::from_static(group.state),
        group_epoch: group.epoch,
        assignment_epoch: group.assignment_epoch,
        assignor_name: KString::from_static(group.assignor),
        members: group.members.into_iter().map(|member| member_to_wire(image, member)).collect(),
        authorized_operations,
        ..DescribedGroup::default()
    }
}

fn member_to_wire(image: &ClusterImage, described: ModernMemberDescription) -> Member {
    let (subscription, current) = (described.member.subscription, described.member.current);
    Member {
        member_id: described.member_id.into(),
        instance_id: subscription.instance_id.map(KString::from),
        rack_id: subscription.rack_id.map(KString::from),
        member_epoch: current.epoch,
        client_id: subscription.client_id.into(),
        client_host: subscription.client_host.into(),
        subscribed_topic_names: subscription.topics.into_iter().map(KString::from).collect(),
        subscribed_topic_regex: Some(subscription.regex.unwrap_or_default().into()),
        assignment: assignment(image, current.assigned),
        target_assignment: assignment(image, described.target),
        member_type: if subscription.classic.is_some() {
            CLASSIC_MEMBER
        } else {
            CONSUMER_MEMBER
        },
    }
}

fn assignment(image: &ClusterImage, topics: TopicIdPartitions) -> Assignment {
    let topics = topics.into_iter().filter_map(|(topic_id, partitions)| {
        Some(TopicPartitions {
            topic_id,
            // A topic that was deleted has no name, and nobody reads it.
            topic_name: image.names.get(&topic_id)?.as_str().into(),
            partitions: partitions.into_iter().collect(),
        })
    });
    Assignment {
        topic_partitions: topics.collect(),
    }
}
