use millstream_sdk::testing::{Golden, golden, run};

use super::*;

#[test]
fn golden_delays() {
    golden::<Plugin>(include_str!("../golden/delays.json"));
}

#[test]
fn golden_operators() {
    golden::<Plugin>(include_str!("../golden/operators.json"));
}

#[test]
fn golden_invalid_records_can_fail() {
    golden::<Plugin>(include_str!("../golden/on-invalid-error.json"));
}

fn holds(condition: &str, document: &str) -> bool {
    let filter: JsonFilter = serde_json::from_str(&format!(r#"{{"where":{condition}}}"#)).unwrap();
    filter.condition.holds(&filter.fields.read(document.as_bytes()).unwrap())
}

#[test]
fn numbers_compare_by_value_not_by_spelling() {
    assert!(holds(r#"{"field":"/a","op":"eq","value":1}"#, r#"{"a":1.0}"#));
    assert!(holds(
        r#"{"field":"/a","op":"gt","value":9007199254740992}"#,
        r#"{"a":9007199254740993}"#
    ));
    assert!(holds(r#"{"field":"/a","op":"lt","value":0.5}"#, r#"{"a":-3}"#));
    assert!(holds(
        r#"{"field":"/a","op":"in","value":[2,18446744073709551615]}"#,
        r#"{"a":18446744073709551615}"#
    ));
}

#[test]
fn a_missing_or_incomparable_field_satisfies_no_test() {
    for op in ["eq", "ne", "gt", "ge", "lt", "le"] {
        let condition = format!(r#"{{"field":"/a","op":"{op}","value":5}}"#);
        for document in ["{}", r#"{"a":"5"}"#, r#"{"a":null}"#, r#"{"a":[5]}"#, "5"] {
            assert!(!holds(&condition, document), "{op} {document}");
        }
    }
    assert!(holds(r#"{"not":{"field":"/a","op":"eq","value":5}}"#, "{}"));
}

#[test]
fn broken_conditions_are_refused_with_the_field() {
    let golden = Golden::parse(r#"{"cases":[]}"#).unwrap();
    let error = |config: &str| run::<Plugin>(config, &golden.context(), &[]).unwrap_err();
    assert!(error("{}").contains("missing field `where`"));
    assert!(error(r#"{"where":{"field":"a","op":"exists"}}"#).contains("must start with `/`"));
    assert!(error(r#"{"where":{"field":"/a","op":"matches","value":"("}}"#).contains("value: "));
    assert!(error(r#"{"where":{"and":[{"field":"/a","op":"eq"}]}}"#).contains("where.and[0]: value: missing"));
    assert!(error(r#"{"where":{"field":"/a","op":"gt","value":[1]}}"#).contains("number or a string"));
    assert!(error(r#"{"where":{"and":[],"or":[]}}"#).contains("exactly one of"));
    assert!(error(r#"{"where":{"field":"/a","op":"is","value":1}}"#).contains("unknown variant `is`"));
}
