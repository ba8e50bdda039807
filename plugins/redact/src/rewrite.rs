//! Rewrites a JSON document where rules or patterns ask for it, and copies the rest as it is spelled.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::conceal::Conceal;
use crate::config::{Action, Rule, Segment};
use crate::patterns::Patterns;

/// How deep documents may nest where something may have to be redacted.
const DEPTH_MAX: usize = 128;

/// Why a document could not be looked through to the end.
#[derive(Debug)]
pub(crate) enum RewriteError {
    /// A string has escapes that no text can have.
    Json(serde_json::Error),
    /// It nests deeper than [`DEPTH_MAX`].
    TooDeep,
}

impl fmt::Display for RewriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RewriteError::Json(error) => write!(f, "{error}"),
            RewriteError::TooDeep => write!(f, "JSON nests deeper than {DEPTH_MAX} levels"),
        }
    }
}

impl From<serde_json::Error> for RewriteError {
    fn from(error: serde_json::Error) -> Self {
        RewriteError::Json(error)
    }
}

/// The document with what must change changed; `None` if that is nothing.
pub(crate) fn document(document: &RawValue, rules: &[&Rule], patterns: &Patterns) -> Result<Option<String>, RewriteError> {
    let mut rewriter = Rewriter {
        patterns,
        out: String::with_capacity(document.get().len()),
        has_changed: false,
    };
    rewriter.value(document.get(), rules, 0)?;
    Ok(rewriter.has_changed.then_some(rewriter.out))
}

struct Rewriter<'p> {
    patterns: &'p Patterns,
    out: String,
    has_changed: bool,
}

impl Rewriter<'_> {
    /// Writes a value. `rules` are those whose first `depth` segments lead here and that have more.
    fn value(&mut self, json: &str, rules: &[&Rule], depth: usize) -> Result<(), RewriteError> {
        if rules.is_empty() && !self.patterns.may_match(json.as_bytes()) {
            self.out.push_str(json);
            return Ok(());
        }
        if depth == DEPTH_MAX {
            return Err(RewriteError::TooDeep);
        }
        match json.as_bytes().first() {
            Some(b'{') => self.object(json, rules, depth),
            Some(b'[') => self.array(json, rules, depth),
            Some(b'"') => self.string(json),
            _ => self.scalar(json),
        }
    }

    fn object(&mut self, json: &str, rules: &[&Rule], depth: usize) -> Result<(), RewriteError> {
        let members: Members<'_> = serde_json::from_str(json)?;
        self.out.push('{');
        let mut is_first = true;
        for (name, value) in members.0 {
            let (rules, action) = step(rules, depth, &text_of(name.get())?);
            if let Some(Action::Remove) = action {
                self.has_changed = true;
                continue;
            }
            self.comma(&mut is_first);
            self.string(name.get())?;
            self.out.push(':');
            self.child(value.get(), &rules, action, depth)?;
        }
        self.out.push('}');
        Ok(())
    }

    fn array(&mut self, json: &str, rules: &[&Rule], depth: usize) -> Result<(), RewriteError> {
        let elements: Vec<&RawValue> = serde_json::from_str(json)?;
        self.out.push('[');
        let mut is_first = true;
        for (at, value) in elements.into_iter().enumerate() {
            let (rules, action) = if rules.is_empty() {
                (Vec::new(), None)
            } else {
                step(rules, depth, &at.to_string())
            };
            if let Some(Action::Remove) = action {
                self.has_changed = true;
                continue;
            }
            self.comma(&mut is_first);
            self.child(value.get(), &rules, action, depth)?;
        }
        self.out.push(']');
        Ok(())
    }

    fn comma(&mut self, is_first: &mut bool) {
        if !std::mem::take(is_first) {
            self.out.push(',');
        }
    }

    fn child(&mut self, json: &str, rules: &[&Rule], action: Option<&Action>, depth: usize) -> Result<(), RewriteError> {
        match action {
            Some(Action::Conceal(conceal)) => self.conceal(json, conceal),
            Some(Action::Remove) | None => self.value(json, rules, depth + 1),
        }
    }

    /// Writes something else in place of a field. Null hides nothing and stays.
    fn conceal(&mut self, json: &str, conceal: &Conceal) -> Result<(), RewriteError> {
        let concealed = match json.as_bytes().first() {
            Some(b'n') => {
                self.out.push_str(json);
                return Ok(());
            }
            Some(b'"') => conceal.text(&text_of(json)?),
            Some(b'-' | b'0'..=b'9') => conceal.text(json),
            _ => conceal.other(json),
        };
        self.replace(&concealed)
    }

    /// Writes a string or a member's name; patterns apply.
    fn string(&mut self, json: &str) -> Result<(), RewriteError> {
        match self.patterns.redact_str(&text_of(json)?) {
            Some(redacted) => self.replace(&redacted),
            None => {
                self.out.push_str(json);
                Ok(())
            }
        }
    }

    /// Writes a number, a boolean or null. A number with a match becomes a string.
    fn scalar(&mut self, json: &str) -> Result<(), RewriteError> {
        match self.patterns.redact_str(json) {
            Some(redacted) => self.replace(&redacted),
            None => {
                self.out.push_str(json);
                Ok(())
            }
        }
    }

    fn replace(&mut self, text: &str) -> Result<(), RewriteError> {
        self.has_changed = true;
        self.out.push_str(&serde_json::to_string(text)?);
        Ok(())
    }
}

/// The rules that go on behind this member, and the action of the first one that ends at it.
fn step<'r>(rules: &[&'r Rule], depth: usize, name: &str) -> (Vec<&'r Rule>, Option<&'r Action>) {
    let leads_here = |rule: &&&Rule| match rule.segments.get(depth) {
        Some(Segment::Any) => true,
        Some(Segment::Name(segment)) => segment == name,
        None => false,
    };
    let (ending, going_on): (Vec<&Rule>, Vec<&Rule>) = rules
        .iter()
        .filter(leads_here)
        .copied()
        .partition(|rule| rule.segments.len() == depth + 1);
    (going_on, ending.first().map(|rule| &rule.action))
}

/// What a JSON string says.
fn text_of(json: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    let inner = json.strip_prefix('"').and_then(|json| json.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        _ => serde_json::from_str(json).map(Cow::Owned),
    }
}

/// The members of an object in their order and spelling, repeated names included.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor).map(Members)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(&'de RawValue, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}
