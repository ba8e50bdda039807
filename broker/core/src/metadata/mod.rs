//! The cluster's metadata: what exists, how it is configured, and who may change it to what.
//!
//! The image is the whole state. A function of the controller looks at an image and a request and returns records and a
//! reply; it changes nothing. [`ClusterImage::apply`] is the only mutator and does the same live and on replay, so an image is
//! a function of its records. The shell writes the records to the metadata log, applies them to a copy of the image once they
//! are committed, and swaps its `Arc<ClusterImage>`.
//!
//! Invariants: a name belongs to one topic or one view; partition numbers are dense from 0; an id is never given twice; a
//! view's source, a binding's plugin and a dead-letter topic exist as long as something names them.
//!
//! Nothing here reads a clock, draws a number or does I/O: ids and `now_ms` (milliseconds since 1970, UTC) are arguments.

pub mod id;
pub mod names;

pub mod configs;

pub mod image;
pub mod records;

mod apply;
pub mod controller;

pub use apply::ApplyError;
pub use image::ClusterImage;
pub use records::MetadataRecord;
