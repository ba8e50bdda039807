//! Reads chosen fields of a JSON document in one pass, without building the rest.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The fields that a configuration asks for, as a tree of JSON pointer segments. Each field has a slot in the result.
#[derive(Debug, Default)]
pub(crate) struct FieldTree {
    root: Node,
    slot_count: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// Set if the configuration asks for this very field.
    slot: Option<usize>,
    children: Vec<(String, Node)>,
}

impl FieldTree {
    /// The slot of the field at this JSON pointer (which must start with `/` or be empty).
    pub(crate) fn slot(&mut self, pointer: &str) -> usize {
        let mut node = &mut self.root;
        for segment in pointer.split('/').skip(1) {
            node = node.child_mut(segment.replace("~1", "/").replace("~0", "~"));
        }
        *node.slot.get_or_insert_with(|| {
            self.slot_count += 1;
            self.slot_count - 1
        })
    }

    /// The fields of a document by slot; `None` where the document has no such field. An error if this is not JSON.
    pub(crate) fn read(&self, document: &[u8]) -> serde_json::Result<Vec<Option<Value>>> {
        let mut values = vec![None; self.slot_count];
        let mut json = serde_json::Deserializer::from_slice(document);
        Reader {
            node: &self.root,
            values: &mut values,
        }
        .deserialize(&mut json)?;
        json.end()?;
        Ok(values)
    }
}

impl Node {
    fn child(&self, segment: &str) -> Option<&Node> {
        self.children.iter().find(|(name, _)| name == segment).map(|(_, node)| node)
    }

    fn child_mut(&mut self, segment: String) -> &mut Node {
        let at = self.children.iter().position(|(name, _)| *name == segment).unwrap_or_else(|| {
            self.children.push((segment, Node::default()));
            self.children.len() - 1
        });
        &mut self.children[at].1
    }

    /// Forgets what was read for this node and its children: of a repeated member, the last one counts, wholly.
    fn forget(&self, values: &mut [Option<Value>]) {
        if let Some(place) = self.slot.and_then(|slot| values.get_mut(slot)) {
            *place = None;
        }
        self.children.iter().for_each(|(_, child)| child.forget(values));
    }

    /// Takes what this node and its children ask for out of a value that was read whole.
    fn take_from(&self, value: &Value, values: &mut [Option<Value>]) {
        if let Some(slot) = self.slot {
            set(values, slot, value.clone());
        }
        for (segment, child) in &self.children {
            let found = match value {
                Value::Object(members) => members.get(segment),
                Value::Array(elements) => index(segment).and_then(|at| elements.get(at)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
            };
            if let Some(found) = found {
                child.take_from(found, values);
            }
        }
    }
}

fn set(values: &mut [Option<Value>], slot: usize, value: Value) {
    if let Some(place) = values.get_mut(slot) {
        *place = Some(value);
    }
}

/// An array index as JSON pointers write it: no sign, no leading zeros.
fn index(segment: &str) -> Option<usize> {
    let is_canonical = segment == "0" || !segment.starts_with(['0', '+']);
    segment.parse().ok().filter(|_| is_canonical)
}

/// Reads one value of the document for one node of the tree.
struct Reader<'t> {
    node: &'t Node,
    values: &'t mut [Option<Value>],
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.node.slot.is_none() {
            return deserializer.deserialize_any(self);
        }
        let value: Value = serde::Deserialize::deserialize(deserializer)?;
        self.node.take_from(&value, self.values);
        Ok(())
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(child) = members.next_key_seed(Key { node: self.node })? {
            match child {
                Some(node) => {
                    node.forget(self.values);
                    members.next_value_seed(Reader {
                        node,
                        values: &mut *self.values,
                    })?;
                }
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        for at in 0usize.. {
            let child = self.node.children.iter().find(|(segment, _)| index(segment) == Some(at));
            let is_some = match child {
                Some((_, node)) => elements
                    .next_element_seed(Reader {
                        node,
                        values: &mut *self.values,
                    })?
                    .is_some(),
                None => elements.next_element::<IgnoredAny>()?.is_some(),
            };
            if !is_some {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Reads a member's name and finds the node that asks for it, without keeping the name.
struct Key<'t> {
    node: &'t Node,
}

impl<'de, 't> DeserializeSeed<'de> for Key<'t> {
    type Value = Option<&'t Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'t> Visitor<'_> for Key<'t> {
    type Value = Option<&'t Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.node.child(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(document: &str, pointers: &[&str]) -> Vec<Option<Value>> {
        let mut tree = FieldTree::default();
        let slots: Vec<usize> = pointers.iter().map(|pointer| tree.slot(pointer)).collect();
        let values = tree.read(document.as_bytes()).unwrap();
        slots.into_iter().map(|slot| values[slot].clone()).collect()
    }

    #[test]
    fn fields_are_found_as_serde_jsons_pointers_find_them() {
        let document = r#"{"a":{"b":[1,{"c":"x"},[true]],"d/e":null,"~":2},"a2":{"b":[9]},"":3,"a":{"b":[4,{"c":5}]}}"#;
        let pointers = [
            "", "/a", "/a/b", "/a/b/0", "/a/b/1/c", "/a/b/2/0", "/a/b/00", "/a/d~1e", "/a/~0", "/", "/x", "/a/b/c", "/a2/b/0",
        ];
        let whole: Value = serde_json::from_str(document).unwrap();
        let expected: Vec<_> = pointers.iter().map(|pointer| whole.pointer(pointer).cloned()).collect();
        assert_eq!(read(document, &pointers), expected);
        for (pointer, expected) in pointers.iter().zip(expected) {
            assert_eq!(read(document, &[pointer]), [expected], "{pointer}");
        }
    }

    #[test]
    fn the_whole_document_must_be_json() {
        let mut tree = FieldTree::default();
        tree.slot("/a");
        for document in ["", "x", r#"{"a":1"#, r#"{"a":1} x"#, r#"{"b":tru}"#, "\u{1}"] {
            assert!(tree.read(document.as_bytes()).is_err(), "{document}");
        }
        assert!(tree.read(&[b'['; 100_000]).is_err());
    }
}
