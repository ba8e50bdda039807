//! Fakes for tests: a partition's log in memory, a store that fails on command, a clock that stands still.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use millstream_log::{
    LogError,
    remote::{EpochEntry, SealedSegment, TierConfig, TieredSource, TopicIdPartition},
};
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart, memory::InMemory, path::Path,
};
use serde_json::Map;
use tokio::sync::Semaphore;
use ulid::Ulid;
use uuid::Uuid;

use crate::{
    clock::Clock,
    envelope::crc32c,
    head::{Head, SegRef},
    options::TierOptions,
    store::{Bucket, SharedStore},
    tier::{Drive, Tier},
};

pub(crate) const PARTITION: TopicIdPartition = TopicIdPartition {
    topic_id: Uuid::from_u128(7),
    partition: 3,
};
pub(crate) const CLUSTER: Uuid = Uuid::from_u128(1);

/// A valid batch of `records` records, with a body of `size` bytes that depends on its offset.
pub(crate) fn batch(base_offset: i64, records: i32, timestamp: i64, size: usize) -> Bytes {
    let mut body = BytesMut::new();
    body.put_i16(0);
    body.put_i32(records - 1);
    body.put_i64(timestamp);
    body.put_i64(timestamp);
    body.put_i64(-1);
    body.put_i16(-1);
    body.put_i32(-1);
    body.put_i32(records);
    body.extend((0..size).map(|at| (base_offset as usize).wrapping_mul(31).wrapping_add(at) as u8));
    let mut bytes = BytesMut::new();
    bytes.put_i64(base_offset);
    bytes.put_i32(9 + body.len() as i32);
    bytes.put_i32(0);
    bytes.put_i8(2);
    bytes.put_u32(crc32c(&body));
    bytes.put_slice(&body);
    bytes.freeze()
}

pub(crate) fn unlimited() -> TierConfig {
    TierConfig {
        enabled: true,
        copy_disabled: false,
        local_retention_ms: -1,
        local_retention_bytes: -1,
        retention_ms: -1,
        retention_bytes: -1,
    }
}

pub(crate) fn seg_ref(base: i64, next: i64, bytes: u64, max_ts: i64) -> SegRef {
    SegRef {
        ulid: Ulid::from_parts(base as u64, next as u128),
        epoch: 1,
        base,
        next,
        size: bytes + 100,
        footer_pos: bytes,
        footer_len: 60,
        crc: 9,
        min_ts: max_ts,
        max_ts,
        records: (next - base) as u64,
        uploaded_ms: max_ts,
        extra: Map::new(),
    }
}

pub(crate) fn head_of(segs: Vec<SegRef>) -> Head {
    let mut head = Head::genesis(CLUSTER, PARTITION, segs.first().map_or(0, |seg| seg.base));
    head.remote_end = segs.last().map_or(0, |seg| seg.next);
    head.segs = segs;
    head
}

/// A clock that only moves when told to.
#[derive(Debug, Default)]
pub(crate) struct FakeClock(AtomicI64);

impl FakeClock {
    pub fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

struct FakeLog {
    sealed: Vec<(SealedSegment, Bytes)>,
    next_offset: i64,
    log_start: i64,
    epochs: Vec<EpochEntry>,
    stable: Option<i64>,
    config: TierConfig,
    trim_dies_after: Option<usize>,
}

/// A partition's log in memory. It outlives "crashes" of the tier, as a disk does.
pub(crate) struct FakeSource {
    log: Mutex<FakeLog>,
    /// Every batch that was ever appended, by base offset.
    history: Mutex<BTreeMap<i64, Bytes>>,
}

impl FakeSource {
    pub fn new(epoch: i32) -> Arc<FakeSource> {
        FakeSource::starting_at(epoch, 0)
    }

    pub fn starting_at(epoch: i32, offset: i64) -> Arc<FakeSource> {
        let log = FakeLog {
            sealed: Vec::new(),
            next_offset: offset,
            log_start: offset,
            epochs: vec![EpochEntry {
                epoch,
                start_offset: offset,
            }],
            stable: None,
            config: unlimited(),
            trim_dies_after: None,
        };
        Arc::new(FakeSource {
            log: Mutex::new(log),
            history: Mutex::default(),
        })
    }

    fn log(&self) -> MutexGuard<'_, FakeLog> {
        self.log.lock().unwrap()
    }

    /// Appends a sealed segment of `batches` batches of three records and about `size` bytes each.
    pub fn seal(&self, batches: usize, size: usize) {
        let mut log = self.log();
        let base_offset = log.next_offset;
        let mut bytes = BytesMut::new();
        for _ in 0..batches {
            let offset = log.next_offset;
            let batch = batch(offset, 3, 1_000 + offset, size);
            bytes.put_slice(&batch);
            self.history.lock().unwrap().insert(offset, batch);
            log.next_offset += 3;
        }
        let segment = SealedSegment {
            base_offset,
            next_offset: log.next_offset,
            size: bytes.len() as u64,
            min_timestamp: 1_000 + base_offset,
            max_timestamp: 1_000 + log.next_offset - 3,
        };
        log.sealed.push((segment, bytes.freeze()));
    }

