//! How a component lies in `__millstream_plugins`: chunk records, one per batch, and tombstones under the same keys.
//!
//! ```text
//! key    {"name":"redact","version":"1.0.0","sha256":"…64 hex…","chunk":0,"chunks":3}
//! value  bytes chunk * 512 KiB .. of the component; null once the plugin was removed
//! ```
//! `chunk` counts from 0. A later record of a key replaces an earlier one, so a push that broke off is repaired by the next one.
//! Nothing that is read here is trusted: a component counts only when its chunks are all there and hash to the SHA-256 that the
//! cluster's metadata names.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use millstream_core::transform::Artefact;
use millstream_protocol::compression::{Compression, CompressionError};
use millstream_protocol::record::{BatchBuilder, BatchError, BatchHeader, NewRecord, RecordIter};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Bytes of a component in one record.
const CHUNK_BYTES: usize = 512 << 10;
/// Most chunks of a component: the core takes components of 32 MiB.
const CHUNKS_MAX: u32 = 64;
/// Most bytes that one batch of the topic may decompress to. We write no compressed ones, but a restored topic may hold them.
const BATCH_BUDGET_BYTES: usize = 2 * CHUNK_BYTES;

/// Which component, and which part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChunkKey {
    name: String,
    version: String,
    sha256: String,
    chunk: u32,
    chunks: u32,
}

