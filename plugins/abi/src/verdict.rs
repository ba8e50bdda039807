//! The verdict list: what `batch.process` answers.
//!
//! ```text
//! list    = version: u8 = 1, kind: u8
//!           kind 0, keep all: nothing follows
//!           kind 1, per record: count: u32 (the record count), verdict*count, nothing behind
//! verdict = tag: u8
//!           0 keep
//!           1 drop
//!           2 replace  parts: u8 (1 key | 2 value | 4 headers), then the named parts in this order
//!                      key: nullable   value: nullable   headers: count: u32, header*count
//!           3 reject   reason: text
//!           4 divert   reason: text
//!           5 reserved for the transforms' emit
//!           6 error    message: text
//! header  = key: text   value: nullable
//! text    = length: u32, utf-8      nullable = length: i32 (-1 is null), bytes
//! ```
//! All little endian. *Reject* and *divert* are decisions of the plugin; *error* says that the plugin could not decide, and the
//! binding's policy does.

mod reader;
mod writer;

pub use reader::{HeaderList, HeaderRef, Verdict, VerdictReader};
pub use writer::VerdictWriter;

/// What the reader leaves of a reason or an error message, in bytes; the cut falls between characters.
pub const REASON_BYTES_MAX: usize = 1024;

/// The layout's version.
const VERSION: u8 = 1;

/// The list's kind.
mod kind {
    pub(super) const KEEP_ALL: u8 = 0;
    pub(super) const PER_RECORD: u8 = 1;
}

/// The verdict's tag. 5 is reserved.
mod tag {
    pub(super) const KEEP: u8 = 0;
    pub(super) const DROP: u8 = 1;
    pub(super) const REPLACE: u8 = 2;
    pub(super) const REJECT: u8 = 3;
    pub(super) const DIVERT: u8 = 4;
    pub(super) const ERROR: u8 = 6;
}

/// The parts that a replacement names.
mod parts {
    pub(super) const KEY: u8 = 1;
    pub(super) const VALUE: u8 = 2;
    pub(super) const HEADERS: u8 = 4;
    pub(super) const ALL: u8 = KEY | VALUE | HEADERS;
}

#[cfg(test)]
mod tests;
