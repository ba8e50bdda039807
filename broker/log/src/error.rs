//! What can go wrong with a log: operational failures, and appends that the log's state forbids.

use std::{io, path::PathBuf};

use millstream_protocol::record::BatchError;

/// An operational failure of a log or its directory.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system refused an operation.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Damage where data had been reported as durable. It is left as it is for repair.
    #[error("segment {} is damaged at byte {position}, below its recovery point: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the first bad batch starts.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// A checkpoint, index or snapshot that cannot be read.
    #[error("{} is damaged: {reason}", path.display())]
    CorruptFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// Another process uses the log directory.
    #[error("data directory {} is in use by another process; stop it or choose another directory", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A sync failed earlier; nothing may be trusted or written any more.
    #[error("log directory {} is offline since a sync failed; replace the disk and restart", path.display())]
    Offline {
        /// The directory.
        path: PathBuf,
    },
    /// The log was deleted while somebody still held it.
    #[error("log {} was deleted", path.display())]
    Deleted {
        /// The log's directory.
        path: PathBuf,
    },
    /// The offset is not in the log.
    #[error("offset {offset} is not in {}, which holds {start} to {end}", path.display())]
    OutOfRange {
        /// The log's directory.
        path: PathBuf,
        /// The wanted offset.
        offset: i64,
        /// First offset that is there.
        start: i64,
        /// End of the log (exclusive).
        end: i64,
    },
}

impl LogError {
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }

    /// Whether the disk is full, which passes when space is freed.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }
}

/// Why a batch was not appended. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk or the log's state.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The batch itself.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The sequence does not follow the producer's last one.
    #[error("producer {producer_id} sent sequence {found}, expected {expected}")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// Its base sequence.
        found: i32,
        /// What should have come.
        expected: i32,
    },
    /// A newer instance of the producer has written.
    #[error("producer {producer_id} sent epoch {found}, {current} is current")]
    FencedProducerEpoch {
        /// The producer.
        producer_id: i64,
        /// Its epoch.
        found: i16,
        /// The current epoch.
        current: i16,
    },
    /// A transactional batch without an open or verified transaction, or a plain one inside its producer's transaction.
    #[error("producer {producer_id} with epoch {epoch} has no transaction on this partition that the batch could belong to")]
    InvalidTransactionState {
        /// The producer.
        producer_id: i64,
        /// Its epoch.
        epoch: i16,
    },
    /// A newer transaction coordinator has written.
    #[error("transaction coordinator epoch {found} is fenced, {current} is current")]
    FencedCoordinator {
        /// Epoch of the coordinator that sent the marker.
        found: i32,
        /// The current epoch.
        current: i32,
    },
    /// The batch would not fit into a segment.
    #[error("batch of {size} bytes exceeds the segment size of {segment_bytes}")]
    TooLarge {
        /// Size of the batch.
        size: usize,
        /// `segment.bytes`.
        segment_bytes: u64,
    },
}
