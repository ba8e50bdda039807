//! Gets units of segment objects: from the cache, from a fill that is under way, or from the bucket.
//!
//! A unit is fetched once however many readers want it. Fills run as tasks of their own: a reader that gives up loses nothing,
//! its next try finds the units in the cache. Neighbouring missing units come with one ranged GET. A unit enters the cache only
//! after its checksum matched; a mismatch is fetched again twice before it counts as damage (failure row 23).

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, join_all},
};
use object_store::{Error as StoreError, ObjectStoreExt, path::Path};
use quick_cache::{Weighter, sync::Cache};
use thiserror::Error;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot},
};
use ulid::Ulid;

use crate::{
    cache::{ChunkCache, UnitKey},
    envelope::{FormatError, crc32c},
    head::SegRef,
    segment::{Footer, TRAILER_BYTES, Trailer},
    store::SharedStore,
};

const FETCH_ATTEMPTS_MAX: u32 = 3;
const FOOTER_CACHE_BYTES: u64 = 32 << 20;
/// Stands for the footer among the units of an object; no body has that many units.
const FOOTER_UNIT: u32 = u32::MAX;

/// Why bytes of an object could not be had.
#[derive(Debug, Clone, Error)]
pub(crate) enum FetchError {
    /// There is no such object: the head that named it is old (I7).
    #[error("{key} is not there")]
    Missing {
        /// The object.
        key: Path,
    },
    /// The store failed.
    #[error("get {key}: {reason}")]
    Unavailable {
        /// The object.
        key: Path,
        /// What the store said.
        reason: String,
    },
    /// The object does not hold what it should.
    #[error("{key} is damaged: {reason}")]
    Corrupt {
        /// The object.
        key: Path,
        /// What is wrong.
        reason: String,
    },
}

/// A segment object with its footer.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    /// Unique part of its name.
    pub id: Ulid,
    /// Its key.
    pub key: Path,
    /// Its footer.
    pub footer: Arc<Footer>,
}

impl Object {
    /// Size of a full unit in bytes.
    pub fn unit_bytes(&self) -> u64 {
        u64::from(self.footer.meta.unit_bytes)
    }

    /// The units that hold bytes `range` of the body.
    pub fn units(&self, range: Range<u64>) -> Range<u32> {
        let end = range.end.min(self.footer.body_bytes).div_ceil(self.unit_bytes());
        let start = (range.start / self.unit_bytes()).min(end);
        // The number of units is the number of checksums in the footer, which fits 32 bits.
        u32::try_from(start).unwrap_or(u32::MAX)..u32::try_from(end).unwrap_or(u32::MAX)
    }

    fn bytes(&self, units: &Range<u32>) -> Range<u64> {
        u64::from(units.start) * self.unit_bytes()..(u64::from(units.end) * self.unit_bytes()).min(self.footer.body_bytes)
    }
}

type Filled = Result<Arc<Vec<Bytes>>, FetchError>;

type Outcome = Shared<BoxFuture<'static, Filled>>;
type Job = BoxFuture<'static, ()>;

/// A fill under way, and which of its units is meant.
#[derive(Clone)]
struct Fill {
    outcome: Outcome,
    at: usize,
}

#[derive(Debug, Clone)]
struct FooterBytes;

impl Weighter<Ulid, Arc<Footer>> for FooterBytes {
    fn weight(&self, _id: &Ulid, footer: &Arc<Footer>) -> u64 {
        footer.memory_bytes()
    }
}

/// Gets units. Shared by all partitions.
pub(crate) struct Fetcher {
    store: SharedStore,
    runtime: Handle,
    cache: Box<dyn ChunkCache>,
    footers: Cache<Ulid, Arc<Footer>, FooterBytes>,
    permits: Semaphore,
    permits_total: usize,
    get_bytes_max: u64,
    under_way: Mutex<HashMap<UnitKey, Fill>>,
}

/// Takes fills out of the table when they end, also by a panic.
struct UnderWay {
    fetcher: Arc<Fetcher>,
    keys: Vec<UnitKey>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut under_way = self.fetcher.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.keys {
            under_way.remove(key);
        }
    }
}

impl Fetcher {
    /// A fetcher from `store` that runs its fills on `runtime`.
    pub fn new(store: SharedStore, runtime: Handle, cache: Box<dyn ChunkCache>, permits: usize, get_bytes_max: u64) -> Arc<Fetcher> {
        Arc::new(Fetcher {
            store,
            runtime,
            cache,
            footers: Cache::with_weighter(1024, FOOTER_CACHE_BYTES, FooterBytes),
            permits: Semaphore::new(permits),
            permits_total: permits,
            get_bytes_max,
            under_way: Mutex::new(HashMap::new()),
        })
    }

    /// Whether there is room for reading ahead beside what readers wait for.
    pub fn is_calm(&self) -> bool {
        self.permits.available_permits() * 2 > self.permits_total
    }