    pub fn elect(&self, epoch: i32) {
        let mut log = self.log();
        let start_offset = log.next_offset;
        log.epochs.push(EpochEntry { epoch, start_offset });
    }

    /// An unclean election: this log ends at `offset` and goes on in `epoch`.
    pub fn diverge(&self, epoch: i32, offset: i64) {
        let mut log = self.log();
        log.sealed.retain(|(segment, _)| segment.next_offset <= offset);
        log.next_offset = offset;
        log.epochs.push(EpochEntry {
            epoch,
            start_offset: offset,
        });
        self.history.lock().unwrap().split_off(&offset);
    }

    pub fn configure(&self, change: impl FnOnce(&mut TierConfig)) {
        change(&mut self.log().config);
    }

    pub fn set_stable(&self, offset: i64) {
        self.log().stable = Some(offset);
    }

    /// The next trim deletes this many segments and then fails.
    pub fn die_in_trim_after(&self, segments: usize) {
        self.log().trim_dies_after = Some(segments);
    }

    pub fn delete_records(&self, offset: i64) {
        self.log().log_start = offset;
    }

    pub fn damage(&self, segment: usize, byte: usize) {
        let mut log = self.log();
        let mut bytes = log.sealed[segment].1.to_vec();
        bytes[byte] ^= 1;
        log.sealed[segment].1 = Bytes::from(bytes);
    }

    pub fn end(&self) -> i64 {
        self.log().next_offset
    }

    /// Everything that was appended in `offsets`, in one piece.
    pub fn expected(&self, offsets: Range<i64>) -> Vec<u8> {
        self.history
            .lock()
            .unwrap()
            .range(offsets)
            .flat_map(|(_, batch)| batch.to_vec())
            .collect()
    }

    /// What is still stored locally at or above `offset`.
    pub fn local_from(&self, offset: i64) -> Vec<u8> {
        let log = self.log();
        log.sealed
            .iter()
            .filter(|(segment, _)| segment.base_offset >= offset)
            .flat_map(|(_, bytes)| bytes.to_vec())
            .collect()
    }
}

fn log_failure() -> LogError {
    LogError::Io {
        operation: "fake",
        path: "fake".into(),
        source: std::io::Error::other("killed"),
    }
}

impl TieredSource for FakeSource {
    fn topic_name(&self) -> String {
        "orders".to_owned()
    }

    fn leader_epoch(&self) -> i32 {
        self.log().epochs.last().unwrap().epoch
    }

    fn log_start_offset(&self) -> i64 {
        self.log().log_start
    }

    fn local_start_offset(&self) -> i64 {
        let log = self.log();
        log.sealed.first().map_or(log.next_offset, |(segment, _)| segment.base_offset)
    }

    fn stable_offset(&self) -> i64 {
        let log = self.log();
        log.stable.unwrap_or(log.next_offset)
    }

    fn sealed_segments(&self) -> Vec<SealedSegment> {
        self.log().sealed.iter().map(|(segment, _)| segment.clone()).collect()
    }

    fn active_segment_bytes(&self) -> u64 {
        0
    }

    fn read_at(&self, base_offset: i64, position: u64, len: usize) -> std::result::Result<Bytes, LogError> {
        let log = self.log();
        let (_, bytes) = log
            .sealed
            .iter()
            .find(|(segment, _)| segment.base_offset == base_offset)
            .ok_or_else(log_failure)?;
        let start = (position as usize).min(bytes.len());
        Ok(bytes.slice(start..(start + len).min(bytes.len())))
    }

    fn epochs(&self) -> Vec<EpochEntry> {
        self.log().epochs.clone()
    }

    fn producer_snapshot(&self, next_offset: i64) -> std::result::Result<Option<Bytes>, LogError> {
        Ok(Some(Bytes::from(format!("producers at {next_offset}"))))
    }

    fn trim_local(&self, up_to: i64) -> std::result::Result<(), LogError> {
        let mut log = self.log();
        while log.sealed.first().is_some_and(|(segment, _)| segment.next_offset <= up_to) {
            match log.trim_dies_after {
                Some(0) => {
                    log.trim_dies_after = None;
                    return Err(log_failure());
                }
                Some(left) => log.trim_dies_after = Some(left - 1),
                None => {}
            }
            log.sealed.remove(0);
        }
        Ok(())
    }

    fn advance_log_start(&self, offset: i64) -> std::result::Result<(), LogError> {
        let mut log = self.log();
        log.log_start = log.log_start.max(offset);
        Ok(())
    }

