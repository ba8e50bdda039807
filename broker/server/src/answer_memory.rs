//! Memory of records that answers hold until they are written: what comes from the tier and out of views. Records that lie in local files
//! are sent from there and cost nothing.

use std::sync::Arc;

use bytes::Bytes;
use millstream_protocol::chunk::{Chunk, Records};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// Unit in which memory is counted.
const UNIT_BYTES: usize = 1024;
/// The part of all memory that one reservation may have.
const SHARE: usize = 8;

/// The memory that all answers share.
#[derive(Debug)]
pub(crate) struct AnswerMemory {
    units: Arc<Semaphore>,
    units_max: usize,
}

impl AnswerMemory {
    /// Room for this many bytes.
    pub fn new(bytes: usize) -> Self {
        let units_max = (bytes / UNIT_BYTES).clamp(SHARE, Semaphore::MAX_PERMITS);
        Self {
            units: Arc::new(Semaphore::new(units_max)),
            units_max,
        }
    }

    /// Waits until there is room for as many bytes, or for the largest share of one answer; `None` if there is none by `deadline`.
    pub async fn reserve(&self, bytes: usize, deadline: Instant) -> Option<Reserved> {
        let units = bytes.div_ceil(UNIT_BYTES).min(self.units_max / SHARE);
        let acquired = Arc::clone(&self.units).acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX));
        let permit = timeout_at(deadline, acquired).await.ok()?.ok()?;
        Some(Reserved { permit })
    }
}

/// Room that was taken.
#[derive(Debug)]
pub(crate) struct Reserved {
    permit: OwnedSemaphorePermit,
}

impl Reserved {
    /// Keeps the room for these records, until the last piece of them is written or dropped. What they do not need is free again.
    pub fn hold<'a>(mut self, records: impl Iterator<Item = &'a mut Records>) {
        let mut records: Vec<&mut Records> = records.collect();
        let bytes: usize = records.iter().map(|records| in_memory(records)).sum();
        let unused = self.permit.num_permits().saturating_sub(bytes.div_ceil(UNIT_BYTES));
        drop(self.permit.split(unused));
        let permit = Arc::new(self.permit);
        for records in &mut records {
            let chunks = std::mem::take(*records).into_chunks().into_iter();
            **records = chunks
                .map(|chunk| match chunk {
                    Chunk::Bytes(bytes) => Chunk::Bytes(Bytes::from_owner(Held {
                        bytes,
                        _permit: Arc::clone(&permit),
                    })),
                    file => file,
                })
                .collect();
        }
    }
}

fn in_memory(records: &Records) -> usize {
    let chunks = records.chunks().iter();
    chunks
        .map(|chunk| match chunk {
            Chunk::Bytes(bytes) => bytes.len(),
            Chunk::File(_) => 0,
        })
        .sum()
}

struct Held {
    bytes: Bytes,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn room_is_kept_until_the_records_are_gone() {
        let memory = AnswerMemory::new(80 * UNIT_BYTES);
        let soon = || Instant::now() + Duration::from_millis(10);
        let mut first = Records::from(Bytes::from(vec![7; 3 * UNIT_BYTES]));
        let mut none = Records::empty();
        memory
            .reserve(usize::MAX, soon())
            .await
            .unwrap()
            .hold([&mut first, &mut none].into_iter());
        assert_eq!(memory.units.available_permits(), 77);
        assert_eq!(first, Records::from(Bytes::from(vec![7; 3 * UNIT_BYTES])));
        let mut others = Vec::new();
        for _ in 0..7 {
            others.push(memory.reserve(usize::MAX, soon()).await.unwrap());
        }
        assert!(memory.reserve(usize::MAX, soon()).await.is_none());
        drop(first);
        memory.reserve(usize::MAX, soon()).await.unwrap();
    }
}
