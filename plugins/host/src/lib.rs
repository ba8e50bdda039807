//! The plugin host: runs user code that was compiled to WebAssembly over record batches, and trusts none of it.
//!
//! It implements [`millstream_core::transform::Transform`]; the broker knows nothing else of it, and it knows nothing of topics,
//! logs or clients beyond what a call hands it. Contract with guests: `sdk/wit/plugin.wit`; byte layouts: `millstream-abi`.
//!
//! ```text
//! prepare   artefact ──► compile (own threads, single flight, .cwasm cache) ──► pool (memory reserved) ──► init once
//! run       chain + section ──► bounded queue ──► worker thread: link by link
//!             call ok      ──► verdicts checked and applied, next link
//!             call failed  ──► instance thrown away, batch halved until the culprit stands alone, its policy applied
//!             too many     ──► breaker
//! ```
//!
//! Invariants:
//! - **Fail closed.** A batch leaves a link only as the link's verdicts or the binding's policy say. Where neither can be had (queue
//!   full, not compiled yet, `init` failing, breaker tripped) the outcome is [`Stalled`](millstream_core::transform::ChainOutcome).
//! - Guest code never runs on the caller's thread. Workers run it with a deadline (epochs of one millisecond), under a memory limit,
//!   a stack limit and a limit on what one call may hand back.
//! - An instance on which a call failed is never used again, and no two plugins ever share a store.
//! - Everything is bounded: queue, live instances, memory of all plugins together, log lines, custom metrics.
//!
//! A spinning guest holds one worker for its deadline; a search for the culprit goes back to the end of the queue between calls, so
//! with two workers two spinning plugins delay the others by one deadline (50 ms on produce) at a time. The bounded queue turns
//! anything worse into a retriable stall.

mod host;
mod options;
mod registry;

mod engine;
mod imports;
mod limits;
mod telemetry;
mod text;
mod wit;

mod compile;
mod cwasm;
mod inspect;

mod instance;
mod pool;
mod worker;

mod breaker;
mod chain;
mod policy;
mod section;
mod stats;

pub use host::PluginHost;
pub use options::{HostError, HostOptions};
pub use telemetry::{CustomMetric, CustomValue};

#[cfg(test)]
mod tests;
