//! Byte strings in pieces, so that record bytes travel from disk, cache or frame to the socket without being copied.

use std::{fs::File, sync::Arc};

use bytes::{Bytes, BytesMut};

/// A range of an open file that is to be sent as it stands.
#[derive(Debug, Clone)]
pub struct FileRange {
    /// The open file.
    pub file: Arc<File>,
    /// Position of the first byte.
    pub position: u64,
    /// Number of bytes.
    pub len: usize,
}

/// A piece of an outgoing message.
#[derive(Debug, Clone)]
pub enum Chunk {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Bytes in a file; sent by sendfile where the transport allows it.
    File(FileRange),
}

impl Chunk {
    /// Number of bytes in this piece.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File(range) => range.len,
        }
    }

    /// Whether the piece holds no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl PartialEq for Chunk {
    /// File ranges are equal if they name the same open file, position and length.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::File(a), Self::File(b)) => Arc::ptr_eq(&a.file, &b.file) && a.position == b.position && a.len == b.len,
            (Self::Bytes(_), Self::File(_)) | (Self::File(_), Self::Bytes(_)) => false,
        }
    }
}

/// The value of a `records` field: whole record batches, in one or more pieces.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Records {
    chunks: Vec<Chunk>,
    len: usize,
}

impl Records {
    /// No bytes.
    pub const fn empty() -> Self {
        Self {
            chunks: Vec::new(),
            len: 0,
        }
    }

    /// Appends a piece; empty pieces are left out.
    pub fn push(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.chunks.push(chunk);
        }
    }

    /// Total number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces in order.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The pieces in order, by value.
    pub fn into_chunks(self) -> Vec<Chunk> {
        self.chunks
    }

    /// The bytes in one piece, if no piece lies in a file. Copies only when there are several pieces.
    pub fn into_bytes(mut self) -> Option<Bytes> {
        if self.chunks.len() <= 1 {
            return match self.chunks.pop() {
                None => Some(Bytes::new()),
                Some(Chunk::Bytes(bytes)) => Some(bytes),
                Some(Chunk::File(_)) => None,
            };
        }
        let mut joined = BytesMut::with_capacity(self.len);
        for chunk in self.chunks {
            match chunk {
                Chunk::Bytes(bytes) => joined.extend_from_slice(&bytes),
                Chunk::File(_) => return None,
            }
        }
        Some(joined.freeze())
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        let mut records = Self::empty();
        records.push(Chunk::Bytes(bytes));
        records
    }
}

impl FromIterator<Chunk> for Records {
    fn from_iter<I: IntoIterator<Item = Chunk>>(chunks: I) -> Self {
        let mut records = Self::empty();
        for chunk in chunks {
            records.push(chunk);
        }
        records
    }
}
