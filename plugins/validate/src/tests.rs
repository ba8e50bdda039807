use millstream_sdk::testing::{Golden, golden, run};

use super::*;

#[test]
fn golden_flights() {
    golden::<Plugin>(include_str!("../golden/flights.json"));
}

#[test]
fn golden_divert() {
    golden::<Plugin>(include_str!("../golden/divert.json"));
}

fn config_error(config: &str) -> String {
    let golden = Golden::parse(r#"{"cases":[]}"#).unwrap();
    run::<Plugin>(config, &golden.context(), &[]).unwrap_err()
}

#[test]
fn references_to_other_documents_are_refused() {
    for uri in [
        "http://127.0.0.1:1/s.json",
        "https://example.com/s.json",
        "file:///etc/hostname",
        "other.json",
    ] {
        let error = config_error(&format!(r##"{{"schema":{{"properties":{{"a":{{"$ref":"{uri}"}}}}}}}}"##));
        assert!(error.contains("schema: "), "{uri}: {error}");
    }
}

#[test]
fn references_inside_the_schema_are_followed() {
    let schema = r##"{"schema":{"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"next":{"$ref":"#/$defs/n"}}}}}}"##;
    let check: SchemaCheck = serde_json::from_str(schema).unwrap();
    assert_eq!(check.complaint(Some(br#"{"next":{"next":{}}}"#)), None);
    assert!(
        check
            .complaint(Some(br#"{"next":{"next":1}}"#))
            .is_some_and(|reason| reason.starts_with("/next/next: "))
    );
}

#[test]
fn broken_configurations_are_refused_with_the_field() {
    assert!(config_error("{}").contains("missing field `schema`"));
    assert!(config_error(r#"{"schema":{"type":"strin"}}"#).contains("schema: "));
    assert!(config_error(r#"{"schema":{"pattern":"(?=x)"}}"#).contains("schema: "));
    assert!(config_error(r#"{"schema":true,"message_limit":1025}"#).contains("message_limit: 1025"));
    assert!(config_error(r#"{"schema":true,"message_limit":0}"#).contains("message_limit: 0"));
    assert!(config_error(r#"{"schema":true,"on_invalid":"drop"}"#).contains("unknown variant `drop`"));
}

#[test]
fn reasons_keep_the_contents_out_and_the_limit() {
    let check: SchemaCheck = serde_json::from_str(r#"{"schema":{"properties":{"pin":{"type":"string"}}}}"#).unwrap();
    let reason = check.complaint(Some(br#"{"pin":987654}"#)).unwrap();
    assert!(
        reason.starts_with("/pin: ") && reason.contains("string") && !reason.contains("987654"),
        "{reason}"
    );
}
