//! Live instances of one plugin with one configuration, and the memory that all plugins of the node share.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    engine::Ticker,
    imports::{ConfigFields, State},
    instance::{CallInput, Compiled, Failure, Instance},
    limits::Limiter,
    stats::Counters,
    telemetry::Telemetry,
};

/// How much longer than a batch `init` may take: it may compile a schema or an expression.
const INIT_DEADLINES: u32 = 10;

/// The node's plugin memory.
pub(crate) struct Budget {
    total_bytes: u64,
    used_bytes: Mutex<u64>,
}

/// A share of the budget, given back when dropped.
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new(total_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            total_bytes,
            used_bytes: Mutex::new(0),
        })
    }

    /// Takes a share, or says how much is left.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, u64> {
        let mut used = self.used_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let free_bytes = self.total_bytes.saturating_sub(*used);
        if bytes > free_bytes {
            return Err(free_bytes);
        }
        *used += bytes;
        Ok(Reservation {
            budget: self.clone(),
            bytes,
        })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut used = self.budget.used_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_sub(self.bytes);
    }
}

/// Why a call gave no result.
#[derive(Debug)]
pub(crate) enum CallError {
    /// There is no instance to call: it could not be made, or `init` failed. No record is to blame.
    Unavailable(Failure),
    /// The call failed on this input.
    Failed(Failure),
}

/// What a pool is made of.
pub(crate) struct PoolParts {
    pub(crate) compiled: Arc<Compiled>,
    pub(crate) ticker: Arc<Ticker>,
    pub(crate) telemetry: Arc<Telemetry>,
    /// The configuration as text, for `init`.
    pub(crate) config: String,
    /// Its fields, for `config-get`.
    pub(crate) fields: ConfigFields,
    pub(crate) memory_bytes: u64,
    /// Idle instances that are kept: one for each worker.
    pub(crate) idle_max: usize,
    pub(crate) instance_batches_max: u32,
    #[allow(dead_code, reason = "held for its drop")]
    pub(crate) reservation: Reservation,
}

/// The instances. A worker takes one for a call and puts it back only if the call went well.
pub(crate) struct Pool {
    parts: PoolParts,
    fields: Arc<ConfigFields>,
    idle: Mutex<Vec<Instance>>,
}

impl Pool {
    pub(crate) fn new(mut parts: PoolParts) -> Self {
        let fields = Arc::new(std::mem::take(&mut parts.fields));
        Self {
            parts,
            fields,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Calls a guest and lets `judge` look at the reply; a reply that it refuses counts as a crash.
    pub(crate) fn call<T>(
        &self,
        input: &CallInput<'_>,
        counters: &Counters,
        judge: impl FnOnce(&[u8]) -> Result<T, Failure>,
    ) -> Result<T, CallError> {
        let _time_passes = self.parts.ticker.enter();
        let mut instance = match self.take() {
            Some(instance) => instance,
            None => self.make(input.topic, input.deadline_ms).map_err(CallError::Unavailable)?,
        };
        let result = instance.process(input).and_then(|reply| judge(&reply));
        let worn = instance.batches() >= self.parts.instance_batches_max || instance.above_high_water();
        if result.is_err() || worn {
            counters.recycled();
        } else {
            self.put_back(instance);
        }
        result.map_err(CallError::Failed)
    }

    /// Makes sure that an instance is ready and hands out what the plugin says of itself. Checks the configuration on the way.
    pub(crate) fn warm_up(&self, topic: &Arc<str>, deadline_ms: u32) -> Result<crate::wit::PluginInfo, Failure> {
        let _time_passes = self.parts.ticker.enter();
        let mut instance = self.make(topic, deadline_ms)?;
        let info = instance.describe(&self.parts.compiled, deadline_ms.saturating_mul(INIT_DEADLINES))?;
        self.put_back(instance);
        Ok(info)
    }

    fn make(&self, topic: &Arc<str>, deadline_ms: u32) -> Result<Instance, Failure> {
        let state = State {
            limiter: Limiter::new(self.parts.memory_bytes),
            telemetry: self.parts.telemetry.clone(),
            config: self.fields.clone(),
            topic: topic.clone(),
        };
        let deadline_ms = deadline_ms.saturating_mul(INIT_DEADLINES);
        let mut instance = Instance::new(&self.parts.compiled, state, deadline_ms)?;
        instance.init(&self.parts.compiled, &self.parts.config, deadline_ms)?;
        Ok(instance)
    }

    fn take(&self) -> Option<Instance> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put_back(&self, instance: Instance) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.parts.idle_max {
            idle.push(instance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_refuses_what_is_not_free_and_takes_back_what_is_dropped() {
        let budget = Budget::new(100);
        let held = budget.reserve(60).unwrap();
        assert_eq!(budget.reserve(41).err(), Some(40));
        drop(held);
        assert!(budget.reserve(100).is_ok());
    }
}
