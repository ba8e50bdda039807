//! What the node is compared with: the least that the work can cost on this machine, measured in the same run.

mod disk;
mod echo;
mod null_sink;
mod null_source;
mod server;

pub use disk::{append_synced, evict, group_commits_per_second, read_files, sync_latencies};
pub use echo::echo_latencies;
pub use null_sink::null_sink;
pub use null_source::null_source;
