//! Fuzzing without a toolchain of its own: valid inputs are damaged from a seed and given to a reader, which must not panic.
//!
//! Targets are tests whose names begin with `fuzz_`, beside the code that reads. `make test` runs each for a second, `make fuzz` for a minute
//! (`MILLSTREAM_FUZZ_SECONDS`). A failure prints the seed, which finds it again (`MILLSTREAM_FUZZ_SEED`), and the input.

use std::{
    fmt::Write,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::{Duration, Instant},
};

/// Numbers that lengths, counts and offsets are overwritten with.
const EDGES: [u64; 10] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];

/// A small generator of numbers from a seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }
}

/// Gives damaged inputs to `read`, which says whether an input can be read, for as long as is asked for. Each input is one of `corpus` with
/// one to eight changes.
///
/// # Panics
/// When `read` does, after the seed and the input were printed; and where one of the corpus cannot be read, as what is damaged then does not
/// get far either.
pub fn fuzz(target: &str, corpus: &[Vec<u8>], read: impl Fn(&[u8]) -> bool) {
    assert!(!corpus.is_empty(), "{target}: there is nothing to damage");
    for (number, whole) in corpus.iter().enumerate() {
        assert!(read(whole), "{target}: input {number} of the corpus cannot be read as it is");
    }
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let time = Duration::from_secs(number("MILLSTREAM_FUZZ_SECONDS", 1));
    let mut seed = number("MILLSTREAM_FUZZ_SEED", 1);
    let started = Instant::now();
    loop {
        let input = mutated(corpus, &mut Random::new(seed));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| read(&input))) {
            let mut hex = String::new();
            for byte in &input {
                let _ = write!(hex, "{byte:02x}");
            }
            eprintln!("{target} panicked with MILLSTREAM_FUZZ_SEED={seed} on {hex}");
            resume_unwind(panic);
        }
        if started.elapsed() >= time {
            break;
        }
        seed = seed.wrapping_add(1);
    }
}

/// One input of a key and a value: the key's length comes first.
///
/// # Panics
/// If the key has more than 255 bytes.
pub fn pair(key: &[u8], value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(key.len()).unwrap_or_else(|_| panic!("a key of {} bytes", key.len()));
    [&[length], key, value].concat()
}

/// What [`pair`] put together.
pub fn split(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = input.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// One of the corpus, damaged.
pub fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = corpus.get(random.below(corpus.len())).cloned().unwrap_or_default();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len() + 1);
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.below(256) as u8),
            2 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            3 => {
                let edge = EDGES[random.below(EDGES.len())].to_be_bytes();
                let width = [1, 2, 4, 8][random.below(4)];
                for (byte, edge) in bytes.iter_mut().skip(at).zip(&edge[8 - width..]) {
                    *byte = *edge;
                }
            }
            4 => {
                let other = corpus.get(random.below(corpus.len())).map_or(&[][..], Vec::as_slice);
                let from = random.below(other.len() + 1);
                let to = (from + random.below(64)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let end = (at + random.below(32)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_input_again_and_seeds_differ() {
        let corpus = [b"some bytes to damage".to_vec(), b"and others".to_vec()];
        let inputs: Vec<_> = (0..50).map(|seed| mutated(&corpus, &mut Random::new(seed))).collect();
        assert_eq!(inputs[7], mutated(&corpus, &mut Random::new(7)));
        let different: std::collections::BTreeSet<_> = inputs.iter().collect();
        assert!(different.len() > 40, "only {} of 50 inputs differ", different.len());
    }

    #[test]
    fn a_panic_is_found() {
        let corpus = [vec![0; 16]];
        let found = catch_unwind(|| {
            fuzz("test", &corpus, |bytes| {
                assert!(bytes.len() >= 16, "short");
                true
            })
        });
        assert!(found.is_err());
    }

    #[test]
    fn a_corpus_that_cannot_be_read_is_an_error() {
        assert!(catch_unwind(|| fuzz("test", &[vec![0]], |_| false)).is_err());
        assert!(catch_unwind(|| fuzz("test", &[], |_| true)).is_err());
    }

    #[test]
    fn pairs_come_apart_again() {
        assert_eq!(split(&pair(b"key", b"value")), Some((&b"key"[..], &b"value"[..])));
        assert_eq!(split(&[9, 1]), None);
    }
}
