//! The node: one log directory on a disk in memory, the logs in it, and the two cores that persist themselves there.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use anyhow::{Context, Result};
use bytes::Bytes;
use millstream_core::group::Token;
use millstream_history::history::{Answer, CallId, Partition};
use millstream_log::{AppendError, Log, LogConfig, LogDir, LogDirOptions, disk::MemoryDisk};
use millstream_protocol::record::BatchHeader;

use crate::{
    batches,
    groups::{GroupAnswer, Groups},
    metadata::Metadata,
};

const METADATA_LOG: &str = "metadata";
const GROUPS_LOG: &str = "groups";

/// A rule that the node can be told to break, to see that the checker finds out. Each but the last passes off what is in the page
/// cache as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// To producers.
    AcknowledgesEarly,
    /// To consumers.
    ShowsEarly,
    /// To members of groups.
    AnswersEarly,
    /// To administrators.
    DecidesEarly,
    /// A retry is appended again.
    ForgetsSequences,
}

/// The disk, and the process that may run on it.
pub struct Node {
    /// What is wrong with the node.
    pub flaw: Option<Flaw>,
    /// The disk; faults are set here.
    pub disk: MemoryDisk,
    clock_ms: Arc<AtomicI64>,
    /// The process, unless it is down.
    pub process: Option<Process>,
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// As asked for: everything synced, closed and marked as clean.
    Clean,
    /// The process dies; the page cache lives on.
    Kill,
    /// The machine dies; so many bytes of the unsynced writes had reached the disk.
    PowerLoss {
        /// How many.
        surviving_bytes: usize,
    },
}

impl Node {
    /// A node with an empty disk that does not run yet.
    pub fn new() -> Self {
        Self {
            flaw: None,
            disk: MemoryDisk::new(),
            clock_ms: Arc::default(),
            process: None,
        }
    }

    /// Starts the process. An error leaves it down.
    pub fn start(&mut self, now_ms: i64) -> Result<()> {
        self.clock_ms.store(now_ms, Ordering::Relaxed);
        self.process = Some(Process::start(self, now_ms)?);
        Ok(())
    }

    /// Ends the process. An error of a clean stop leaves an unclean one behind.
    pub fn stop(&mut self, stop: Stop, now_ms: i64) -> Result<()> {
        self.clock_ms.store(now_ms, Ordering::Relaxed);
        let process = self.process.take();
        match (stop, process) {
            (Stop::Clean, Some(process)) => process.close()?,
            (Stop::Clean | Stop::Kill, _) => {}
            (Stop::PowerLoss { surviving_bytes }, _) => self.disk = self.disk.crash(surviving_bytes),
        }
        Ok(())
    }
}

/// A running node.
pub struct Process {
    flaw: Option<Flaw>,
    dir: Arc<LogDir>,
    metadata_log: Arc<Log>,
    groups_log: Arc<Log>,
    partitions: BTreeMap<Partition, (Arc<Log>, i32)>,
    unacknowledged: Vec<Unacknowledged>,
    /// The metadata.
    pub metadata: Metadata,
    /// The groups.
    pub groups: Groups,
}

struct Unacknowledged {
    sent: Sent,
    partition: Partition,
    /// The log end that must be durable first.
    until: i64,
}

/// An append that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Who sent it.
    pub producer: usize,
    /// The call.
    pub call: CallId,
    /// Where the batch is.
    pub base_offset: i64,
}

/// A log to sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The metadata log.
    Metadata,
    /// The groups' log.
    Groups,
    /// A partition's.
    Partition(Partition),
}

/// Small segments, so that a run sees many of them rolled; no retention, so that whatever is missing was lost.
fn log_config() -> LogConfig {
    LogConfig {
        segment_bytes: 1_500,
        segment_ms: 120_000,
        index_interval_bytes: 256,
        retention_ms: -1,
        retention_bytes: -1,
        ..LogConfig::default()
    }
}

impl Process {
    fn start(node: &Node, now_ms: i64) -> Result<Self> {
        let clock_ms = Arc::clone(&node.clock_ms);
        let dir = LogDir::open(LogDirOptions {
            path: PathBuf::from("/log"),
            disk: Arc::new(node.disk.clone()),
            clock: Arc::new(move || clock_ms.load(Ordering::Relaxed)),
        })
        .context("open the log directory")?;
        let metadata_log = dir.open_log(METADATA_LOG, log_config()).context("open the metadata log")?;
        let groups_log = dir.open_log(GROUPS_LOG, log_config()).context("open the groups' log")?;
        dir.sync_names()?;
        let metadata = Metadata::load(Arc::clone(&metadata_log), now_ms)?;
        let groups = Groups::load(Arc::clone(&groups_log), now_ms)?;
        let mut process = Self {
            flaw: node.flaw,
            dir,
            metadata_log,
            groups_log,
            partitions: BTreeMap::new(),
            unacknowledged: Vec::new(),
            metadata,
            groups,
        };
        process.follow_metadata().context("open the partitions")?;
        process.delete_leftovers()?;
        Ok(process)
    }

    fn close(self) -> Result<()> {
        let Self {
            dir,
            metadata_log,
            groups_log,
            partitions,
            ..
        } = self;
        let mut logs: Vec<Arc<Log>> = partitions.into_values().map(|(log, _)| log).collect();
        logs.extend([groups_log, metadata_log]);
        dir.close(&logs).context("close the log directory")
    }

