//! One node on one thread, from a seed.
//!
//! The logs, the group coordinator and the metadata controller are the broker's own; the disk is `MemoryDisk`, time is virtual, and the
//! clients are small models of well-behaved ones. A seed decides everything: who acts next, which answers get lost, when a log is synced,
//! when the power fails and how many unsynced bytes survive it. What clients were told is a
//! [`History`](millstream_history::history::History), which [`violations`](millstream_history::check::violations) judges by named invariants.
//!
//! The shells here follow the same rules as those of `millstream-server` (append, apply, answer once durable), but sync only when the
//! simulation says so, which puts power loss between any two of these steps.
//!
//! Rerun one seed: `MILLSTREAM_SIM_SEED=7 cargo test -p millstream-sim`; more of them: `MILLSTREAM_SIM_SEEDS=10000`.

pub mod rng;

mod batches;
mod groups;
mod metadata;
mod node;

mod admin;
mod consumer;
mod producer;
mod stage;

pub mod world;

#[cfg(test)]
mod seeds_tests;