    fn config(&self) -> TierConfig {
        self.log().config.clone()
    }
}

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Put,
    Get,
    List,
    Delete,
    Multipart,
    Part,
    Complete,
}

/// What goes wrong with a request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Nothing is applied, and an error comes back (503).
    Before,
    /// The request is applied, and an error comes back (500, timeout).
    After,
    /// Nothing is applied, and a conflict comes back (409 on create).
    Conflict,
    /// A body comes back shorter than it is.
    Truncate,
    /// A body comes back with one bit changed.
    Flip,
    /// The request waits for a permit.
    Delay(Arc<Semaphore>),
}

#[derive(Debug)]
struct Rule {
    request: Request,
    key_part: &'static str,
    times: usize,
    fault: Fault,
}

#[derive(Debug, Default)]
struct Script {
    rules: Vec<Rule>,
    log: Vec<(Request, String)>,
    /// At the n-th request that changes something the process dies, before or after the store applied it.
    crash_at: Option<(usize, bool)>,
    changes: usize,
    dead: bool,
}

/// A store that does what a script says.
#[derive(Debug)]
pub(crate) struct ScriptedStore {
    inner: SharedStore,
    script: Arc<Mutex<Script>>,
}

fn failure(reason: &'static str) -> StoreError {
    StoreError::Generic {
        store: "scripted",
        source: reason.into(),
    }
}

/// What to do about one request.
enum Verdict {
    Pass,
    Refuse(StoreError),
    ApplyThenFail,
    Spoil(Fault),
    Wait(Arc<Semaphore>),
}

fn judge(script: &Mutex<Script>, request: Request, key: &str) -> Verdict {
    let mut script = script.lock().unwrap();
    if script.dead {
        return Verdict::Refuse(failure("the process is dead"));
    }
    script.log.push((request, key.to_owned()));
    if !matches!(request, Request::Get | Request::List) {
        script.changes += 1;
        if let Some((at, after)) = script.crash_at.filter(|(at, _)| *at == script.changes) {
            let _ = at;
            script.dead = true;
            return if after {
                Verdict::ApplyThenFail
            } else {
                Verdict::Refuse(failure("killed"))
            };
        }
    }
    let rule = script
        .rules
        .iter_mut()
        .find(|rule| rule.request == request && rule.times > 0 && key.contains(rule.key_part));
    let Some(rule) = rule else { return Verdict::Pass };
    rule.times -= 1;
    match &rule.fault {
        Fault::Before => Verdict::Refuse(failure("503")),
        Fault::After => Verdict::ApplyThenFail,
        Fault::Conflict => Verdict::Refuse(StoreError::AlreadyExists {
            path: key.to_owned(),
            source: "409".into(),
        }),
        Fault::Delay(permits) => Verdict::Wait(permits.clone()),
        fault @ (Fault::Truncate | Fault::Flip) => Verdict::Spoil(fault.clone()),
    }
}

impl ScriptedStore {
    pub fn over(inner: SharedStore) -> Arc<ScriptedStore> {
        Arc::new(ScriptedStore {
            inner,
            script: Arc::default(),
        })
    }

    pub fn memory() -> Arc<ScriptedStore> {
        ScriptedStore::over(Arc::new(InMemory::new()))
    }

    /// The next `times` requests of this kind whose key contains `key_part` meet `fault`.
    pub fn inject(&self, request: Request, key_part: &'static str, times: usize, fault: Fault) {
        self.script.lock().unwrap().rules.push(Rule {
            request,
            key_part,
            times,
            fault,
        });
    }

    pub fn crash_at(&self, change: usize, after: bool) {
        let mut script = self.script.lock().unwrap();
        script.crash_at = Some((script.changes + change, after));
    }

    pub fn is_dead(&self) -> bool {
        self.script.lock().unwrap().dead
    }

    pub fn count(&self, request: Request, key_part: &str) -> usize {
        self.script
            .lock()
            .unwrap()
            .log
            .iter()
            .filter(|(seen, key)| *seen == request && key.contains(key_part))
            .count()
    }

    pub async fn keys(&self, key_part: &str) -> Vec<String> {
        let objects: Vec<_> = self.inner.list(None).try_collect().await.unwrap();
        objects
            .into_iter()
            .map(|object| object.location.to_string())
            .filter(|key| key.contains(key_part))
            .collect()
    }

    async fn guard<T>(&self, request: Request, key: &Path, act: impl Future<Output = Result<T>>) -> Result<T> {
        match judge(&self.script, request, key.as_ref()) {
            Verdict::Pass | Verdict::Spoil(_) => act.await,
            Verdict::Refuse(error) => Err(error),
            Verdict::ApplyThenFail => {
                act.await?;
                Err(failure("500 after it was applied"))
            }
            Verdict::Wait(permits) => {
                permits.acquire().await.unwrap().forget();
                act.await
            }
        }
    }
}

