//! FindCoordinator, versions 0 to 6 (several keys at once from 4 on).

use std::sync::Arc;

use millstream_core::metadata::{id, names::GROUP_ID_BYTES_MAX};
use millstream_protocol::{
    ErrorCode, KString,
    messages::{FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_response::Coordinator},
};

use crate::{broker::Broker, context::RequestContext};

/// First version that asks for, and answers, a batch of keys (KIP-699).
const FIRST_BATCHED_VERSION: i16 = 4;
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

pub(crate) async fn handle(broker: Arc<Broker>, context: RequestContext, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    if context.version >= FIRST_BATCHED_VERSION {
        let mut coordinators = Vec::new();
        for key in request.coordinator_keys {
            coordinators.push(find(&broker, request.key_type, key).await);
        }
        return FindCoordinatorResponse {
            coordinators,
            ..FindCoordinatorResponse::default()
        };
    }
    let found = find(&broker, request.key_type, request.key).await;
    FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message.map(|message| {
            if message.is_empty() {
                KString::from_static("NONE")
            } else {
                message
            }
        }),
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..FindCoordinatorResponse::default()
    }
}

async fn find(broker: &Arc<Broker>, key_type: i8, key: KString) -> Coordinator {
    if let Err((error, message)) = check(key_type, &key) {
        return refused(key, error, message);
    }
    let found = match key_type {
        TRANSACTION => broker.transactions.find(broker, &key).await,
        SHARE => broker.shares.find(broker, &key).await,
        _ => broker.groups.find(broker, &key).await,
    };
    if let Err(error) = found {
        return refused(key, error, "The coordinator is not available.");
    }
    let (host, port) = broker.advertised();
    Coordinator {
        key,
        node_id: broker.config.node_id,
        host: host.into(),
        port: port.into(),
        error_code: ErrorCode::None.code(),
        // Kafka's success has words of its own.
        error_message: Some(KString::default()),
    }
}

fn check(key_type: i8, key: &str) -> Result<(), (ErrorCode, &'static str)> {
    match key_type {
        // Old simple consumers commit under the empty id.
        GROUP if key.len() > GROUP_ID_BYTES_MAX => Err((ErrorCode::InvalidGroupId, "The group id is invalid.")),
        GROUP => Ok(()),
        TRANSACTION if key.len() > GROUP_ID_BYTES_MAX => Err((ErrorCode::InvalidRequest, "The transactional id is invalid.")),
        TRANSACTION => Ok(()),
        SHARE if is_share_key(key) => Ok(()),
        SHARE => Err((
            ErrorCode::InvalidRequest,
            "The share coordinator key is not group:topic-id:partition.",
        )),
        _ => Err((ErrorCode::InvalidRequest, "The coordinator key type is not supported.")),
    }
}

/// `group:topic id:partition`, where the group may hold colons.
fn is_share_key(key: &str) -> bool {
    let mut parts = key.rsplitn(3, ':');
    let partition = parts
        .next()
        .is_some_and(|partition| partition.parse::<i32>().is_ok_and(|partition| partition >= 0));
    let topic_id = parts.next().is_some_and(|topic_id| id::parse(topic_id).is_some());
    let group = parts.next().is_some_and(|group| !group.is_empty());
    partition && topic_id && group && key.len() <= GROUP_ID_BYTES_MAX
}

fn refused(key: KString, error: ErrorCode, message: &'static str) -> Coordinator {
    Coordinator {
        key,
        node_id: -1,
        host: KString::default(),
        port: -1,
        error_code: error.code(),
        error_message: Some(KString::from_static(message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_and_transaction_has_a_coordinator() {
        let code = |key_type, key: &str| check(key_type, key).map_err(|(error, _)| error);
        assert_eq!(code(GROUP, "g"), Ok(()));
        assert_eq!(code(GROUP, ""), Ok(()));
        assert_eq!(code(GROUP, &"g".repeat(GROUP_ID_BYTES_MAX + 1)), Err(ErrorCode::InvalidGroupId));
        assert_eq!(code(TRANSACTION, "t"), Ok(()));
        assert_eq!(code(TRANSACTION, ""), Ok(()));
        assert_eq!(code(SHARE, "g:t:0"), Err(ErrorCode::InvalidRequest));
        assert_eq!(code(SHARE, "g:AAAAAAAAAAAAAAAAAAAABw:0"), Ok(()));
        assert_eq!(code(3, "g"), Err(ErrorCode::InvalidRequest));
    }
}
