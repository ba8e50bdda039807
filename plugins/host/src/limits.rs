//! What one instance may hold.
//!
//! wasmtime asks before every growth. Its own `StoreLimits` counts each memory by itself, so a component with eight memories could
//! hold eight times its share; this limiter counts their sum.

use wasmtime::ResourceLimiter;

/// Largest memory limit a binding can set, and the size of a slot in the pooling allocator.
pub(crate) const MEMORY_BYTES_MAX: u64 = 512 << 20;

/// Smallest memory limit a binding can set.
pub(crate) const MEMORY_BYTES_MIN: u64 = 1 << 20;

/// Core instances of one component; wit-component makes two or three.
pub(crate) const CORE_INSTANCES_MAX: u32 = 16;

/// Linear memories of one component.
pub(crate) const MEMORIES_MAX: u32 = 4;

/// Tables of one component.
pub(crate) const TABLES_MAX: u32 = 8;

/// Elements of one table.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 65_536;

/// Share of its memory limit beyond which an instance is replaced after the batch, as wasm memory never shrinks.
const HIGH_WATER_EIGHTHS: u64 = 7;

/// Counts one instance's memory against its limit.
pub(crate) struct Limiter {
    limit_bytes: u64,
    used_bytes: u64,
    /// What the last permitted growth added, to be taken back if it then fails.
    last_growth_bytes: u64,
    denied: bool,
}

impl Limiter {
    /// Allows all memories together `limit_bytes`.
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            used_bytes: 0,
            last_growth_bytes: 0,
            denied: false,
        }
    }

    /// True if the guest was ever refused memory: a trap after that is blamed on it.
    pub(crate) fn was_denied(&self) -> bool {
        self.denied
    }

    /// True once the instance is so big that it should be replaced.
    pub(crate) fn above_high_water(&self) -> bool {
        self.used_bytes > self.limit_bytes / 8 * HIGH_WATER_EIGHTHS
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let growth = u64::try_from(desired.saturating_sub(current)).unwrap_or(u64::MAX);
        let used = self.used_bytes.saturating_add(growth);
        if used > self.limit_bytes {
            self.denied = true;
            return Ok(false);
        }
        self.used_bytes = used;
        self.last_growth_bytes = growth;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.used_bytes = self.used_bytes.saturating_sub(self.last_growth_bytes);
        self.last_growth_bytes = 0;
        Ok(())
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        usize::try_from(CORE_INSTANCES_MAX).unwrap_or(usize::MAX)
    }

    fn tables(&self) -> usize {
        usize::try_from(TABLES_MAX).unwrap_or(usize::MAX)
    }

    fn memories(&self) -> usize {
        usize::try_from(MEMORIES_MAX).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_share_one_limit() {
        let mut limiter = Limiter::new(100);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert!(!limiter.was_denied());
        assert!(!limiter.memory_growing(40, 41, None).unwrap());
        assert!(limiter.was_denied() && limiter.above_high_water());
    }

    #[test]
    fn failed_growth_is_taken_back() {
        let mut limiter = Limiter::new(100);
        assert!(limiter.memory_growing(0, 100, None).unwrap());
        limiter.memory_grow_failed(wasmtime::Error::msg("no pages")).unwrap();
        assert!(limiter.memory_growing(0, 100, None).unwrap());
    }
}
