//! The broker's decisions, without I/O: no runtime, no clock, no randomness, no iteration over hash maps.
//!
//! A state machine here takes requests and the time, and answers with records to commit and replies to send; its hard state
//! changes only by applying committed records. The server crate does the rest.

pub mod group;
pub mod metadata;
pub mod quota;
mod records;
pub mod share;
pub mod transform;
pub mod txn;

pub use records::RecordDecodeError;
