//! The two descriptions in the bucket that are not needed to read records: `millstream.json`, which says that this prefix holds
//! a tier and in which format, and a topic's `topic.json`, which says its name and whether it is being deleted.

use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{layout::Layout, store::TierError};

/// The format of everything in the bucket.
pub(crate) const FORMAT: u32 = 1;
const DOCUMENT_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
    cluster_ids: Vec<String>,
}

/// Where a topic's objects are in their life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Lifecycle {
    /// In use.
    Live,
    /// The topic was deleted and its objects are going. Final: a topic id is never used again.
    Purging,
    /// Nothing is left but this mark.
    Purged,
}

/// What `topic.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicJson {
    /// The topic's id.
    pub topic_id: String,
    /// The topic's name, for people.
    pub name: String,
    /// Where it is in its life.
    pub lifecycle: Lifecycle,
}

/// Creates the bucket's marker, or checks the one that is there.
pub(crate) async fn check_marker(store: &dyn ObjectStore, layout: &Layout, cluster_id: Uuid) -> Result<(), TierError> {
    let key = layout.marker();
    let failed = |operation| move |source| TierError::Store { operation, source };
    let marker = Marker {
        format: FORMAT,
        cluster_ids: vec![cluster_id.to_string()],
    };
    match store.put_opts(&key, json(&marker).into(), PutOptions::from(PutMode::Create)).await {
        Ok(_) => return Ok(()),
        Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {}
        Err(source) => {
            return Err(TierError::Store {
                operation: "create millstream.json",
                source,
            });
        }
    }
    let found = store.get(&key).await.map_err(failed("read millstream.json"))?;
    if found.meta.size > DOCUMENT_BYTES_MAX {
        return Err(TierError::Marker);
    }
    let bytes = found.bytes().await.map_err(failed("read millstream.json"))?;
    match serde_json::from_slice::<Marker>(&bytes) {
        Ok(marker) if marker.format == FORMAT => Ok(()),
        Ok(_) | Err(_) => Err(TierError::Marker),
    }
}

/// Writes a topic's description.
pub(crate) async fn write_topic(store: &dyn ObjectStore, layout: &Layout, topic_id: Uuid, topic: &TopicJson) -> Result<(), StoreError> {
    store.put(&layout.topic_json(topic_id), json(topic).into()).await.map(|_| ())
}

/// Reads a topic's description; `None` if there is none, or none that can be read.
pub(crate) async fn read_topic(store: &dyn ObjectStore, layout: &Layout, topic_id: Uuid) -> Result<Option<TopicJson>, StoreError> {
    match store.get(&layout.topic_json(topic_id)).await {
        Ok(found) if found.meta.size > DOCUMENT_BYTES_MAX => Ok(None),
        Ok(found) => Ok(serde_json::from_slice(&found.bytes().await?).ok()),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn json(document: &impl Serialize) -> Vec<u8> {
    // Plain structs with string keys: JSON can hold every one of them.
    serde_json::to_vec(document).unwrap_or_else(|error| panic!("document does not serialize: {error}"))
}