    /// The object that `reference` names, with its footer.
    pub async fn object(self: &Arc<Self>, key: Path, reference: &SegRef) -> Result<Object, FetchError> {
        let id = reference.ulid;
        if let Some(footer) = self.footers.get(&id) {
            return Ok(Object { id, key, footer });
        }
        let unit = UnitKey {
            object: id,
            unit: FOOTER_UNIT,
        };
        let mut job = None;
        let fill = {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            let prepare = || {
                let (fetcher, task_key, reference) = (self.clone(), key.clone(), reference.clone());
                let task = async move { fetcher.fetch_footer(&task_key, &reference).await };
                let (outcome, prepared) = self.prepare(vec![unit], key.clone(), task);
                job = Some(prepared);
                Fill { outcome, at: 0 }
            };
            under_way.entry(unit).or_insert_with(prepare).clone()
        };
        job.map(|job| self.runtime.spawn(job));
        fill.outcome.await?;
        // The cache may refuse or forget a footer; fetch_footer leaves it there in all but absurd cases, and then this reads again.
        match self.footers.get(&id) {
            Some(footer) => Ok(Object { id, key, footer }),
            None => Ok(Object {
                id,
                footer: self.decode_footer(&key, reference).await?,
                key,
            }),
        }
    }

    /// Units `range` of an object, in order.
    pub async fn units(self: &Arc<Self>, object: &Object, range: Range<u32>) -> Result<Vec<Bytes>, FetchError> {
        enum Unit {
            Here(Bytes),
            Coming(Fill),
        }
        let mut units = Vec::new();
        let mut jobs = Vec::new();
        {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            let mut unit = range.start;
            while unit < range.end {
                let key = UnitKey { object: object.id, unit };
                if let Some(bytes) = self.cache.get(key) {
                    units.push(Unit::Here(bytes));
                } else if let Some(fill) = under_way.get(&key) {
                    units.push(Unit::Coming(fill.clone()));
                } else {
                    let run = self.missing_run(&under_way, object, unit..range.end);
                    let last = run.end;
                    let (fills, job) = self.prepare_fill(object, run);
                    for (key, fill) in fills {
                        units.push(Unit::Coming(fill.clone()));
                        under_way.insert(key, fill);
                    }
                    jobs.push(job);
                    unit = last;
                    continue;
                }
                unit += 1;
            }
        }
        // Only now, without the lock: a runtime that shuts down drops a job at once, and the job's guard takes the lock.
        for job in jobs {
            self.runtime.spawn(job);
        }
        let wait = |unit| async move {
            match unit {
                Unit::Here(bytes) => Ok(bytes),
                Unit::Coming(fill) => {
                    let missing = || FetchError::Corrupt {
                        key: object.key.clone(),
                        reason: "a fill came short".to_owned(),
                    };
                    fill.outcome.await?.get(fill.at).cloned().ok_or_else(missing)
                }
            }
        };
        join_all(units.into_iter().map(wait)).await.into_iter().collect()
    }

    /// The units from the start of `range` that one GET can bring and nobody has or fetches.
    fn missing_run(&self, under_way: &HashMap<UnitKey, Fill>, object: &Object, range: Range<u32>) -> Range<u32> {
        let length_max = u32::try_from(self.get_bytes_max / object.unit_bytes()).unwrap_or(u32::MAX).max(1);
        let limit = range.end.min(range.start.saturating_add(length_max));
        let missing = |unit: &u32| {
            let key = UnitKey {
                object: object.id,
                unit: *unit,
            };
            !under_way.contains_key(&key) && self.cache.get(key).is_none()
        };
        let end = (range.start + 1..limit)
            .take_while(missing)
            .last()
            .map_or(range.start + 1, |last| last + 1);
        range.start..end
    }

    fn prepare_fill(self: &Arc<Self>, object: &Object, run: Range<u32>) -> (Vec<(UnitKey, Fill)>, Job) {
        let keys: Vec<UnitKey> = run.clone().map(|unit| UnitKey { object: object.id, unit }).collect();
        let (fetcher, task_object) = (self.clone(), object.clone());
        let task = async move { fetcher.fetch_units(&task_object, run).await };
        let (outcome, job) = self.prepare(keys.clone(), object.key.clone(), task);
        (
            keys.into_iter()
                .enumerate()
                .map(|(at, key)| {
                    (
                        key,
                        Fill {
                            outcome: outcome.clone(),
                            at,
                        },
                    )
                })
                .collect(),
            job,
        )
    }

