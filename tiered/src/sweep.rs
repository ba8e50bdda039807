//! Deletes objects: those in the graveyard, those that crashes left, and those of deleted topics.
//!
//! No rule here looks at the age of an object. A buried one may go because a committed head says so; an unreferenced one may go
//! if an *earlier* epoch wrote it and the head was claimed by the caller (I5), for then its writer can never commit it.

use std::collections::HashSet;

use futures_util::TryStreamExt;
use millstream_log::remote::TopicIdPartition;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, path::Path};
use uuid::Uuid;

use crate::{
    head::Head,
    layout::{Layout, ObjectKind, ObjectName},
    marker::{Lifecycle, TopicJson, read_topic, write_topic},
    partition::Shared,
    work::WorkError,
};

/// Objects that one pass deletes at most, so that other work gets its turn.
const DELETES_PER_PASS_MAX: usize = 1000;

fn failed(operation: &'static str) -> impl Fn(StoreError) -> WorkError {
    move |source| WorkError::Store { operation, source }
}

/// Deletes an object; one that is gone already is fine.
async fn delete(store: &dyn ObjectStore, key: &Path) -> Result<(), StoreError> {
    match store.delete(key).await {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Every object that a head refers to, directly or through a page.
async fn referenced(shared: &Shared, partition: TopicIdPartition, head: &Head) -> Result<HashSet<ObjectName>, WorkError> {
    let mut names: HashSet<ObjectName> = head.segs.iter().map(|seg| seg.name()).collect();
    for page in &head.pages {
        names.insert(page.name());
        names.extend(shared.reader.page(partition, page).await?.iter().map(|seg| seg.name()));
    }
    Ok(names)
}

/// Deletes the objects in the graveyard of a claimed head whose grace is over. Returns their keys, to be committed.
pub(crate) async fn delete_graves(
    shared: &Shared,
    partition: TopicIdPartition,
    head: &Head,
    now_ms: i64,
    grace_ms: i64,
) -> Result<Vec<String>, WorkError> {
    let referenced = referenced(shared, partition, head).await?;
    let alive: HashSet<String> = referenced
        .iter()
        .map(|name| shared.layout.object(partition, name).to_string())
        .collect();
    let folder = shared.layout.partition(partition);
    let mut deleted = Vec::new();
    let due = head.graveyard.iter().filter(|grave| now_ms.saturating_sub(grave.since) >= grace_ms);
    for grave in due.take(DELETES_PER_PASS_MAX) {
        let key = Path::from(grave.key.as_str());
        // A head from elsewhere must not make this broker delete something else.
        if !key.prefix_matches(&folder) || alive.contains(&grave.key) {
            tracing::error!(%partition, key = grave.key, "grave names an object that must not be deleted");
        } else {
            delete(shared.data.as_ref(), &key).await.map_err(failed("delete object"))?;
        }
        deleted.push(grave.key.clone());
    }
    Ok(deleted)
}

/// Deletes what writers of earlier epochs left without a reference. `head` must have been claimed by the caller.
pub(crate) async fn delete_orphans(shared: &Shared, partition: TopicIdPartition, head: &Head) -> Result<usize, WorkError> {
    let referenced = referenced(shared, partition, head).await?;
    let buried: HashSet<&str> = head.graveyard.iter().map(|grave| grave.key.as_str()).collect();
    let mut deleted = 0;
    for kind in [ObjectKind::Segment, ObjectKind::Page] {
        let folder = shared.layout.folder(partition, kind);
        let objects: Vec<_> = shared
            .data
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(failed("list objects"))?;
        for object in objects {
            let Some(name) = object.location.filename().and_then(|file_name| ObjectName::parse(kind, file_name)) else {
                continue;
            };
            let is_orphan = name.epoch < head.epoch && !referenced.contains(&name) && !buried.contains(object.location.as_ref());
            if is_orphan && deleted < DELETES_PER_PASS_MAX {
                delete(shared.data.as_ref(), &object.location)
                    .await
                    .map_err(failed("delete orphan"))?;
                deleted += 1;
            }
        }
    }
    Ok(deleted)
}

/// Deletes everything of a partition whose topic was deleted, after a mark that lets any broker finish the job.
pub(crate) async fn purge_partition(shared: &Shared, partition: TopicIdPartition, name: String) -> Result<(), StoreError> {
    let store = shared.data.as_ref();
    let topic_id = partition.topic_id;
    let topic = TopicJson {
        topic_id: topic_id.to_string(),
        name,
        lifecycle: Lifecycle::Purging,
    };
    write_topic(store, &shared.layout, topic_id, &topic).await?;
    delete_folder(store, &shared.layout.partition(partition), None).await?;
    let mark = shared.layout.topic_json(topic_id);
    let rest: Vec<_> = store.list(Some(&shared.layout.topic(topic_id))).try_collect().await?;
    if rest.iter().all(|object| object.location == mark) {
        write_topic(
            store,
            &shared.layout,
            topic_id,
            &TopicJson {
                lifecycle: Lifecycle::Purged,
                ..topic
            },
        )
        .await?;
    }
    Ok(())
}

/// Finishes the deletion of topics that a crash interrupted. A topic that is marked so is never used again.
pub(crate) async fn resume_purges(store: &dyn ObjectStore, layout: &Layout) -> Result<usize, StoreError> {
    let mut purged = 0;
    for folder in store.list_with_delimiter(Some(&layout.topics())).await?.common_prefixes {
        let Some(topic_id) = folder.filename().and_then(|name| Uuid::parse_str(name).ok()) else {
            continue;
        };
        let Some(topic) = read_topic(store, layout, topic_id).await? else {
            continue;
        };
        if topic.lifecycle == Lifecycle::Purging {
            delete_folder(store, &layout.topic(topic_id), Some(&layout.topic_json(topic_id))).await?;
            write_topic(
                store,
                layout,
                topic_id,
                &TopicJson {
                    lifecycle: Lifecycle::Purged,
                    ..topic
                },
            )
            .await?;
            purged += 1;
        }
    }
    Ok(purged)
}

async fn delete_folder(store: &dyn ObjectStore, folder: &Path, except: Option<&Path>) -> Result<(), StoreError> {
    let objects: Vec<_> = store.list(Some(folder)).try_collect().await?;
    for object in objects.iter().filter(|object| Some(&object.location) != except) {
        delete(store, &object.location).await?;
    }
    Ok(())
}
