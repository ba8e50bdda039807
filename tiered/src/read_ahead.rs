//! Notices readers that go through a partition in order, and says how far to read ahead of each.
//!
//! A reader is known by the offset at which it must continue. Each read that does so doubles its window, from one unit up to the
//! maximum; anything else is a new reader with no window. Nothing is fetched until less than half of the window is left.

use std::collections::VecDeque;

/// Readers of one partition that are remembered; the one that was idle longest is forgotten first.
const READERS_MAX: usize = 32;

#[derive(Debug, Clone, Copy)]
struct Sequential {
    /// Offset at which it continues.
    next_offset: i64,
    /// How far to read ahead, in bytes.
    window_bytes: u64,
    /// Bytes asked for ahead of it and not read yet.
    ahead_bytes: u64,
}

/// The sequential readers of one partition.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    readers: VecDeque<Sequential>,
}

/// What to fetch ahead of a reader, in bytes after the end of what it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// How far the reader is covered already.
    pub skip_bytes: u64,
    /// How far it should be covered.
    pub until_bytes: u64,
}

impl ReadAhead {
    /// Notes a read from `offset` that ended before `next_offset` and took `bytes`; says what to fetch ahead, if anything.
    pub fn note(&mut self, offset: i64, next_offset: i64, bytes: u64, first_window: u64, window_max: u64) -> Option<Ahead> {
        let known = self
            .readers
            .iter()
            .position(|reader| reader.next_offset == offset)
            .and_then(|at| self.readers.remove(at));
        let mut reader = match known {
            Some(reader) => Sequential {
                next_offset,
                window_bytes: reader
                    .window_bytes
                    .saturating_mul(2)
                    .clamp(first_window.min(window_max), window_max),
                ahead_bytes: reader.ahead_bytes.saturating_sub(bytes),
            },
            None => Sequential {
                next_offset,
                window_bytes: 0,
                ahead_bytes: 0,
            },
        };
        let due = reader.ahead_bytes < reader.window_bytes.div_ceil(2);
        let ahead = due.then_some(Ahead {
            skip_bytes: reader.ahead_bytes,
            until_bytes: reader.window_bytes,
        });
        if due {
            reader.ahead_bytes = reader.window_bytes;
        }
        self.readers.push_back(reader);
        if self.readers.len() > READERS_MAX {
            self.readers.pop_front();
        }
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_doubles_while_a_reader_is_sequential_and_stops_at_the_maximum() {
        let mut ahead = ReadAhead::default();
        assert_eq!(ahead.note(0, 10, 1000, 1000, 3000), None);
        assert_eq!(
            ahead.note(10, 20, 1000, 1000, 3000),
            Some(Ahead {
                skip_bytes: 0,
                until_bytes: 1000
            })
        );
        assert_eq!(
            ahead.note(20, 30, 1000, 1000, 3000),
            Some(Ahead {
                skip_bytes: 0,
                until_bytes: 2000
            })
        );
        assert_eq!(
            ahead.note(30, 40, 1000, 1000, 3000),
            Some(Ahead {
                skip_bytes: 1000,
                until_bytes: 3000
            })
        );
        assert_eq!(ahead.note(40, 50, 1000, 1000, 3000), None, "two thirds of the window are left");
    }

    #[test]
    fn a_jump_starts_over() {
        let mut ahead = ReadAhead::default();
        ahead.note(0, 10, 1000, 1000, 8000);
        ahead.note(10, 20, 1000, 1000, 8000);
        assert_eq!(ahead.note(500, 510, 1000, 1000, 8000), None);
        assert_eq!(
            ahead.note(20, 30, 1000, 1000, 8000),
            Some(Ahead {
                skip_bytes: 0,
                until_bytes: 2000
            }),
            "the first reader is still known"
        );
    }

    #[test]
    fn the_number_of_remembered_readers_is_bounded() {
        let mut ahead = ReadAhead::default();
        for reader in 0..=READERS_MAX as i64 {
            ahead.note(reader * 1000, reader * 1000 + 10, 10, 10, 100);
        }
        assert_eq!(ahead.readers.len(), READERS_MAX);
        assert_eq!(ahead.note(10, 20, 10, 10, 100), None, "the oldest was forgotten");
    }
}
