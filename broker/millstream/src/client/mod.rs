//! What the verbs talk to a node with: a small Kafka client and the admin HTTP API. Small on purpose: one connection to one node,
//! one request at a time.

mod admin;
mod consumer;
mod groups;
mod kafka;
mod offsets;
mod partitioner;
mod producer;
mod topics;

pub use admin::Admin;
pub use consumer::{Consumer, OwnedRecord};
pub use groups::GroupMember;
pub use kafka::Kafka;
pub use offsets::{Committed, EARLIEST, LATEST};
pub use partitioner::Partitioner;
pub use producer::{Acks, Batch, Delivery, Producer, Refusal};
pub use topics::TopicPartitions;
