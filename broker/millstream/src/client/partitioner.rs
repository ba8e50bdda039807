//! Which partition a record goes to: what Kafka's Java producer does, so that keys land where its keys land.

/// Chooses partitions of one topic.
#[derive(Debug)]
pub struct Partitioner {
    partitions: Vec<i32>,
    sticky: usize,
}

impl Partitioner {
    /// A partitioner over a topic's partitions, which are not empty; `seed` says where records without a key go first.
    pub fn new(partitions: Vec<i32>, seed: u32) -> Self {
        let sticky = usize::try_from(seed).unwrap_or(0) % partitions.len().max(1);
        Self { partitions, sticky }
    }

    /// The partition of a record: by its key, else the one that is being filled.
    pub fn partition(&self, key: Option<&[u8]>) -> i32 {
        let index = match key {
            Some(key) => usize::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or(0) % self.partitions.len().max(1),
            None => self.sticky,
        };
        self.partitions.get(index).copied().unwrap_or(0)
    }

    /// Lets records without a key go on to the next partition; called when a batch of the current one was sent.
    pub fn next(&mut self) {
        self.sticky = (self.sticky + 1) % self.partitions.len().max(1);
    }
}

/// Kafka's murmur2, 32 bits.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // The length of a Java array, which has 32 bits.
    let mut hash = SEED ^ u32::try_from(data.len()).unwrap_or(u32::MAX);
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> R)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        for (byte, shift) in rest.iter().zip([0, 8, 16]) {
            hash ^= u32::from(*byte) << shift;
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_that_of_kafka() {
        // From Kafka's UtilsTest.
        let vectors: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (key, hash) in vectors {
            assert_eq!(murmur2(key).cast_signed(), hash, "{key:?}");
        }
    }

    #[test]
    fn records_without_a_key_stay_until_the_batch_is_sent() {
        let mut partitioner = Partitioner::new(vec![0, 1, 2], 4);
        assert_eq!((partitioner.partition(None), partitioner.partition(None)), (1, 1));
        partitioner.next();
        assert_eq!(partitioner.partition(None), 2);
        partitioner.next();
        assert_eq!(partitioner.partition(None), 0);
    }

    #[test]
    fn keys_have_their_partition_whatever_is_being_filled() {
        let mut partitioner = Partitioner::new((0..6).collect(), 0);
        let before = partitioner.partition(Some(b"foobar"));
        partitioner.next();
        assert_eq!(partitioner.partition(Some(b"foobar")), before);
        assert_eq!(i64::from(before), i64::from(-790_332_482_i32 & 0x7fff_ffff) % 6);
    }
}
