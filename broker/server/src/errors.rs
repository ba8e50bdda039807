//! From operational failures to Kafka's error codes: one place per family, each exhaustive.

use millstream_log::{AppendError, LogError, remote::RemoteError};
use millstream_protocol::{ErrorCode, KString, record::BatchError};

/// Longest message in an answer, in bytes; it may repeat what a client sent.
const MESSAGE_BYTES_MAX: usize = 1000;

/// A message as an answer can hold it.
pub(crate) fn message(text: &str) -> KString {
    KString::from(&text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)])
}

/// The code of a failed log operation. All of Kafka's consumers know these in a Fetch response.
pub(crate) fn log_error_code(error: &LogError) -> ErrorCode {
    match error {
        LogError::Io { .. } | LogError::Locked { .. } | LogError::Offline { .. } | LogError::CorruptFile { .. } => {
            ErrorCode::KafkaStorageError
        }
        LogError::Corrupt { .. } => ErrorCode::CorruptMessage,
        LogError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        LogError::Deleted { .. } => ErrorCode::UnknownTopicOrPartition,
    }
}

/// The code of a refused append.
pub(crate) fn append_error_code(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::Log(error) => log_error_code(error),
        AppendError::Batch(error) => batch_error_code(error),
        AppendError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        AppendError::FencedProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
        AppendError::InvalidTransactionState { .. } => ErrorCode::InvalidTxnState,
        AppendError::FencedCoordinator { .. } => ErrorCode::TransactionCoordinatorFenced,
        AppendError::TooLarge { .. } => ErrorCode::MessageTooLarge,
    }
}

/// The code of a batch that cannot be read: bytes that changed on the way are CORRUPT_MESSAGE and retriable, the rest is the producer's mistake.
/// The lines are drawn where Kafka draws them.
pub(crate) fn batch_error_code(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::Crc { .. } | BatchError::Field { field: "length", .. } => ErrorCode::CorruptMessage,
        BatchError::Magic { magic } if *magic < 0 || *magic > 2 => ErrorCode::CorruptMessage,
        BatchError::Truncated { .. } | BatchError::Magic { .. } | BatchError::Field { .. } | BatchError::Record { .. } => {
            ErrorCode::InvalidRecord
        }
    }
}

/// The code of a failed read of the tier. The bucket's failures are retriable; damage is not.
pub(crate) fn remote_error_code(error: &RemoteError) -> ErrorCode {
    match error {
        RemoteError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        RemoteError::Unavailable { .. } => ErrorCode::KafkaStorageError,
        RemoteError::Corrupt { .. } => ErrorCode::CorruptMessage,
    }
}

#[cfg(test)]
mod tests {
    use std::{io, path::PathBuf};

    use millstream_log::remote::TopicIdPartition;
    use uuid::Uuid;

    use super::*;

    /// What Java's consumer knows in a Fetch answer; others make it throw IllegalStateException.
    const KNOWN_IN_FETCH: [ErrorCode; 4] = [
        ErrorCode::KafkaStorageError,
        ErrorCode::CorruptMessage,
        ErrorCode::OffsetOutOfRange,
        ErrorCode::UnknownTopicOrPartition,
    ];

    #[test]
    fn failed_reads_have_codes_that_consumers_know() {
        let path = || PathBuf::from("x");
        let of_log = [
            LogError::Io {
                operation: "read",
                path: path(),
                source: io::ErrorKind::UnexpectedEof.into(),
            },
            LogError::Corrupt {
                path: path(),
                position: 1,
                reason: String::new(),
            },
            LogError::CorruptFile { path: path(), reason: "" },
            LogError::Locked { path: path() },
            LogError::Offline { path: path() },
            LogError::Deleted { path: path() },
            LogError::OutOfRange {
                path: path(),
                offset: 1,
                start: 2,
                end: 3,
            },
        ];
        let partition = TopicIdPartition {
            topic_id: Uuid::nil(),
            partition: 0,
        };
        let of_tier = [
            RemoteError::OutOfRange { partition, offset: 1 },
            RemoteError::Unavailable {
                partition,
                offset: 1,
                reason: String::new(),
            },
            RemoteError::Corrupt {
                partition,
                key: String::new(),
                reason: String::new(),
            },
        ];
        let codes = of_log.iter().map(log_error_code).chain(of_tier.iter().map(remote_error_code));
        for code in codes {
            assert!(KNOWN_IN_FETCH.contains(&code), "{code:?}");
        }
    }
}
