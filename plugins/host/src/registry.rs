//! What is ready to run: chains with their pools, and everything that outlives a chain.
//!
//! A chain is known by the `Arc` that the broker holds. Once the broker let go of it, its pools may go: at once when memory is short,
//! else after a minute, so that a broker that builds the same chain anew finds warm pools. Pools, breakers and counters are
//! found by what they are for, so a new chain takes over what an old one used.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use millstream_core::transform::{Artefact, Binding, Chain, PluginStats, TransformError};

use crate::{
    HostOptions,
    chain::{Link, ResolvedChain},
    compile::{Compiler, Known},
    engine::Ticker,
    imports::ConfigFields,
    instance::Compiled,
    limits,
    policy::Rules,
    pool::{Budget, Pool, PoolParts, Reservation},
    stats::{Site, SiteKey},
    telemetry::{CustomMetric, Telemetry},
    text,
};

/// Plugins in one chain.
const CHAIN_BINDINGS_MAX: usize = 16;

/// Chains that are known at once; beyond it those that nobody holds go at once.
const CHAINS_MAX: usize = 1024;

/// How long the pools of a chain stay that nobody holds any more.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Places whose counters are kept; beyond it those that no chain uses go.
const SITES_MAX: usize = 4096;

/// See the module's documentation.
pub(crate) struct Registry {
    options: HostOptions,
    ticker: Arc<Ticker>,
    budget: Arc<Budget>,
    /// What the smallest instance takes of the budget, so that the budget is used up before the engine's slots are.
    instance_bytes_min: u64,
    known: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    /// By the address of the chain, which cannot be reused while the entry's `Weak` lives.
    chains: HashMap<usize, KnownChain>,
    pools: HashMap<PoolKey, Weak<Pool>>,
    sites: BTreeMap<SiteKey, Arc<Site>>,
    telemetry: BTreeMap<(String, String), Arc<Telemetry>>,
}

struct KnownChain {
    chain: Weak<Chain>,
    resolved: Arc<ResolvedChain>,
    used: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PoolKey {
    sha256: String,
    config: String,
    memory_bytes: u64,
}

/// Why a chain is not ready.
pub(crate) enum Unready {
    /// These must be compiled first.
    Compile(Vec<Arc<Artefact>>),
    /// It cannot be.
    Refused(TransformError),
}

impl Registry {
    pub(crate) fn new(options: HostOptions, ticker: Arc<Ticker>) -> Self {
        let budget = Budget::new(options.memory_budget_bytes);
        let instance_bytes_min = options.memory_budget_bytes / instance_slots(&options);
        Self {
            options,
            ticker,
            budget,
            instance_bytes_min,
            known: Mutex::default(),
        }
    }

    /// The chain, ready to run.
    pub(crate) fn resolve(&self, chain: &Arc<Chain>, compiler: &Compiler) -> Result<Arc<ResolvedChain>, Unready> {
        let now = Instant::now();
        if let Some(known) = self.lock().chains.get_mut(&address(chain)) {
            known.used = now;
            return Ok(known.resolved.clone());
        }
        check_chain(chain).map_err(Unready::Refused)?;
        let compiled = find_compiled(chain, compiler)?;
        let mut tables = self.lock();
        let links = chain
            .bindings
            .iter()
            .zip(compiled)
            .map(|(binding, compiled)| self.link(&mut tables, chain, binding, compiled));
        let resolved = Arc::new(ResolvedChain {
            hook: chain.hook,
            topic: chain.topic.as_str().into(),
            view: chain.view.clone(),
            links: links.collect::<Result<_, _>>().map_err(Unready::Refused)?,
            record_bytes_max: self.options.record_bytes_max,
        });
        let known = KnownChain {
            chain: Arc::downgrade(chain),
            resolved: resolved.clone(),
            used: now,
        };
        tables.chains.insert(address(chain), known);
        let crowded = tables.chains.len() > CHAINS_MAX;
        tables.forget(|known| crowded || now.saturating_duration_since(known.used) > FORGET_AFTER);
        Ok(resolved)
    }

    /// Takes a chain back that turned out not to work.
    pub(crate) fn forget(&self, chain: &Arc<Chain>) {
        self.lock().chains.remove(&address(chain));
    }

    fn link(&self, tables: &mut Tables, chain: &Chain, binding: &Binding, compiled: Arc<Compiled>) -> Result<Link, TransformError> {
        let artefact = &*binding.artefact;
        let key = SiteKey {
            plugin: artefact.name.clone(),
            version: artefact.version.clone(),
            hook: chain.hook,
            topic: chain.view.as_ref().unwrap_or(&chain.topic).clone(),
        };
        Ok(Link {
            plugin: artefact.name.clone(),
            version: artefact.version.clone(),
            pool: self.pool(tables, binding, compiled)?,
            site: tables.site(key, self.options.breaker_retry),
            rules: Rules {
                hook: chain.hook,
                policy: binding.policy,
                has_dead_letter_topic: binding.dead_letter_topic.is_some(),
            },
            breaker: binding.breaker,
            limits: binding.limits,
            dead_letter_topic: binding.dead_letter_topic.clone(),
        })
    }

