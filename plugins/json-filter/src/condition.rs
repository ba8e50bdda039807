//! Conditions: trees of tests on fields.

use std::cmp::Ordering;

use regex_lite::Regex;
use serde::Deserialize;
use serde_json::{Number, Value};

/// A condition whose tests name fields by `F`: a JSON pointer as configured, a slot once compiled.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Written", bound = "Condition<F>: TryFrom<Written, Error = String>")]
pub(crate) enum Condition<F> {
    And(Vec<Condition<F>>),
    Or(Vec<Condition<F>>),
    Not(Box<Condition<F>>),
    Test(Test<F>),
}

#[derive(Debug)]
pub(crate) struct Test<F> {
    pub(crate) field: F,
    pub(crate) predicate: Predicate,
}

/// What must be true of a field that is there. A field that is missing, or of a type that cannot be compared, satisfies nothing.
#[derive(Debug)]
pub(crate) enum Predicate {
    Eq(Value),
    Ne(Value),
    /// The field stands in one of these relations to the value; both are numbers or both are strings.
    Ordered(&'static [Ordering], Value),
    In(Vec<Value>),
    Exists,
    /// A string contains this string, or an array this element.
    Contains(Value),
    Prefix(String),
    Matches(Regex),
}

impl<F> Condition<F> {
    /// The same condition with other tests.
    pub(crate) fn map<G>(self, change: &mut impl FnMut(Test<F>) -> Test<G>) -> Condition<G> {
        match self {
            Condition::And(parts) => Condition::And(parts.into_iter().map(|part| part.map(change)).collect()),
            Condition::Or(parts) => Condition::Or(parts.into_iter().map(|part| part.map(change)).collect()),
            Condition::Not(part) => Condition::Not(Box::new(part.map(change))),
            Condition::Test(test) => Condition::Test(change(test)),
        }
    }
}

impl Condition<usize> {
    /// True if the condition holds for these fields.
    pub(crate) fn holds(&self, fields: &[Option<Value>]) -> bool {
        match self {
            Condition::And(parts) => parts.iter().all(|part| part.holds(fields)),
            Condition::Or(parts) => parts.iter().any(|part| part.holds(fields)),
            Condition::Not(part) => !part.holds(fields),
            Condition::Test(test) => match fields.get(test.field) {
                Some(Some(field)) => test.predicate.holds(field),
                Some(None) | None => false,
            },
        }
    }
}

impl Predicate {
    fn holds(&self, field: &Value) -> bool {
        match self {
            Predicate::Eq(value) => equals(field, value),
            Predicate::Ne(value) => is_comparable(field, value) && !equals(field, value),
            Predicate::Ordered(orderings, value) => compare(field, value).is_some_and(|ordering| orderings.contains(&ordering)),
            Predicate::In(values) => values.iter().any(|value| equals(field, value)),
            Predicate::Exists => true,
            Predicate::Contains(value) => match (field, value) {
                (Value::String(field), Value::String(part)) => field.contains(part),
                (Value::Array(elements), value) => elements.iter().any(|element| equals(element, value)),
                _ => false,
            },
            Predicate::Prefix(prefix) => field.as_str().is_some_and(|field| field.starts_with(prefix)),
            Predicate::Matches(regex) => field.as_str().is_some_and(|field| regex.is_match(field)),
        }
    }
}

/// Equal as JSON means it: 1 and 1.0 are the same number.
fn equals(a: &Value, b: &Value) -> bool {
    compare(a, b).map_or_else(|| a == b, Ordering::is_eq)
}

fn is_comparable(a: &Value, b: &Value) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

/// The order of two numbers or of two strings (by code point).
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn compare_numbers(a: &Number, b: &Number) -> Option<Ordering> {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

/// A condition as the configuration writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    and: Option<Vec<Condition<String>>>,
    or: Option<Vec<Condition<String>>>,
    not: Option<Box<Condition<String>>>,
    field: Option<String>,
    op: Option<Op>,
    #[serde(default, deserialize_with = "present")]
    value: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
    In,
    Exists,
    Contains,
    Prefix,
    Matches,
}

/// Tells `"value": null` from no value at all.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl TryFrom<Written> for Condition<String> {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written {
                and: Some(parts),
                or: None,
                not: None,
                field: None,
                op: None,
                value: None,
            } => Ok(Condition::And(parts)),
            Written {
                and: None,
                or: Some(parts),
                not: None,
                field: None,
                op: None,
                value: None,
            } => Ok(Condition::Or(parts)),
            Written {
                and: None,
                or: None,
                not: Some(part),
                field: None,
                op: None,
                value: None,
            } => Ok(Condition::Not(part)),
            Written {
                and: None,
                or: None,
                not: None,
                field: Some(field),
                op: Some(op),
                value,
            } => {
                if !field.is_empty() && !field.starts_with('/') {
                    return Err(format!("field: {field:?} is not a JSON pointer: it must start with `/`"));
                }
                Ok(Condition::Test(Test {
                    field,
                    predicate: predicate(op, value)?,
                }))
            }
            _ => Err("a condition is exactly one of `and`, `or`, `not`, or `field` with `op` and `value`".to_owned()),
        }
    }
}

fn predicate(op: Op, value: Option<Value>) -> Result<Predicate, String> {
    let value = match (op, value) {
        (Op::Exists, None) => return Ok(Predicate::Exists),
        (Op::Exists, Some(_)) => return Err("value: `exists` takes none".to_owned()),
        (_, Some(value)) => value,
        (_, None) => return Err("value: missing".to_owned()),
    };
    let ordered = |orderings, value: Value| match value {
        Value::Number(_) | Value::String(_) => Ok(Predicate::Ordered(orderings, value)),
        _ => Err("value: must be a number or a string".to_owned()),
    };
    match op {
        Op::Eq => Ok(Predicate::Eq(value)),
        Op::Ne => Ok(Predicate::Ne(value)),
        Op::Gt => ordered(&[Ordering::Greater], value),
        Op::Ge => ordered(&[Ordering::Greater, Ordering::Equal], value),
        Op::Lt => ordered(&[Ordering::Less], value),
        Op::Le => ordered(&[Ordering::Less, Ordering::Equal], value),
        Op::In => match value {
            Value::Array(values) => Ok(Predicate::In(values)),
            _ => Err("value: must be an array".to_owned()),
        },
        Op::Exists => Ok(Predicate::Exists),
        Op::Contains => Ok(Predicate::Contains(value)),
        Op::Prefix => text(value).map(Predicate::Prefix),
        Op::Matches => {
            let regex = Regex::new(&text(value)?).map_err(|error| format!("value: {error}"))?;
            Ok(Predicate::Matches(regex))
        }
    }
}

fn text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err("value: must be a string".to_owned()),
    }
}