    /// Makes a job of a fill, so that it ends even if nobody waits for its outcome any more.
    fn prepare(self: &Arc<Self>, keys: Vec<UnitKey>, key: Path, task: impl Future<Output = Filled> + Send + 'static) -> (Outcome, Job) {
        let under_way = UnderWay {
            fetcher: self.clone(),
            keys,
        };
        let (sender, receiver) = oneshot::channel();
        let job = async move {
            let _until_done = under_way;
            // Nobody may be waiting; the units are in the cache all the same.
            let _ = sender.send(task.await);
        };
        let abandoned = move |_| {
            Err(FetchError::Unavailable {
                key,
                reason: "the fill was abandoned".to_owned(),
            })
        };
        let outcome = receiver.map(|outcome| outcome.unwrap_or_else(abandoned));
        (outcome.boxed().shared(), job.boxed())
    }

    async fn fetch_units(&self, object: &Object, run: Range<u32>) -> Filled {
        let bytes = object.bytes(&run);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let fetched = self.get_range(&object.key, bytes.clone()).await?;
            let (footer, units) = (object.footer.clone(), run.clone());
            // Checksums and copies of several MiB take milliseconds.
            let checked = tokio::task::spawn_blocking(move || check_units(&footer, &units, &fetched)).await;
            match checked.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(units) => {
                    for (unit, bytes) in run.zip(&units) {
                        self.cache.insert(UnitKey { object: object.id, unit }, bytes.clone());
                    }
                    return Ok(Arc::new(units));
                }
                Err(reason) if attempt >= FETCH_ATTEMPTS_MAX => {
                    tracing::error!(key = %object.key, %reason, "object is damaged");
                    return Err(FetchError::Corrupt {
                        key: object.key.clone(),
                        reason,
                    });
                }
                Err(reason) => tracing::warn!(key = %object.key, %reason, attempt, "bytes do not match, fetching again"),
            }
        }
    }

    async fn fetch_footer(&self, key: &Path, reference: &SegRef) -> Filled {
        let footer = self.decode_footer(key, reference).await?;
        self.footers.insert(reference.ulid, footer);
        Ok(Arc::new(Vec::new()))
    }

    async fn decode_footer(&self, key: &Path, reference: &SegRef) -> Result<Arc<Footer>, FetchError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let tail = self.get_range(key, reference.footer_pos..reference.size).await?;
            match footer_of(reference, &tail) {
                Ok(footer) => return Ok(Arc::new(footer)),
                Err(error) if attempt >= FETCH_ATTEMPTS_MAX => {
                    tracing::error!(%key, %error, "footer is damaged");
                    return Err(FetchError::Corrupt {
                        key: key.clone(),
                        reason: error.to_string(),
                    });
                }
                Err(error) => tracing::warn!(%key, %error, attempt, "footer does not match, fetching again"),
            }
        }
    }

    async fn get_range(&self, key: &Path, range: Range<u64>) -> Result<Bytes, FetchError> {
        let failed = |reason: String| FetchError::Unavailable { key: key.clone(), reason };
        let _permit = self.permits.acquire().await.map_err(|error| failed(error.to_string()))?;
        match self.store.get_range(key, range).await {
            Ok(bytes) => Ok(bytes),
            Err(StoreError::NotFound { .. }) => Err(FetchError::Missing { key: key.clone() }),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// Cuts a range into units, each with memory of its own, and checks them.
fn check_units(footer: &Footer, units: &Range<u32>, mut fetched: &[u8]) -> Result<Vec<Bytes>, String> {
    let unit_bytes = u64::from(footer.meta.unit_bytes);
    let mut checked = Vec::with_capacity(units.len());
    for unit in units.clone() {
        let start = u64::from(unit) * unit_bytes;
        let length = usize::try_from(unit_bytes.min(footer.body_bytes.saturating_sub(start))).map_err(|error| error.to_string())?;
        let (bytes, rest) = fetched.split_at_checked(length).ok_or_else(|| format!("unit {unit} is cut off"))?;
        let expected = usize::try_from(unit).ok().and_then(|unit| footer.unit_crcs.get(unit));
        if expected != Some(&crc32c(bytes)) {
            return Err(format!("unit {unit} has a bad crc"));
        }
        checked.push(Bytes::copy_from_slice(bytes));
        fetched = rest;
    }
    Ok(checked)
}

/// Decodes the end of an object and checks it against its reference.
fn footer_of(reference: &SegRef, tail: &Bytes) -> Result<Footer, FormatError> {
    let trailer = Trailer::decode(tail, reference.size)?;
    let footer_bytes = tail.len().saturating_sub(TRAILER_BYTES);
    if trailer.footer_pos != reference.footer_pos || trailer.footer_len != reference.footer_len || trailer.body_crc != reference.crc {
        return Err(FormatError::Inconsistent {
            what: "segment trailer",
            reason: "it does not match the head",
        });
    }
    let footer = Footer::decode(trailer, &tail.slice(..footer_bytes))?;
    if footer.meta.base_offset != reference.base || footer.meta.next_offset != reference.next {
        return Err(FormatError::Inconsistent {
            what: "segment footer",
            reason: "offsets do not match the head",
        });
    }
    Ok(footer)
}