impl fmt::Display for ScriptedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scripted({})", self.inner)
    }
}

#[async_trait::async_trait]
impl ObjectStore for ScriptedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.guard(Request::Put, location, self.inner.put_opts(location, payload, opts))
            .await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self
            .guard(Request::Multipart, location, self.inner.put_multipart_opts(location, opts))
            .await?;
        Ok(Box::new(ScriptedUpload {
            inner,
            script: self.script.clone(),
            key: location.clone(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let spoil = match judge(&self.script, Request::Get, location.as_ref()) {
            Verdict::Pass => None,
            Verdict::Refuse(error) => return Err(error),
            Verdict::ApplyThenFail => return Err(failure("500")),
            Verdict::Spoil(fault) => Some(fault),
            Verdict::Wait(permits) => {
                permits.acquire().await.unwrap().forget();
                None
            }
        };
        let found = self.inner.get_opts(location, options).await?;
        let Some(fault) = spoil else { return Ok(found) };
        let (meta, range, attributes, extensions) = (
            found.meta.clone(),
            found.range.clone(),
            found.attributes.clone(),
            found.extensions.clone(),
        );
        let mut bytes = found.bytes().await?.to_vec();
        match fault {
            Fault::Truncate => bytes.truncate(bytes.len() / 2),
            _ => bytes[0] ^= 1,
        }
        let payload = GetResultPayload::Stream(futures_util::stream::iter([Ok(Bytes::from(bytes))]).boxed());
        Ok(GetResult {
            payload,
            meta,
            range,
            attributes,
            extensions,
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, script) = (self.inner.clone(), self.script.clone());
        let delete = move |location: Result<Path>| {
            let (inner, script) = (inner.clone(), script.clone());
            async move {
                let location = location?;
                let verdict = judge(&script, Request::Delete, location.as_ref());
                if let Verdict::Refuse(error) = verdict {
                    return Err(error);
                }
                object_store::ObjectStoreExt::delete(&inner, &location).await?;
                if let Verdict::ApplyThenFail = verdict {
                    Err(failure("500 after it was applied"))
                } else {
                    Ok(location)
                }
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match judge(&self.script, Request::List, prefix.map_or("", |prefix| prefix.as_ref())) {
            Verdict::Refuse(error) => futures_util::stream::iter([Err(error)]).boxed(),
            _ => self.inner.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct ScriptedUpload {
    inner: Box<dyn MultipartUpload>,
    script: Arc<Mutex<Script>>,
    key: Path,
}

#[async_trait::async_trait]
impl MultipartUpload for ScriptedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match judge(&self.script, Request::Part, self.key.as_ref()) {
            Verdict::Refuse(error) => Box::pin(async move { Err(error) }),
            _ => self.inner.put_part(data),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        match judge(&self.script, Request::Complete, self.key.as_ref()) {
            Verdict::Refuse(error) => Err(error),
            Verdict::ApplyThenFail => {
                self.inner.complete().await?;
                Err(failure("500 after it was applied"))
            }
            _ => self.inner.complete().await,
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

/// Small sizes and short pauses, so that every path is taken.
pub(crate) fn small_options(broker_id: i32) -> TierOptions {
    TierOptions {
        read_unit_bytes: 4 << 10,
        get_bytes_max: 16 << 10,
        read_ahead_bytes_max: 0,
        cache_bytes: 1 << 20,
        backoff_min: std::time::Duration::from_millis(1),
        backoff_max: std::time::Duration::from_millis(2),
        ..TierOptions::new("memory", CLUSTER, broker_id)
    }
}

pub(crate) async fn manual_tier(options: TierOptions, store: SharedStore, clock: Arc<dyn Clock>) -> Arc<Tier> {
    let runtime = tokio::runtime::Handle::current();
    Tier::start_with(options, Bucket::new(store, "p"), clock, Drive::Manual, runtime)
        .await
        .unwrap()
}

/// Works until there is nothing to do.
pub(crate) async fn settle(tier: &Tier) {
    while !tier.run_once(PARTITION).await.unwrap().is_idle() {}
}

/// Reads the bucket from its start to its end, as a consumer would.
pub(crate) async fn read_all(tier: &Tier, max_bytes: usize) -> Vec<u8> {
    use millstream_log::remote::RemoteLog;
    let Some(bounds) = tier.bounds(PARTITION) else { return Vec::new() };
    let mut offset = bounds.start_offset;
    let mut read = Vec::new();
    while offset < bounds.end_offset {
        let batches = tier.read(PARTITION, offset, max_bytes).await.unwrap();
        assert!(batches.next_offset > offset, "a read at {offset} must make progress");
        read.extend(batches.bytes.iter().flat_map(|bytes| bytes.to_vec()));
        offset = batches.next_offset;
    }
    read
}
