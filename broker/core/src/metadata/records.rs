//! The records of the metadata log and their bytes.
//!
//! A record is JSON: `{"type":1,"version":0,"body":{…}}`. Numbers are forever: a type or version that was ever written keeps its
//! meaning, and a body that gains, loses or changes a field is a new version with the old one still readable. Reading is
//! strict, as a record that is understood in part would give brokers different images: an unknown type, version or field is
//! an error that says so.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    configs::Overrides,
    id,
    image::{BindingImage, PartitionImage, PluginImage},
};
use crate::quota::{QuotaEntity, QuotaValues};

/// Longest record that is read or written, in bytes: a topic of 10,000 partitions with five replicas needs about one MiB.
pub const RECORD_BYTES_MAX: usize = 8 << 20;

/// A topic came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicCreated {
    /// Name.
    pub name: String,
    /// Id.
    #[serde(with = "id::text")]
    pub id: Uuid,
    /// Whether it is the broker's own.
    pub internal: bool,
    /// When.
    pub created_ms: i64,
    /// Values set on it.
    pub configs: Overrides,
    /// Its partitions from 0.
    pub partitions: Vec<PartitionImage>,
}

/// A topic or view went away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deleted {
    /// Its id.
    #[serde(with = "id::text")]
    pub id: Uuid,
}

/// A topic grew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionsAdded {
    /// The topic.
    #[serde(with = "id::text")]
    pub topic_id: Uuid,
    /// Number of the first new partition: how many there were.
    pub first: u32,
    /// The new partitions.
    pub partitions: Vec<PartitionImage>,
}

/// A partition got another leader, leader epoch or set of replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionChanged {
    /// The topic.
    #[serde(with = "id::text")]
    pub topic_id: Uuid,
    /// The partition's number.
    pub number: u32,
    /// What it is now.
    pub partition: PartitionImage,
}

/// Whose configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ConfigTarget {
    /// A topic or view, by id.
    Topic {
        /// Its id.
        #[serde(with = "id::text")]
        id: Uuid,
    },
    /// One broker.
    Broker {
        /// Its id.
        id: i32,
    },
    /// All brokers.
    AllBrokers,
    /// A group.
    Group {
        /// Its id.
        name: String,
    },
    /// A client metrics subscription.
    ClientMetrics {
        /// Its name.
        name: String,
    },
}

/// The values set on something, all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigsReplaced {
    /// On what.
    pub target: ConfigTarget,
    /// The values that are now set.
    pub configs: Overrides,
}

/// A view came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewCreated {
    /// Name.
    pub name: String,
    /// Id.
    #[serde(with = "id::text")]
    pub id: Uuid,
    /// Name of the topic or view it reads.
    pub source: String,
    /// Its chain.
    pub bindings: Vec<BindingImage>,
    /// Values set on it.
    pub configs: Overrides,
    /// When.
    pub created_ms: i64,
}

/// A plugin version went away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginRemoved {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
}

/// A plugin was bound to a topic or view; a binding of the same name is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginBound {
    /// The topic or view.
    #[serde(with = "id::text")]
    pub id: Uuid,
    /// The binding.
    pub binding: BindingImage,
}

/// A binding went away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginUnbound {
    /// The topic or view.
    #[serde(with = "id::text")]
    pub id: Uuid,
    /// The binding's name.
    pub name: String,
}

/// A block of producer ids was given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProducerIdsAllocated {
    /// First id after the block.
    pub next_producer_id: i64,
}

/// The quotas of an entity, all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotasReplaced {
    /// Whose.
    pub entity: QuotaEntity,
    /// The values that are now set.
    pub values: QuotaValues,
}

/// A feature got another level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureLevelSet {
    /// Its name.
    pub feature: String,
    /// Its level.
    pub level: i16,
}