    fn pool(&self, tables: &mut Tables, binding: &Binding, compiled: Arc<Compiled>) -> Result<Arc<Pool>, TransformError> {
        let artefact = &*binding.artefact;
        let memory_bytes = binding.limits.memory_bytes;
        let key = PoolKey {
            sha256: artefact.sha256.clone(),
            config: binding.config.clone(),
            memory_bytes,
        };
        if let Some(pool) = tables.pools.get(&key).and_then(Weak::upgrade) {
            return Ok(pool);
        }
        let fields = config_fields(binding)?;
        let workers = self.options.workers.max(1);
        let wanted_bytes = memory_bytes
            .max(self.instance_bytes_min)
            .saturating_mul(u64::try_from(workers).unwrap_or(u64::MAX));
        let no_memory = |free_bytes| TransformError::NoMemory {
            plugin: label(artefact),
            wanted_bytes,
            free_bytes,
        };
        let pool = Arc::new(Pool::new(PoolParts {
            compiled,
            ticker: self.ticker.clone(),
            telemetry: tables.telemetry(artefact),
            config: binding.config.clone(),
            fields,
            memory_bytes,
            idle_max: workers,
            instance_batches_max: self.options.instance_batches_max,
            reservation: self.reserve(tables, wanted_bytes).map_err(no_memory)?,
        }));
        tables.pools.insert(key, Arc::downgrade(&pool));
        Ok(pool)
    }

    /// Takes memory, if need be from chains that nobody holds any more.
    fn reserve(&self, tables: &mut Tables, bytes: u64) -> Result<Reservation, u64> {
        self.budget.reserve(bytes).or_else(|_| {
            tables.forget(|_| true);
            self.budget.reserve(bytes)
        })
    }

    /// Counters of every place a plugin worked at.
    pub(crate) fn stats(&self) -> Vec<PluginStats> {
        self.lock().sites.iter().map(|(key, site)| site.stats(key)).collect()
    }

    /// What the plugins count themselves.
    pub(crate) fn custom_metrics(&self) -> Vec<CustomMetric> {
        self.lock().telemetry.values().flat_map(|telemetry| telemetry.metrics()).collect()
    }

    /// Log lines that plugins wrote too fast.
    pub(crate) fn log_lines_dropped(&self) -> u64 {
        self.lock().telemetry.values().map(|telemetry| telemetry.lines_dropped()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    /// Drops chains that nobody holds and that `may_go`, and with them the pools that no other chain uses.
    fn forget(&mut self, may_go: impl Fn(&KnownChain) -> bool) {
        self.chains.retain(|_, known| known.chain.strong_count() > 0 || !may_go(known));
        self.pools.retain(|_, pool| pool.strong_count() > 0);
    }

    fn site(&mut self, key: SiteKey, breaker_retry: Duration) -> Arc<Site> {
        if self.sites.len() >= SITES_MAX {
            self.sites.retain(|_, site| Arc::strong_count(site) > 1);
        }
        self.sites.entry(key).or_insert_with(|| Arc::new(Site::new(breaker_retry))).clone()
    }

    fn telemetry(&mut self, artefact: &Artefact) -> Arc<Telemetry> {
        if self.telemetry.len() >= SITES_MAX {
            self.telemetry.retain(|_, telemetry| Arc::strong_count(telemetry) > 1);
        }
        let key = (artefact.name.clone(), artefact.version.clone());
        self.telemetry
            .entry(key)
            .or_insert_with(|| Arc::new(Telemetry::new(&artefact.name, &artefact.version)))
            .clone()
    }
}

/// Slots of the engine for instances in pools. The others are for inspections, and for the instance that a worker makes while the
/// one it replaces is not gone yet.
fn instance_slots(options: &HostOptions) -> u64 {
    let others = options.workers.saturating_mul(2).saturating_add(options.compile_threads);
    let others = u32::try_from(others).unwrap_or(u32::MAX);
    u64::from(options.instances_max.saturating_sub(others).max(1))
}

/// `name@version`
pub(crate) fn label(artefact: &Artefact) -> String {
    format!("{}@{}", artefact.name, artefact.version)
}

fn address(chain: &Arc<Chain>) -> usize {
    Arc::as_ptr(chain).addr()
}

fn check_chain(chain: &Chain) -> Result<(), TransformError> {
    if chain.bindings.len() > CHAIN_BINDINGS_MAX {
        return Err(TransformError::Invalid(format!(
            "a chain of {} plugins, the maximum is {CHAIN_BINDINGS_MAX}",
            chain.bindings.len()
        )));
    }
    for binding in &chain.bindings {
        let limits = binding.limits;
        let fits = (1..=10_000).contains(&limits.deadline_ms)
            && (limits::MEMORY_BYTES_MIN..=limits::MEMORY_BYTES_MAX).contains(&limits.memory_bytes)
            && (1..=1_000).contains(&limits.crashes_per_minute);
        if !fits {
            return Err(TransformError::Invalid(format!(
                "{}: limits out of range: {limits:?}",
                label(&binding.artefact)
            )));
        }
    }
    Ok(())
}

fn find_compiled(chain: &Chain, compiler: &Compiler) -> Result<Vec<Arc<Compiled>>, Unready> {
    let (mut ready, mut missing) = (Vec::new(), Vec::new());
    for binding in &chain.bindings {
        match compiler.look(&binding.artefact.sha256) {
            Known::Ready(compiled) => ready.push(compiled),
            Known::Failed(reason) => {
                return Err(Unready::Refused(TransformError::Invalid(format!(
                    "{}: {reason}",
                    label(&binding.artefact)
                ))));
            }
            Known::Unknown => missing.push(binding.artefact.clone()),
        }
    }
    if missing.is_empty() {
        Ok(ready)
    } else {
        Err(Unready::Compile(missing))
    }
}

/// The configuration's fields. It is a JSON object, or nothing.
fn config_fields(binding: &Binding) -> Result<ConfigFields, TransformError> {
    if binding.config.is_empty() {
        return Ok(ConfigFields::new());
    }
    serde_json::from_str(&binding.config).map_err(|error| TransformError::BadConfig {
        plugin: label(&binding.artefact),
        reason: text::line(&format!("not a JSON object: {error}")),
    })
}
