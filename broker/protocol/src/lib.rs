//! The Kafka protocol on the wire: requests and responses, record batches, compression, error codes. No I/O.
//!
//! The messages are generated from the compact schema in `schema/` (see `examples/generate`); [`wire`] holds what they are built from.
//! Everything that decodes treats its input as hostile: it never reads past the end, never panics, and allocates within a budget.

pub mod api;
pub mod api_key;
pub mod chunk;
pub mod compression;
pub mod error_code;
pub mod messages;
pub mod record;
pub mod wire;

pub use api_key::ApiKey;
pub use error_code::ErrorCode;
pub use wire::{DecodeError, Decoder, EncodeError, Encoder, KString, Message, Request, Response};