/// One change of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataRecord {
    /// Type 1.
    TopicCreated(TopicCreated),
    /// Type 2.
    TopicDeleted(Deleted),
    /// Type 3.
    PartitionsAdded(PartitionsAdded),
    /// Type 4.
    PartitionChanged(PartitionChanged),
    /// Type 5.
    ConfigsReplaced(ConfigsReplaced),
    /// Type 6.
    ViewCreated(ViewCreated),
    /// Type 7.
    ViewDeleted(Deleted),
    /// Type 8.
    PluginRegistered(PluginImage),
    /// Type 9.
    PluginRemoved(PluginRemoved),
    /// Type 10.
    PluginBound(PluginBound),
    /// Type 11.
    PluginUnbound(PluginUnbound),
    /// Type 12.
    ProducerIdsAllocated(ProducerIdsAllocated),
    /// Type 13.
    QuotasReplaced(QuotasReplaced),
    /// Type 14.
    FeatureLevelSet(FeatureLevelSet),
}

/// Why bytes are not a record, or a record does not become bytes.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Longer than any record is.
    #[error("metadata record of {bytes} bytes is longer than {RECORD_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A newer broker wrote it.
    #[error("metadata record type {kind} version {version} is unknown to this version of millstream")]
    Unknown {
        /// The type.
        kind: u16,
        /// The version.
        version: u16,
    },
    /// Not what its type says.
    #[error("malformed metadata record: {0}")]
    Malformed(#[from] serde_json::Error),
}

#[derive(Serialize)]
struct EnvelopeOut<'a, T> {
    #[serde(rename = "type")]
    kind: u16,
    version: u16,
    body: &'a T,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeIn<'a> {
    #[serde(rename = "type")]
    kind: u16,
    version: u16,
    #[serde(borrow)]
    body: &'a RawValue,
}

impl MetadataRecord {
    /// The record as bytes.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let bytes = match self {
            Self::TopicCreated(body) => write(1, body),
            Self::TopicDeleted(body) => write(2, body),
            Self::PartitionsAdded(body) => write(3, body),
            Self::PartitionChanged(body) => write(4, body),
            Self::ConfigsReplaced(body) => write(5, body),
            Self::ViewCreated(body) => write(6, body),
            Self::ViewDeleted(body) => write(7, body),
            Self::PluginRegistered(body) => write(8, body),
            Self::PluginRemoved(body) => write(9, body),
            Self::PluginBound(body) => write(10, body),
            Self::PluginUnbound(body) => write(11, body),
            Self::ProducerIdsAllocated(body) => write(12, body),
            Self::QuotasReplaced(body) => write(13, body),
            Self::FeatureLevelSet(body) => write(14, body),
        }?;
        check_length(bytes.len()).map(|()| bytes)
    }

    /// The record that [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        check_length(bytes.len())?;
        let EnvelopeIn { kind, version, body } = serde_json::from_slice(bytes)?;
        match (kind, version) {
            (1, 0) => read(body).map(Self::TopicCreated),
            (2, 0) => read(body).map(Self::TopicDeleted),
            (3, 0) => read(body).map(Self::PartitionsAdded),
            (4, 0) => read(body).map(Self::PartitionChanged),
            (5, 0) => read(body).map(Self::ConfigsReplaced),
            (6, 0) => read(body).map(Self::ViewCreated),
            (7, 0) => read(body).map(Self::ViewDeleted),
            (8, 0) => read(body).map(Self::PluginRegistered),
            (9, 0) => read(body).map(Self::PluginRemoved),
            (10, 0) => read(body).map(Self::PluginBound),
            (11, 0) => read(body).map(Self::PluginUnbound),
            (12, 0) => read(body).map(Self::ProducerIdsAllocated),
            (13, 0) => read(body).map(Self::QuotasReplaced),
            (14, 0) => read(body).map(Self::FeatureLevelSet),
            (kind, version) => Err(RecordError::Unknown { kind, version }),
        }
    }
}

fn write<T: Serialize>(kind: u16, body: &T) -> Result<Vec<u8>, RecordError> {
    Ok(serde_json::to_vec(&EnvelopeOut { kind, version: 0, body })?)
}

fn read<T: DeserializeOwned>(body: &RawValue) -> Result<T, RecordError> {
    Ok(serde_json::from_str(body.get())?)
}

fn check_length(bytes: usize) -> Result<(), RecordError> {
    if bytes > RECORD_BYTES_MAX {
        Err(RecordError::TooLong { bytes })
    } else {
        Ok(())
    }
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
