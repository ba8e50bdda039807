//! The compact message schema: one `.msg` file per message.
//!
//! ```text
//! request FetchRequest key=1 versions=4-18 flexible=12+      kind, name, API key (none for `data`), versions, flexible versions or `none`
//!
//! cluster_id: string 12+ null=12+ tag=0 default=null ignorable
//!
//! struct FetchTopic                                          a nested struct; its fields follow
//! topic: string 4-12 ignorable
//! ```
//! A field is `name: type versions` and then facts: `null=` the versions that allow null, `tag=` its tag number, `default=` when it is not
//! zero or empty, `ignorable` when it may be dropped silently in versions without it, `secret` when it must never be printed.
//! Types are `bool i8 i16 u16 i32 i64 f64 uuid string bytes records`, a struct's name, or `[]` before any of these.

use std::path::Path;
use std::{fs, io};

/// An inclusive range of versions.
pub type Versions = (i16, i16);

/// One request, response or stand-alone structure.
pub struct Message {
    /// `request`, `response` or `data`.
    pub kind: String,
    /// Name of the message and of its outermost struct.
    pub name: String,
    /// API key; none for `data`.
    pub key: Option<i16>,
    /// Versions the schema describes.
    pub versions: Versions,
    /// First flexible version; `i16::MAX` when no version is flexible.
    pub flexible_from: i16,
    /// The outermost struct first.
    pub structs: Vec<Struct>,
}

/// A struct and its fields in wire order.
pub struct Struct {
    /// Kafka's name.
    pub name: String,
    /// Fields in wire order; tagged ones anywhere.
    pub fields: Vec<Field>,
}

/// One field.
pub struct Field {
    /// Name in snake case.
    pub name: String,
    /// Type of the field, or of its elements.
    pub base: String,
    /// Whether this is an array of `base`.
    pub array: bool,
    /// Versions that have the field.
    pub versions: Versions,
    /// Versions that allow null.
    pub null: Option<Versions>,
    /// Tag number.
    pub tag: Option<u32>,
    /// Default, when not zero or empty.
    pub default: Option<String>,
    /// Dropped silently in versions without it.
    pub ignorable: bool,
    /// Never printed.
    pub secret: bool,
}

impl Message {
    /// The struct called `name`.
    pub fn find(&self, name: &str) -> Option<&Struct> {
        self.structs.iter().find(|s| s.name == name)
    }

    /// The versions in which a struct can appear: all for the outermost, else those of the fields that hold it.
    pub fn reach(&self, name: &str) -> Versions {
        let holders = self.structs.iter().flat_map(|s| &s.fields).filter(|f| f.base == name);
        holders
            .map(|f| f.versions)
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
            .unwrap_or(self.versions)
    }

    /// The module that holds the message: its name in snake case.
    pub fn module(&self) -> String {
        let mut out = String::new();
        for c in self.name.chars() {
            if c.is_ascii_uppercase() && !out.is_empty() {
                out.push('_');
            }
            out.push(c.to_ascii_lowercase());
        }
        out
    }
}

/// Reads every `.msg` file of `folder`, sorted by file name.
pub fn read_all(folder: &Path) -> io::Result<Vec<Message>> {
    let mut paths = fs::read_dir(folder)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|e| e == "msg"));
    paths.sort();
    let parse = |path: &std::path::PathBuf| {
        parse(&fs::read_to_string(path)?).map_err(|what| io::Error::other(format!("{}: {what}", path.display())))
    };
    paths.iter().map(parse).collect()
}

fn parse(text: &str) -> Result<Message, String> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let mut message = parse_head(lines.next().ok_or("empty file")?)?;
    for line in lines {
        match line.strip_prefix("struct ") {
            Some(name) => message.structs.push(Struct {
                name: name.to_owned(),
                fields: Vec::new(),
            }),
            None => {
                let field = parse_field(line, message.versions.1)?;
                message.structs.last_mut().ok_or("no struct")?.fields.push(field);
            }
        }
    }
    Ok(message)
}

fn parse_head(line: &str) -> Result<Message, String> {
    let mut words = line.split_whitespace();
    let (kind, name) = words.next().zip(words.next()).ok_or("no kind and name")?;
    let structs = vec![Struct {
        name: name.to_owned(),
        fields: Vec::new(),
    }];
    let mut message = Message {
        kind: kind.to_owned(),
        name: name.to_owned(),
        key: None,
        versions: (0, 0),
        flexible_from: i16::MAX,
        structs,
    };
    for word in words {
        match word.split_once('=').ok_or(word)? {
            ("key", key) => message.key = Some(number(key)?),
            ("versions", range) => message.versions = parse_versions(range, i16::MAX)?,
            ("flexible", "none") => {}
            ("flexible", range) => message.flexible_from = parse_versions(range, i16::MAX)?.0,
            _ => return Err(format!("unknown fact {word}")),
        }
    }
    Ok(message)
}

fn parse_field(line: &str, latest: i16) -> Result<Field, String> {
    let (name, rest) = line.split_once(':').ok_or_else(|| format!("not a field: {line}"))?;
    let mut words = rest.split_whitespace();
    let (kind, versions) = words
        .next()
        .zip(words.next())
        .ok_or_else(|| format!("no type and versions: {line}"))?;
    let (array, base) = kind.strip_prefix("[]").map_or((false, kind), |base| (true, base));
    let versions = parse_versions(versions, latest)?;
    let mut field = Field {
        name: name.to_owned(),
        base: base.to_owned(),
        array,
        versions,
        null: None,
        tag: None,
        default: None,
        ignorable: false,
        secret: false,
    };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("null", range) => field.null = Some(parse_versions(range, latest)?),
            ("tag", tag) => field.tag = Some(tag.parse().map_err(|_| format!("bad tag {tag}"))?),
            ("default", value) => field.default = Some(value.to_owned()),
            ("ignorable", _) => field.ignorable = true,
            ("secret", _) => field.secret = true,
            _ => return Err(format!("unknown fact {word}")),
        }
    }
    Ok(field)
}

fn parse_versions(text: &str, latest: i16) -> Result<Versions, String> {
    match (text.strip_suffix('+'), text.split_once('-')) {
        (Some(first), _) => Ok((number(first)?, latest)),
        (None, Some((first, last))) => Ok((number(first)?, number(last)?)),
        (None, None) => number(text).map(|only| (only, only)),
    }
}

fn number(text: &str) -> Result<i16, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}
