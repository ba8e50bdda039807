//! Tiered storage: old segments live in an object store, and readers never notice.
//!
//! | module | what |
//! |---|---|
//! | `tier` | the port `RemoteLog`: attached partitions and their tasks |
//! | `work` | one pass of work: offload, commit, trim, retain, delete |
//! | `commit`, `ops`, `head`, `head_store` | the only commit point, and the protocol that guards it |
//! | `upload`, `segment_builder`, `segment` | segment objects |
//! | `reader`, `fetch`, `read_ahead`, `cache` | from an offset to record batches |
//! | `retention`, `sweep` | what may be deleted, and deleting it |
//! | `store`, `layout`, `marker`, `options` | the bucket |
//!
//! Invariants, named where they are kept: **I1** only sealed bytes below the stable offset are offloaded, contiguous and in order.
//! **I2** data objects are immutable, their names never used again. **I3** the head object is the only commit point, replaced by
//! compare-and-set. **I4** nothing is destroyed before this process has committed a head of its own leader epoch. **I5** an
//! unreferenced object goes only if an earlier epoch wrote it. **I6** local bytes go only below the end of the bucket. **I7** an
//! object that is missing means that the head is old, never that the log ends.
//!
//! Not here: replication, what a partition is made of, and any runtime but tokio's. Offsets named `next` or `*_end` are
//! exclusive; times are milliseconds since the Unix epoch.

mod late;
mod tier;
mod work;

mod commit;
mod head;
mod head_store;
mod ops;

mod batch;
mod envelope;
mod segment;
mod segment_builder;
mod upload;

mod cache;
mod fetch;
mod partition;
mod read_ahead;
mod reader;

mod retention;
mod sweep;

mod clock;
mod layout;
mod marker;
mod options;
mod store;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod read_tests;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tier_tests;

pub use batch::BatchError;
pub use clock::{Clock, SystemClock};
pub use commit::CommitError;
pub use envelope::FormatError;
pub use late::LateTier;
pub use ops::OpRejected;
pub use options::{S3Options, TierOptions};
pub use segment_builder::SegmentError;
pub use store::{Bucket, SharedStore, TierError};
pub use tier::{Drive, Tier};
pub use upload::UploadError;
pub use work::{Report, WorkError};
