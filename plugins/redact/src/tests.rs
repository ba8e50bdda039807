use millstream_sdk::testing::{Golden, golden, run};
use proptest::prelude::*;

use super::*;

#[test]
fn golden_fields() {
    golden::<Plugin>(include_str!("../golden/fields.json"));
}

#[test]
fn golden_patterns() {
    golden::<Plugin>(include_str!("../golden/patterns.json"));
}

fn redactor(config: &str) -> Redactor {
    serde_json::from_str(config).unwrap()
}

#[test]
fn broken_configurations_are_refused_with_the_field() {
    let golden = Golden::parse(r#"{"cases":[]}"#).unwrap();
    let error = |config: &str| run::<Plugin>(config, &golden.context(), &[]).unwrap_err();
    assert!(error("").contains("nothing to redact"));
    assert!(error(r#"{"fields":[{"pointer":"a","action":"mask"}]}"#).contains("pointer \"a\" must start with `/`"));
    assert!(error(r#"{"fields":[{"pointer":"/a","action":"hash"}]}"#).contains("salt: missing"));
    assert!(error(r#"{"patterns":["email"],"pattern_action":"hash"}"#).contains("salt: missing"));
    assert!(error(r#"{"fields":[{"pointer":"/a","action":"remove","keep_last":1}]}"#).contains("keep_last"));
    assert!(error(r#"{"fields":[{"pointer":"/a","action":"hide"}]}"#).contains("fields[0].action: unknown variant"));
    assert!(error(r#"{"patterns":["iban"]}"#).contains("patterns[0]: unknown variant"));
}

#[test]
fn documents_nested_too_deep_fail_instead_of_passing() {
    let redactor = redactor(r#"{"patterns":["email"]}"#);
    let nested = |depth: usize| format!("{}\"a@b.io\"{}", "[".repeat(depth), "]".repeat(depth));
    assert!(redactor.redact(nested(127).as_bytes()).is_ok_and(|redacted| redacted.is_some()));
    assert!(redactor.redact(nested(128).as_bytes()).is_err());
    assert!(redactor.redact(nested(100_000).as_bytes()).is_err());
}

#[test]
fn the_first_rule_for_a_field_wins() {
    let redactor = redactor(r#"{"fields":[{"pointer":"/a/*","action":"mask"},{"pointer":"/a/b","action":"remove"}]}"#);
    assert_eq!(
        redactor.redact(br#"{"a":{"b":"x","c":"y"}}"#).unwrap().unwrap(),
        br#"{"a":{"b":"*","c":"*"}}"#
    );
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "[a-z@.\"\\\\é0-9 -]{0,20}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::vec(("[a-c]", inner), 0..5).prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn removal_does_what_it_says_and_nothing_else(mut document in any_json()) {
        let redactor = redactor(r#"{"fields":[{"pointer":"/a","action":"remove"},{"pointer":"/b/c","action":"remove"}]}"#);
        let redacted = redactor.redact(document.to_string().as_bytes()).unwrap();
        let before = document.clone();
        if let Some(members) = document.as_object_mut() {
            members.remove("a");
            if let Some(inner) = members.get_mut("b").and_then(serde_json::Value::as_object_mut) {
                inner.remove("c");
            }
        }
        match redacted {
            Some(redacted) => prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&redacted).unwrap(), document),
            None => prop_assert_eq!(before, document),
        }
    }

    #[test]
    fn patterns_leave_json_json_and_nothing_to_find(document in any_json()) {
        let redactor = redactor(r#"{"patterns":["email","card"]}"#);
        if let Some(redacted) = redactor.redact(document.to_string().as_bytes()).unwrap() {
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&redacted).is_ok());
            prop_assert_eq!(redactor.redact(&redacted).unwrap(), None);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(value in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'@'), Just(b'4'), Just(b'"'), Just(b'{')], 0..80)) {
        let redactor = redactor(r#"{"patterns":["email","card"],"fields":[{"pointer":"/*","action":"mask"}]}"#);
        let _ = redactor.redact(&value);
    }
}
