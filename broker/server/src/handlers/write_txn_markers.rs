//! WriteTxnMarkers: coordinators end transactions with it, and administrators those that no coordinator knows (`kafka-transactions abort`).

use std::sync::Arc;

use millstream_core::txn::ProducerIdAndEpoch;
use millstream_protocol::{
    ErrorCode,
    messages::{
        WriteTxnMarkersRequest, WriteTxnMarkersResponse,
        write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic},
        write_txn_markers_response::{WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult},
    },
    record::Marker,
};

use crate::{broker::Broker, context::RequestContext, transactions::write_marker};

pub(crate) async fn handle(broker: Arc<Broker>, _context: RequestContext, request: WriteTxnMarkersRequest) -> WriteTxnMarkersResponse {
    let mut markers = Vec::with_capacity(request.markers.len());
    for marker in request.markers {
        markers.push(write(&broker, marker).await);
    }
    WriteTxnMarkersResponse { markers }
}

async fn write(broker: &Arc<Broker>, wanted: WritableTxnMarker) -> WritableTxnMarkerResult {
    let producer = ProducerIdAndEpoch {
        id: wanted.producer_id,
        epoch: wanted.producer_epoch,
    };
    let marker = Marker {
        commit: wanted.transaction_result,
        coordinator_epoch: wanted.coordinator_epoch,
    };
    let mut topics = Vec::with_capacity(wanted.topics.len());
    for topic in wanted.topics {
        topics.push(write_topic(broker, topic, producer, marker).await);
    }
    WritableTxnMarkerResult {
        producer_id: wanted.producer_id,
        topics,
    }
}

async fn write_topic(
    broker: &Arc<Broker>,
    topic: WritableTxnMarkerTopic,
    producer: ProducerIdAndEpoch,
    marker: Marker,
) -> WritableTxnMarkerTopicResult {
    let image = broker.metadata.image();
    let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
    for partition_index in topic.partition_indexes {
        let partition = image.topic(&topic.name).and_then(|image| broker.partition(image, partition_index));
        let outcome = match partition {
            None => Err(ErrorCode::UnknownTopicOrPartition),
            Some(_) if producer.id < 0 || producer.epoch < 0 => Err(ErrorCode::InvalidProducerEpoch),
            Some(partition) => write_marker(broker, &partition, producer, marker).await,
        };
        partitions.push(WritableTxnMarkerPartitionResult {
            partition_index,
            error_code: outcome.err().unwrap_or(ErrorCode::None).code(),
        });
    }
    WritableTxnMarkerTopicResult {
        name: topic.name,
        partitions,
    }
}