    /// Opens the logs of new partitions and deletes those of deleted ones.
    pub fn follow_metadata(&mut self) -> Result<()> {
        let wanted = self.metadata.partitions();
        let deleted: Vec<Partition> = self.partitions.keys().filter(|name| !wanted.contains_key(*name)).copied().collect();
        for partition in deleted {
            self.unacknowledged.retain(|waiting| waiting.partition != partition);
            if let Some((log, _)) = self.partitions.remove(&partition) {
                self.dir.delete_log(&log)?;
            }
        }
        for (partition, leader_epoch) in wanted {
            if let Some((_, epoch)) = self.partitions.get_mut(&partition) {
                *epoch = leader_epoch;
            } else {
                let log = self.dir.open_log(&partition.to_string(), log_config())?;
                self.partitions.insert(partition, (log, leader_epoch));
            }
        }
        Ok(self.dir.sync_names()?)
    }

    fn delete_leftovers(&self) -> Result<()> {
        let wanted: Vec<String> = self.partitions.keys().map(Partition::to_string).collect();
        for name in self.dir.log_names()? {
            if name != METADATA_LOG && name != GROUPS_LOG && !wanted.contains(&name) {
                self.dir.delete_log(&*self.dir.open_log(&name, log_config())?)?;
            }
        }
        Ok(())
    }

    /// Whether a failed sync has ended the directory's service.
    pub fn is_offline(&self) -> bool {
        self.dir.is_offline()
    }

    /// The partitions in order.
    pub fn partitions(&self) -> Vec<Partition> {
        self.partitions.keys().copied().collect()
    }

    /// All logs, partitions last.
    pub fn logs(&self) -> Vec<Which> {
        let own = [Which::Metadata, Which::Groups];
        own.into_iter()
            .chain(self.partitions.keys().map(|name| Which::Partition(*name)))
            .collect()
    }

    /// Syncs a log.
    pub fn sync(&self, which: Which, now_ms: i64) -> Result<()> {
        let log = match which {
            Which::Metadata => &self.metadata_log,
            Which::Groups => &self.groups_log,
            Which::Partition(partition) => &self.partitions.get(&partition).context("the partition is gone")?.0,
        };
        log.sync(now_ms)?;
        Ok(())
    }

    /// Appends a producer's batch; it is acknowledged when it is durable. `None` if the partition does not exist.
    pub fn send(
        &mut self,
        producer: usize,
        call: CallId,
        partition: Partition,
        (header, batch): &(BatchHeader, Bytes),
        now_ms: i64,
    ) -> Option<Result<(), AppendError>> {
        let (log, leader_epoch) = self.partitions.get(&partition)?;
        let appended = match log.append(header, batch, *leader_epoch, now_ms, None) {
            Ok(appended) => appended,
            Err(error) => return Some(Err(error)),
        };
        self.unacknowledged.push(Unacknowledged {
            sent: Sent {
                producer,
                call,
                base_offset: appended.base_offset,
            },
            partition,
            until: appended.base_offset + i64::from(header.last_offset_delta) + 1,
        });
        Some(Ok(()))
    }

    /// The appends that are durable by now, each once.
    pub fn take_sent(&mut self) -> Vec<Sent> {
        let durable: BTreeMap<Partition, i64> = self
            .partitions
            .iter()
            .map(|(name, (log, _))| (*name, self.durable_end(log, Flaw::AcknowledgesEarly)))
            .collect();
        let is_durable = |waiting: &Unacknowledged| durable.get(&waiting.partition).is_some_and(|end| waiting.until <= *end);
        let (ready, waiting) = std::mem::take(&mut self.unacknowledged).into_iter().partition(is_durable);
        self.unacknowledged = waiting;
        let ready: Vec<Unacknowledged> = ready;
        ready.into_iter().map(|waiting| waiting.sent).collect()
    }

    /// The answers to members that may leave now.
    pub fn take_answers(&mut self) -> Vec<(Token, GroupAnswer)> {
        let durable = self.durable_end(&self.groups_log, Flaw::AnswersEarly);
        self.groups.take_answers(durable)
    }

    /// The administrator's call that is done by now.
    pub fn take_decided(&mut self) -> Result<Option<(CallId, Answer)>> {
        let durable = self.durable_end(&self.metadata_log, Flaw::DecidesEarly);
        self.metadata.take_answer(durable)
    }

    /// How far a log is durable, or passed off as such.
    fn durable_end(&self, log: &Log, flaw: Flaw) -> i64 {
        if self.flaw == Some(flaw) {
            log.log_end_offset()
        } else {
            log.durable_end_offset()
        }
    }

    /// One read of what is visible, from an offset on.
    pub fn read(&self, partition: Partition, from: i64) -> Result<Vec<(i64, u64)>> {
        let (log, _) = self.partitions.get(&partition).context("the partition is gone")?;
        batches::values(log, from, self.durable_end(log, Flaw::ShowsEarly))
    }

    /// Where a partition's log starts, and how far it is durable.
    pub fn range(&self, partition: Partition) -> Result<Range<i64>> {
        let (log, _) = self.partitions.get(&partition).context("the partition is gone")?;
        Ok(log.log_start_offset()..log.durable_end_offset())
    }

    /// Deletes records, durably.
    pub fn delete_records(&self, partition: Partition, before: i64) -> Result<()> {
        let (log, _) = self.partitions.get(&partition).context("the partition is gone")?;
        log.advance_log_start(before)?;
        Ok(())
    }

    /// Bytes of all partitions' logs.
    pub fn partition_bytes(&self) -> u64 {
        self.partitions.values().map(|(log, _)| log.local_bytes()).sum()
    }
}
