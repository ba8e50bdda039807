//! Random but valid messages, written straight from the schema.
//!
//! This is a second, interpreting implementation of the wire format: what it writes must survive our generated codec byte for byte.

use crate::schema::{Field, Message, Struct, Versions};

/// A small deterministic random number generator (splitmix64), so that a failing seed can be run again.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// The bytes of a random valid message.
pub fn sample(message: &Message, version: i16, random: &mut Random) -> Vec<u8> {
    let mut writer = Writer {
        message,
        version,
        flexible: version >= message.flexible_from,
        out: Vec::new(),
    };
    writer.fields(&message.structs[0], Some(random));
    writer.out
}

fn covers(range: Versions, version: i16) -> bool {
    (range.0..=range.1).contains(&version)
}

struct Writer<'a> {
    message: &'a Message,
    version: i16,
    flexible: bool,
    out: Vec<u8>,
}

impl Writer<'_> {
    /// Random values, or the defaults without `random`.
    fn fields(&mut self, s: &Struct, mut random: Option<&mut Random>) {
        let version = self.version;
        let present = || s.fields.iter().filter(|f| covers(f.versions, version));
        for field in present().filter(|f| f.tag.is_none()) {
            self.value(field, random.as_deref_mut());
        }
        if !self.flexible {
            return;
        }
        let mut tags: Vec<_> = present().filter_map(|f| Some((f.tag?, f))).collect();
        tags.sort_by_key(|(tag, _)| *tag);
        let contents: Vec<_> = tags
            .iter()
            .filter_map(|(tag, f)| Some((*tag, self.tagged(f, random.as_deref_mut()?)?)))
            .collect();
        self.uvarint(contents.len());
        for (tag, content) in contents {
            self.uvarint(tag as usize);
            self.uvarint(content.len());
            self.out.extend(content);
        }
    }

    /// A value for a tagged field; none when it is the default, which is never sent.
    fn tagged(&self, field: &Field, random: &mut Random) -> Option<Vec<u8>> {
        let write = |random: Option<&mut Random>| {
            let mut writer = Writer { out: Vec::new(), ..*self };
            writer.value(field, random);
            writer.out
        };
        let (default, content) = (write(None), write(Some(random)));
        (content != default).then_some(content)
    }

    fn value(&mut self, field: &Field, mut random: Option<&mut Random>) {
        let nullable = field.null.is_some_and(|range| covers(range, self.version));
        let null = match &mut random {
            Some(random) => nullable && random.below(4) == 0,
            None => field.default.as_deref() == Some("null"),
        };
        let is_struct = self.message.find(&field.base).is_some();
        if field.array {
            let count = random.as_deref_mut().map_or(0, |random| random.below(3));
            self.length((!null).then_some(count), false);
            for _ in 0..if null { 0 } else { count } {
                self.single(field, random.as_deref_mut());
            }
        } else if is_struct {
            if nullable {
                self.out.push(if null { 0xff } else { 1 });
            }
            if !null {
                self.single(field, random);
            }
        } else if null {
            self.length(None, field.base == "string");
        } else {
            self.single(field, random);
        }
    }

    fn single(&mut self, field: &Field, random: Option<&mut Random>) {
        if let Some(s) = self.message.find(&field.base) {
            return self.fields(s, random);
        }
        let width = match field.base.as_str() {
            "bool" | "i8" => 1,
            "i16" | "u16" => 2,
            "i32" => 4,
            "i64" | "f64" => 8,
            "uuid" => 16,
            _ => return self.sized(&field.base, random),
        };
        let bytes = match (random, field.default.as_deref()) {
            (Some(random), _) if field.base == "bool" => vec![random.next() as u8 & 1],
            (Some(random), _) => random.bytes(width),
            (None, Some("true")) => vec![1],
            (None, Some(default)) => default.parse::<i64>().unwrap().to_be_bytes()[8 - width..].to_vec(),
            (None, None) => vec![0; width],
        };
        self.out.extend(bytes);
    }

    fn sized(&mut self, base: &str, random: Option<&mut Random>) {
        let content = match random {
            None => Vec::new(),
            Some(random) if base == "string" => ["", "a", "orders", "größe-λ", "a.rather-long_name-0123456789"][random.below(5)].into(),
            Some(random) => {
                let length = [0, 1, 20, 3000][random.below(4)];
                random.bytes(length)
            }
        };
        self.length(Some(content.len()), base == "string");
        self.out.extend(content);
    }

    fn length(&mut self, length: Option<usize>, short: bool) {
        match (self.flexible, short) {
            (true, _) => self.uvarint(length.map_or(0, |length| length + 1)),
            (false, true) => self.out.extend(length.map_or(-1, |length| length as i16).to_be_bytes()),
            (false, false) => self.out.extend(length.map_or(-1, |length| length as i32).to_be_bytes()),
        }
    }

    fn uvarint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}
