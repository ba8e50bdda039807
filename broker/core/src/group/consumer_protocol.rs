//! What members of the classic protocol tell each other through the coordinator, which reads it when a group changes its protocol:
//! `ConsumerProtocolSubscription` and `ConsumerProtocolAssignment`, each behind an `i16` version.

use bytes::{BufMut, Bytes, BytesMut};
use millstream_protocol::{
    Decoder, KString, Message,
    chunk::Chunk,
    messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription, consumer_protocol_assignment::TopicPartition},
    wire::Encoder,
};

use crate::{metadata::names::TOPIC_NAME_BYTES_MAX, records::RECORD_STRING_BYTES_MAX};

/// The newest version of both; later ones only add to it.
const VERSION_MAX: i16 = 3;

/// Partitions by topic name.
pub(super) type NamedPartitions = Vec<(String, Vec<i32>)>;

/// A member's metadata.
pub(super) struct Subscribed {
    pub topics: Vec<String>,
    pub owned: NamedPartitions,
    pub rack_id: Option<String>,
}

/// A member's assignment.
#[derive(Default)]
pub(super) struct Assigned {
    pub partitions: NamedPartitions,
    /// Its assignor keeps more in it than partitions.
    pub has_user_data: bool,
}

/// The version that comes first, as far as it is known here; `None` if that cannot be.
fn version_and_rest(bytes: &Bytes) -> Option<(i16, Bytes)> {
    let version = i16::from_be_bytes(*bytes.first_chunk::<2>()?);
    (version >= 0).then(|| (version.min(VERSION_MAX), bytes.slice(2..)))
}

/// The version of a member's metadata, in which its assignment is written.
pub(super) fn version_of(metadata: &Bytes) -> i16 {
    version_and_rest(metadata).map_or(0, |(version, _)| version)
}

/// Reads a member's metadata; `None` for what is not that of a consumer, or cannot be kept.
pub(super) fn read_subscription(metadata: &Bytes) -> Option<Subscribed> {
    let (version, rest) = version_and_rest(metadata)?;
    let read = ConsumerProtocolSubscription::decode(&mut Decoder::new(rest), version).ok()?;
    let rack_id = read.rack_id.map(String::from).filter(|rack| !rack.is_empty());
    let is_short = |name: &KString| name.as_str().len() <= TOPIC_NAME_BYTES_MAX;
    if !read.topics.iter().all(is_short) || rack_id.as_ref().is_some_and(|rack| rack.len() > RECORD_STRING_BYTES_MAX) {
        return None;
    }
    let owned = read.owned_partitions.into_iter();
    Some(Subscribed {
        topics: read.topics.into_iter().map(String::from).collect(),
        owned: owned.map(|owned| (owned.topic.into(), owned.partitions)).collect(),
        rack_id,
    })
}

/// Reads an assignment; no bytes are no partitions.
pub(super) fn read_assignment(bytes: &Bytes) -> Option<Assigned> {
    if bytes.is_empty() {
        return Some(Assigned::default());
    }
    let (version, rest) = version_and_rest(bytes)?;
    let read = ConsumerProtocolAssignment::decode(&mut Decoder::new(rest), version).ok()?;
    let partitions = read.assigned_partitions.into_iter();
    Some(Assigned {
        partitions: partitions.map(|assigned| (assigned.topic.into(), assigned.partitions)).collect(),
        has_user_data: read.user_data.is_some_and(|data| !data.is_empty()),
    })
}

/// Writes an assignment; `None` if it is too large to be told.
pub(super) fn write_assignment(version: i16, partitions: NamedPartitions) -> Option<Bytes> {
    let partitions = partitions.into_iter().map(|(topic, partitions)| TopicPartition {
        topic: topic.into(),
        partitions,
    });
    let assignment = ConsumerProtocolAssignment {
        assigned_partitions: partitions.collect(),
        user_data: None,
    };
    let mut encoder = Encoder::new();
    assignment.encode(&mut encoder, version).ok()?;
    let mut bytes = BytesMut::new();
    bytes.put_i16(version);
    for chunk in encoder.finish() {
        let Chunk::Bytes(piece) = chunk else { return None };
        bytes.put(piece);
    }
    Some(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_read_back_and_damage_is_noticed() {
        let partitions = vec![("t".to_owned(), vec![0, 7]), ("u".to_owned(), vec![])];
        for version in 0..=VERSION_MAX {
            let bytes = write_assignment(version, partitions.clone()).unwrap();
            assert_eq!(version_of(&bytes), version);
            let read = read_assignment(&bytes).unwrap();
            assert_eq!((read.partitions, read.has_user_data), (partitions.clone(), false));
            for end in 1..bytes.len() {
                assert!(read_assignment(&bytes.slice(..end)).is_none(), "cut at {end}");
            }
        }
        assert!(read_assignment(&Bytes::new()).unwrap().partitions.is_empty());
        assert!(read_assignment(&Bytes::from_static(&[0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0])).is_none());
    }

    #[test]
    fn fuzz_what_consumers_tell_each_other() {
        let subscription = [
            0, 3, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 9, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 5, 0, 1, b'r',
        ];
        let assignment = write_assignment(1, vec![("t".to_owned(), vec![0, 1]), ("u".to_owned(), vec![2])]).unwrap();
        millstream_fuzz::fuzz("consumer protocol", &[subscription.to_vec(), assignment.to_vec()], |input| {
            let bytes = Bytes::copy_from_slice(input);
            let assignment = read_assignment(&bytes);
            if let Some(read) = &assignment {
                let again = write_assignment(version_of(&bytes), read.partitions.clone()).unwrap();
                assert_eq!(read_assignment(&again).unwrap().partitions, read.partitions);
            }
            read_subscription(&bytes).is_some() || assignment.is_some()
        });
    }

    #[test]
    fn subscriptions_of_all_versions_are_read() {
        // Version 1: topic "t", no user data, owns t-3. Version 9 is read as 3, without what it may add.
        let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff];
        bytes.extend([0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 3]);
        let read = read_subscription(&Bytes::from(bytes.clone())).unwrap();
        assert_eq!((read.topics, read.owned), (vec!["t".to_owned()], vec![("t".to_owned(), vec![3])]));
        bytes[1] = 9;
        bytes.extend([0, 0, 0, 1, 0, 1, b'r', 99, 99]);
        assert_eq!(
            read_subscription(&Bytes::from(bytes.clone())).unwrap().rack_id.as_deref(),
            Some("r")
        );
        assert!(read_subscription(&Bytes::from_static(&[0, 0, 0x7f, 0xff, 0xff, 0xff])).is_none());
        let long = [&[0, 0, 0, 0, 0, 1, 1, 0][..], &[b't'; 256], &[0xff; 4]].concat();
        assert!(read_subscription(&Bytes::from(long)).is_none());
    }
}
