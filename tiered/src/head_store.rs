//! Reading and conditionally replacing a head.
//!
//! | store | used for | how |
//! |---|---|---|
//! | `EtagHead` | S3, memory | one object, replaced with `If-Match`, created with `If-None-Match: *` |
//! | `SeqHead` | directories, stores without `If-Match` | objects `head/<seq:020>`, created only if absent; the highest number is the head |
//!
//! Create-only numbers alone are not safe: a stalled writer could create a number again that was deleted long ago, and believe it.
//! So after a create, `SeqHead` lists for a higher number, and only "nothing higher" is a success (model-checked).

use std::fmt::Debug;

use bytes::Bytes;
use futures_util::{TryStreamExt, future::BoxFuture};
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion, path::Path};

use crate::{envelope::FRAME_BYTES_MAX, store::SharedStore};

/// How many old heads `SeqHead` keeps, for a reader that listed them before they were deleted.
const OLD_HEADS_KEPT: u64 = 16;
/// How often `SeqHead` lists again when the highest head vanished under it.
const LIST_ATTEMPTS: u32 = 8;

/// The version of a head object, opaque outside its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadVersion(String);

#[cfg(test)]
impl HeadVersion {
    pub(crate) fn fake(number: u64) -> HeadVersion {
        HeadVersion(number.to_string())
    }
}

/// Why a conditional write did not succeed for certain.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The head has another version; possibly because this very write was applied before.
    #[error("the head has another version")]
    Conflict,
    /// The store failed; the write may have been applied.
    #[error("the write may or may not be applied: {0}")]
    Unknown(#[source] StoreError),
}

/// A place for heads that can compare and set.
pub trait HeadStore: Send + Sync + Debug {
    /// Reads the head under `key`; `None` if there is none.
    fn get<'a>(&'a self, key: &'a Path) -> BoxFuture<'a, Result<Option<(Bytes, HeadVersion)>, StoreError>>;
    /// Replaces the head under `key` if its version is `expected`; `None` creates it.
    fn put_if<'a>(&'a self, key: &'a Path, expected: Option<&'a HeadVersion>, bytes: Bytes)
    -> BoxFuture<'a, Result<HeadVersion, PutError>>;
}

/// Heads in a store with `If-Match`.
pub struct EtagHead {
    store: SharedStore,
}

impl Debug for EtagHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EtagHead")
    }
}

impl EtagHead {
    /// Keeps heads in `store`, whose client should not retry by itself.
    pub fn new(store: SharedStore) -> Self {
        EtagHead { store }
    }
}

impl HeadStore for EtagHead {
    fn get<'a>(&'a self, key: &'a Path) -> BoxFuture<'a, Result<Option<(Bytes, HeadVersion)>, StoreError>> {
        Box::pin(async move {
            match self.store.get(key).await {
                Ok(found) => {
                    let e_tag = found.meta.e_tag.clone().ok_or_else(|| generic("the store gave no ETag"))?;
                    Ok(Some((bounded_bytes(found).await?, HeadVersion(e_tag))))
                }
                Err(StoreError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn put_if<'a>(
        &'a self,
        key: &'a Path,
        expected: Option<&'a HeadVersion>,
        bytes: Bytes,
    ) -> BoxFuture<'a, Result<HeadVersion, PutError>> {
        Box::pin(async move {
            let mode = match expected {
                Some(version) => PutMode::Update(UpdateVersion {
                    e_tag: Some(version.0.clone()),
                    version: None,
                }),
                None => PutMode::Create,
            };
            let written = self
                .store
                .put_opts(key, bytes.into(), PutOptions::from(mode))
                .await
                .map_err(put_error)?;
            let e_tag = written.e_tag.ok_or_else(|| PutError::Unknown(generic("the store gave no ETag")))?;
            Ok(HeadVersion(e_tag))
        })
    }
}

/// Heads as numbered objects in a store that can only create.
pub struct SeqHead {
    store: SharedStore,
}

impl Debug for SeqHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SeqHead")
    }
}

impl SeqHead {
    /// Keeps heads in `store`.
    pub fn new(store: SharedStore) -> Self {
        SeqHead { store }
    }

    /// Numbers above `above` under `key`, in no order.
    async fn numbers(&self, key: &Path, above: Option<u64>) -> Result<Vec<u64>, StoreError> {
        let listing = match above {
            Some(number) => self.store.list_with_offset(Some(key), &numbered(key, number)),
            None => self.store.list(Some(key)),
        };
        let objects: Vec<_> = listing.try_collect().await?;
        Ok(objects
            .iter()
            .filter_map(|object| object.location.filename()?.parse().ok())
            .collect())
    }

    async fn forget_old(&self, key: &Path, newest: u64) {
        let Some(limit) = newest.checked_sub(OLD_HEADS_KEPT) else { return };
        // Old heads are garbage: whatever fails here is done by a later commit.
        let Ok(numbers) = self.numbers(key, None).await else { return };
        for number in numbers.into_iter().filter(|number| *number <= limit) {
            if let Err(error) = self.store.delete(&numbered(key, number)).await {
                tracing::debug!(%key, number, %error, "old head not deleted");
            }
        }
    }
}

impl HeadStore for SeqHead {
    fn get<'a>(&'a self, key: &'a Path) -> BoxFuture<'a, Result<Option<(Bytes, HeadVersion)>, StoreError>> {
        Box::pin(async move {
            for _ in 0..LIST_ATTEMPTS {
                let Some(newest) = self.numbers(key, None).await?.into_iter().max() else {
                    return Ok(None);
                };
                match self.store.get(&numbered(key, newest)).await {
                    Ok(found) => return Ok(Some((bounded_bytes(found).await?, HeadVersion(newest.to_string())))),
                    Err(StoreError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Err(generic("the newest head vanished again and again"))
        })
    }

    fn put_if<'a>(
        &'a self,
        key: &'a Path,
        expected: Option<&'a HeadVersion>,
        bytes: Bytes,
    ) -> BoxFuture<'a, Result<HeadVersion, PutError>> {
        Box::pin(async move {
            let number = match expected {
                Some(version) => version
                    .0
                    .parse::<u64>()
                    .ok()
                    .and_then(|number| number.checked_add(1))
                    .ok_or(PutError::Conflict)?,
                None => 0,
            };
            self.store
                .put_opts(&numbered(key, number), bytes.into(), PutOptions::from(PutMode::Create))
                .await
                .map_err(put_error)?;
            if self
                .numbers(key, Some(number))
                .await
                .map_err(PutError::Unknown)?
                .into_iter()
                .any(|other| other > number)
            {
                return Err(PutError::Conflict);
            }
            self.forget_old(key, number).await;
            Ok(HeadVersion(number.to_string()))
        })
    }
}

fn numbered(key: &Path, number: u64) -> Path {
    key.clone().join(format!("{number:020}"))
}

async fn bounded_bytes(found: object_store::GetResult) -> Result<Bytes, StoreError> {
    if found.meta.size > FRAME_BYTES_MAX as u64 {
        return Err(generic("the head is larger than any head"));
    }
    found.bytes().await
}

fn put_error(error: StoreError) -> PutError {
    match error {
        StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } => PutError::Conflict,
        other => PutError::Unknown(other),
    }
}

pub(crate) fn generic(reason: &'static str) -> StoreError {
    StoreError::Generic {
        store: "millstream",
        source: reason.into(),
    }
}

#[cfg(test)]
#[path = "head_store_tests.rs"]
mod tests;
