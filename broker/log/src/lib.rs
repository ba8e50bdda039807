//! One partition's log on disk.
//!
//! A log is a directory of segments. A segment is a file of whole record batches, byte for byte as they are served, named by
//! its base offset; when it is full it is *rolled*: a new one takes the appends, and the old one is *sealed* (synced, its
//! index and a producer snapshot written) by the next group sync.
//!
//! ```text
//! <log dir>/.lock                       held by the process that uses the directory
//! <log dir>/.clean                      present only after a clean stop
//! <log dir>/<topic uuid>-<partition>/
//!     cleaner                           how far compaction got, and when
//!     checkpoint                        log start offset, recovery point, leader epochs
//!     00000000000000000000.log          record batches
//!     00000000000000000000.idx          sparse offset and time index, written when sealed or cleanly closed
//!     00000000000000004711.snapshot     producer state before offset 4711
//! ```
//!
//! Promises:
//! - An append is in the page cache when [`Log::append`] returns and on disk when [`LogObserver::durable`] has reported it.
//! - A failed sync is final: the log directory refuses everything from then on, as pages may be gone though a retry "succeeds".
//! - After a crash a log ends at the last whole batch that was written; damage below the recovery point is never truncated
//!   away but refused.
//! - No replication rules and no runtime in here: who may read up to where is the caller's business.

mod checkpoint;
mod compact;
mod config;
mod dir;
pub mod disk;
mod error;
mod index;
mod log;
mod producer;
mod read;
mod recovery;
pub mod remote;
mod segment;
mod sync;
mod transactions;

pub use compact::{CompactOptions, Compacted, Dirtiness, KEY_BYTES};
pub use config::LogConfig;
pub use dir::{LogDir, LogDirOptions};
pub use error::{AppendError, LogError};
pub use log::{Appended, Log, OpenMode};
pub use producer::{FirstBatch, ProducerEntry, ProducerStates, TransactionState, VerificationGuard};
pub use read::{LogRead, TimestampAndOffset};
pub use sync::LogObserver;
pub use transactions::AbortedTransaction;
