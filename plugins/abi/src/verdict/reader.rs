//! The host's side: a guest's reply, checked and borrowed.

use crate::AbiError;
use crate::cursor::Cursor;
use crate::verdict::{REASON_BYTES_MAX, VERSION, kind, parts, tag};

/// What a plugin decided about one record. Borrows from the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The record stays as it is. A replacement that names no parts reads as this.
    Keep,
    /// The record goes.
    Drop,
    /// Parts of the record change. The outer `None` leaves a part alone; the inner one makes it null.
    Replace {
        /// The new key.
        key: Option<Option<&'a [u8]>>,
        /// The new value.
        value: Option<Option<&'a [u8]>>,
        /// All headers the record shall have.
        headers: Option<HeaderList<'a>>,
    },
    /// The record must not be taken; the reason is for its producer.
    Reject(&'a str),
    /// The record goes to the dead-letter topic with this reason.
    Divert(&'a str),
    /// The plugin failed on this record: the binding's policy decides.
    Error(&'a str),
}

/// A header with a checked key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderRef<'a> {
    /// The key.
    pub key: &'a str,
    /// The value; `None` is null.
    pub value: Option<&'a [u8]>,
}

/// The headers of a replacement. They were checked when the verdict was read.
#[derive(Debug, Clone, Copy)]
pub struct HeaderList<'a> {
    cursor: Cursor<'a>,
    count: u32,
}

impl<'a> HeaderList<'a> {
    /// How many headers there are.
    pub fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// True if the replacement leaves the record without headers.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The headers, in order.
    pub fn iter(&self) -> impl Iterator<Item = HeaderRef<'a>> + use<'a> {
        let mut cursor = self.cursor;
        (0..self.count).map_while(move |_| read_header(&mut cursor).ok())
    }
}

impl PartialEq for HeaderList<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for HeaderList<'_> {}

/// Iterates over the verdicts of a reply, one for each record in order. Ends after the first error.
///
/// A host must read to the end before it acts: bytes behind the last verdict make the whole reply invalid.
#[derive(Debug, Clone)]
pub struct VerdictReader<'a> {
    cursor: Cursor<'a>,
    keeps_all: bool,
    record_count: u32,
    next_index: u32,
    done: bool,
}

impl<'a> VerdictReader<'a> {
    /// Checks the reply's head against the number of records the guest was given.
    pub fn new(reply: &'a [u8], record_count: u32) -> Result<Self, AbiError> {
        let mut cursor = Cursor::new(reply);
        let version = cursor.u8("version")?;
        if version != VERSION {
            return Err(AbiError::Version { version });
        }
        let keeps_all = match cursor.u8("kind")? {
            kind::KEEP_ALL => {
                cursor.finish("kind")?;
                true
            }
            kind::PER_RECORD => {
                let found = cursor.u32("verdict count")?;
                if found != record_count {
                    return Err(AbiError::Count {
                        expected: record_count,
                        found,
                    });
                }
                false
            }
            kind => return Err(AbiError::Kind { kind }),
        };
        Ok(Self {
            cursor,
            keeps_all,
            record_count,
            next_index: 0,
            done: false,
        })
    }

    /// True if the reply is the short form that keeps every record: the original bytes can be used untouched.
    pub fn keeps_all(&self) -> bool {
        self.keeps_all
    }

    fn read(&mut self) -> Result<Option<Verdict<'a>>, AbiError> {
        let index = self.next_index;
        if index == self.record_count {
            return self.cursor.finish("verdict").map(|()| None);
        }
        self.next_index = index + 1;
        if self.keeps_all {
            return Ok(Some(Verdict::Keep));
        }
        let verdict = match self.cursor.u8("tag")? {
            tag::KEEP => Verdict::Keep,
            tag::DROP => Verdict::Drop,
            tag::REPLACE => read_replacement(&mut self.cursor, index)?,
            tag::REJECT => Verdict::Reject(shortened(self.cursor.text("reason")?)),
            tag::DIVERT => Verdict::Divert(shortened(self.cursor.text("reason")?)),
            tag::ERROR => Verdict::Error(shortened(self.cursor.text("error message")?)),
            tag => return Err(AbiError::Tag { index, tag }),
        };
        Ok(Some(verdict))
    }
}

impl<'a> Iterator for VerdictReader<'a> {
    type Item = Result<Verdict<'a>, AbiError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.read().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

fn read_replacement<'a>(cursor: &mut Cursor<'a>, index: u32) -> Result<Verdict<'a>, AbiError> {
    let parts = cursor.u8("parts")?;
    if parts & !parts::ALL != 0 {
        return Err(AbiError::Parts { index, parts });
    }
    if parts == 0 {
        return Ok(Verdict::Keep);
    }
    let key = if parts & parts::KEY != 0 {
        Some(cursor.nullable("key")?)
    } else {
        None
    };
    let value = if parts & parts::VALUE != 0 {
        Some(cursor.nullable("value")?)
    } else {
        None
    };
    let headers = if parts & parts::HEADERS != 0 {
        Some(read_headers(cursor)?)
    } else {
        None
    };
    Ok(Verdict::Replace { key, value, headers })
}

fn read_headers<'a>(cursor: &mut Cursor<'a>) -> Result<HeaderList<'a>, AbiError> {
    let count = cursor.u32("header count")?;
    let list = HeaderList { cursor: *cursor, count };
    // A header takes eight bytes at least, so a false count runs out of bytes soon.
    for _ in 0..count {
        read_header(cursor)?;
    }
    Ok(list)
}

fn read_header<'a>(cursor: &mut Cursor<'a>) -> Result<HeaderRef<'a>, AbiError> {
    Ok(HeaderRef {
        key: cursor.text("header key")?,
        value: cursor.nullable("header value")?,
    })
}

fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default()
}
