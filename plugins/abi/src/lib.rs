//! Byte layouts that the plugin host and plugin guests share.
//!
//! A batch crosses the sandbox border as two byte lists: the record section of a Kafka v2 batch goes in ([`record`]), a verdict
//! list comes out ([`verdict`]). The layouts are written down for people in `sdk/wit/abi.md` and pinned by the files in `golden/`.
//!
//! Both directions are hostile until checked: a producer wrote the records, an unknown author wrote the guest. So no length is
//! trusted before it is compared with the bytes that remain, nothing is allocated by a number that was read, and every broken
//! input is an [`AbiError`] with the place where it broke. Readers borrow from their input and never allocate; only the writers do.
//!
//! Integers inside verdicts are little endian; integers inside records are Kafka's zigzag varints.

mod cursor;
mod error;
#[cfg(test)]
mod golden;
pub mod record;
pub mod verdict;

pub use error::AbiError;
pub use record::{RawHeader, RawHeaders, RawRecord, RecordReader, append_record};
pub use verdict::{HeaderList, HeaderRef, REASON_BYTES_MAX, Verdict, VerdictReader, VerdictWriter};
