//! The cache of units, in memory, under a budget of bytes.

use bytes::Bytes;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter, sync::Cache};
use ulid::Ulid;

/// A unit of a segment object's body. Objects are immutable, so an entry is never stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnitKey {
    /// The object.
    pub object: Ulid,
    /// The unit's number, from 0.
    pub unit: u32,
}

/// Keeps units; may forget any of them at any time.
pub trait ChunkCache: Send + Sync {
    /// The unit, if it is here.
    fn get(&self, key: UnitKey) -> Option<Bytes>;
    /// Keeps a unit whose checksum was checked. `bytes` must own its memory, or more than the budget is held.
    fn insert(&self, key: UnitKey, bytes: Bytes);
}

/// Units in memory. Frequently read ones survive a scan (S3-FIFO, as quick_cache does it).
pub struct MemoryCache {
    units: Cache<UnitKey, Bytes, ByBytes>,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<UnitKey, Bytes> for ByBytes {
    fn weight(&self, _key: &UnitKey, unit: &Bytes) -> u64 {
        unit.len() as u64
    }
}

/// A shard refuses what is larger than its share, so a shard has room for this many units.
const UNITS_PER_SHARD_MIN: u64 = 32;

impl MemoryCache {
    /// A cache of `budget_bytes` for units of about `unit_bytes`.
    pub fn new(budget_bytes: u64, unit_bytes: u32) -> MemoryCache {
        let units = (budget_bytes / u64::from(unit_bytes.max(1))).max(1);
        let shards = (units / UNITS_PER_SHARD_MIN).clamp(1, 16);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(usize::try_from(units).unwrap_or(usize::MAX))
            .weight_capacity(budget_bytes)
            .shards(usize::try_from(shards).unwrap_or(1))
            .build()
            .unwrap_or_else(|error| panic!("cache options are incomplete: {error}"));
        MemoryCache {
            units: Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), Default::default()),
        }
    }

    /// Bytes that are held.
    #[cfg(test)]
    pub fn bytes(&self) -> u64 {
        self.units.weight()
    }
}

impl ChunkCache for MemoryCache {
    fn get(&self, key: UnitKey) -> Option<Bytes> {
        self.units.get(&key)
    }

    fn insert(&self, key: UnitKey, bytes: Bytes) {
        self.units.insert(key, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_holds_however_much_is_inserted() {
        let cache = MemoryCache::new(64 << 10, 4 << 10);
        for unit in 0..1000 {
            cache.insert(UnitKey { object: Ulid::nil(), unit }, Bytes::from(vec![0; 4 << 10]));
            assert!(cache.bytes() <= 64 << 10);
        }
        assert!(cache.bytes() >= 32 << 10, "most of the budget is used: {}", cache.bytes());
    }

    #[test]
    fn a_unit_larger_than_the_budget_is_not_kept() {
        let cache = MemoryCache::new(1 << 10, 4 << 10);
        let key = UnitKey {
            object: Ulid::nil(),
            unit: 0,
        };
        cache.insert(key, Bytes::from(vec![0; 4 << 10]));
        assert_eq!(cache.get(key), None);
    }
}