/// Why a batch of the topic could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// Its key cannot be written.
    #[error("encode chunk key: {0}")]
    Key(#[from] serde_json::Error),
    /// The batch.
    #[error("plugin chunk: {0}")]
    Batch(#[from] BatchError),
    /// Its record section.
    #[error("plugin chunk: {0}")]
    Compression(#[from] CompressionError),
    /// More bytes than a component may have.
    #[error("component of {bytes} bytes needs more than {CHUNKS_MAX} chunks")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Lower-case hexadecimal SHA-256.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The batches that store a component.
pub(super) fn store_batches(artefact: &Artefact, now_ms: i64) -> Result<Vec<(BatchHeader, Bytes)>, ChunkError> {
    let chunks = chunk_count(artefact.component.len())?;
    let parts = artefact.component.chunks(CHUNK_BYTES);
    (0..chunks)
        .zip(parts)
        .map(|(chunk, part)| batch(&key(artefact, chunk, chunks), Some(part), now_ms))
        .collect()
}

/// The batches that make compaction forget a component.
pub(super) fn tombstone_batches(artefact: &Artefact, now_ms: i64) -> Result<Vec<(BatchHeader, Bytes)>, ChunkError> {
    let chunks = chunk_count(artefact.component.len())?;
    (0..chunks)
        .map(|chunk| batch(&key(artefact, chunk, chunks), None, now_ms))
        .collect()
}

fn chunk_count(bytes: usize) -> Result<u32, ChunkError> {
    let chunks = u32::try_from(bytes.div_ceil(CHUNK_BYTES)).ok();
    chunks.filter(|chunks| *chunks <= CHUNKS_MAX).ok_or(ChunkError::TooLarge { bytes })
}

fn key(artefact: &Artefact, chunk: u32, chunks: u32) -> ChunkKey {
    let Artefact { name, version, sha256, .. } = artefact;
    ChunkKey {
        name: name.clone(),
        version: version.clone(),
        sha256: sha256.clone(),
        chunk,
        chunks,
    }
}

fn batch(key: &ChunkKey, value: Option<&[u8]>, now_ms: i64) -> Result<(BatchHeader, Bytes), ChunkError> {
    let key = serde_json::to_vec(key)?;
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(&NewRecord {
        timestamp: now_ms,
        key: Some(&key),
        value,
        headers: Vec::new(),
    });
    let batch = builder.build()?;
    Ok((BatchHeader::parse(&batch)?, batch))
}

/// Artefacts by name and version.
pub(super) type Artefacts = HashMap<(String, String), Arc<Artefact>>;

/// Puts components together from the records of the topic, in their order.
pub(super) struct Replay {
    wanted: BTreeMap<(String, String), String>,
    parts: BTreeMap<(String, String), BTreeMap<u32, Bytes>>,
}

impl Replay {
    /// `wanted`: name and version of what is to be kept, with its SHA-256.
    pub fn new(wanted: BTreeMap<(String, String), String>) -> Self {
        Self {
            wanted,
            parts: BTreeMap::new(),
        }
    }

    /// Takes the next batch. Records that are not ours are passed over with a warning: they cannot become part of a component
    /// without the right hash.
    pub fn batch(&mut self, header: &BatchHeader, batch: &Bytes) -> Result<(), ChunkError> {
        if header.is_control() {
            return Ok(());
        }
        let section = header
            .compression()?
            .decompress(&batch.slice(BatchHeader::SIZE..), BATCH_BUDGET_BYTES)?;
        for record in RecordIter::new(&section, header.record_count) {
            let record = record?;
            let offset = header.base_offset + i64::from(record.offset_delta);
            match serde_json::from_slice::<ChunkKey>(record.key.unwrap_or_default()) {
                Ok(key) => self.record(key, record.value.map(|value| section.slice_ref(value))),
                Err(error) => tracing::warn!(offset, %error, "a record of the plugin store has no valid key"),
            }
        }
        Ok(())
    }

    fn record(&mut self, key: ChunkKey, value: Option<Bytes>) {
        let id = (key.name, key.version);
        if self.wanted.get(&id) != Some(&key.sha256) || key.chunk >= key.chunks || key.chunks > CHUNKS_MAX {
            return;
        }
        let parts = self.parts.entry(id).or_default();
        match value {
            Some(value) if value.len() <= CHUNK_BYTES => {
                parts.insert(key.chunk, value);
            }
            Some(_) | None => {
                parts.remove(&key.chunk);
            }
        }
    }

    /// The components that are whole, and name and version of those that are not.
    pub fn finish(mut self) -> (Artefacts, Vec<(String, String)>) {
        let mut whole = Artefacts::new();
        let mut missing = Vec::new();
        for (id, sha256) in self.wanted {
            let parts = self.parts.remove(&id).unwrap_or_default();
            let mut component = BytesMut::with_capacity(parts.values().map(Bytes::len).sum());
            for part in parts.values() {
                component.extend_from_slice(part);
            }
            if sha256_hex(&component) == sha256 {
                let (name, version) = id.clone();
                whole.insert(
                    id,
                    Arc::new(Artefact {
                        name,
                        version,
                        sha256,
                        component: component.freeze(),
                    }),
                );
            } else {
                missing.push(id);
            }
        }
        (whole, missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artefact(len: usize) -> Artefact {
        let component: Bytes = (0..len).map(|index| u8::try_from(index % 251).unwrap()).collect();
        Artefact {
            name: "p".to_owned(),
            version: "1.0.0".to_owned(),
            sha256: sha256_hex(&component),
            component,
        }
    }

    fn wanted(artefact: &Artefact) -> BTreeMap<(String, String), String> {
        BTreeMap::from([((artefact.name.clone(), artefact.version.clone()), artefact.sha256.clone())])
    }

    fn replay(wanted: BTreeMap<(String, String), String>, batches: &[(BatchHeader, Bytes)]) -> (Artefacts, Vec<(String, String)>) {
        let mut replay = Replay::new(wanted);
        for (header, batch) in batches {
            replay.batch(header, batch).unwrap();
        }
        replay.finish()
    }

    fn id() -> (String, String) {
        ("p".to_owned(), "1.0.0".to_owned())
    }

    #[test]
    fn sha256_is_lower_case_hexadecimal() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn components_of_all_sizes_come_back() {
        for (len, batches) in [(1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2), (3 * CHUNK_BYTES - 1, 3)] {
            let artefact = artefact(len);
            let stored = store_batches(&artefact, 7).unwrap();
            assert_eq!(stored.len(), batches, "{len}");
            let (whole, missing) = replay(wanted(&artefact), &stored);
            assert!(missing.is_empty());
            assert_eq!(whole[&id()].component, artefact.component, "{len}");
        }
    }

    #[test]
    fn the_largest_component_fits_and_one_byte_more_does_not() {
        let max = CHUNK_BYTES * usize::try_from(CHUNKS_MAX).unwrap();
        assert_eq!(chunk_count(max).unwrap(), CHUNKS_MAX);
        assert!(matches!(chunk_count(max + 1), Err(ChunkError::TooLarge { .. })));
    }

    #[test]
    fn a_broken_push_is_missing_until_it_is_repeated() {
        let artefact = artefact(2 * CHUNK_BYTES);
        let mut stored = store_batches(&artefact, 0).unwrap();
        let second = stored.pop().unwrap();
        assert_eq!(replay(wanted(&artefact), &stored).1, [id()]);
        stored.extend(store_batches(&artefact, 0).unwrap());
        stored.push(second);
        assert!(replay(wanted(&artefact), &stored).0.contains_key(&id()));
    }

    #[test]
    fn removed_and_unwanted_components_are_not_kept() {
        let artefact = artefact(CHUNK_BYTES + 1);
        let mut stored = store_batches(&artefact, 0).unwrap();
        assert!(replay(BTreeMap::new(), &stored).0.is_empty());
        stored.extend(tombstone_batches(&artefact, 0).unwrap());
        assert_eq!(replay(wanted(&artefact), &stored).1, [id()]);
        stored.extend(store_batches(&artefact, 0).unwrap());
        assert!(
            replay(wanted(&artefact), &stored).0.contains_key(&id()),
            "pushed again after the removal"
        );
    }

    #[test]
    fn other_bytes_under_the_right_key_are_refused() {
        let good = artefact(10);
        let forged = Artefact {
            component: Bytes::from_static(b"other"),
            ..good.clone()
        };
        assert_eq!(replay(wanted(&good), &store_batches(&forged, 0).unwrap()).1, [id()]);
    }

    #[test]
    fn foreign_records_are_passed_over() {
        let good = artefact(10);
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(&NewRecord {
            key: Some(b"not json"),
            value: Some(b"x"),
            ..NewRecord::default()
        });
        builder.push(&NewRecord::default());
        let foreign = builder.build().unwrap();
        let mut batches = vec![(BatchHeader::parse(&foreign).unwrap(), foreign)];
        batches.extend(store_batches(&good, 0).unwrap());
        assert!(replay(wanted(&good), &batches).1.is_empty());
    }
}
