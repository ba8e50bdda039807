use millstream_abi::{Verdict as Read, VerdictReader};

use super::*;
use crate::{Batch, Change, Error, Record, Result, Verdict, VerdictWriter};

mod shout {
    use super::*;

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct Config {
        suffix: String,
    }

    fn decide(record: &Record<'_>, config: &Config) -> Result<Verdict> {
        let Some(value) = record.value_str()? else {
            return Ok(Verdict::Drop);
        };
        Ok(match value {
            "plain" => Verdict::Keep,
            "bad" => Verdict::Reject("bad value".to_owned()),
            "later" => Verdict::Divert("not now".to_owned()),
            "fail" => return Err(Error::new("cannot say")),
            "headers" => Verdict::Replace(Change::none().headers([("a".to_owned(), record.header("h").map(<[u8]>::to_vec))])),
            "null" => Verdict::Replace(Change::none().null_value().key("gone")),
            _ => Verdict::Replace(Change::of_value(format!("{}{}", value.to_uppercase(), config.suffix))),
        })
    }

    crate::plugin! { name: "shout", hooks: [View], config: Config, config_schema: "{}", filter_map: decide }
}

mod non_null {
    crate::plugin! { filter: |record, _| Ok(record.value.is_some()) }
}

mod stamp {
    use super::*;

    fn stamp(record: &Record<'_>, _: &crate::NoConfig) -> Result<Change> {
        Ok(if record.timestamp_ms == 0 {
            Change::none()
        } else {
            Change::of_value(record.timestamp_ms.to_string())
        })
    }

    crate::plugin! { map: stamp }
}

mod first_only {
    use super::*;

    fn first(batch: Batch<'_>, _: &crate::NoConfig, verdicts: &mut VerdictWriter) -> Result<()> {
        for record in batch.records() {
            match record?.value {
                None => return Err(Error::new("no value")),
                Some(_) if verdicts.written() == 0 => verdicts.keep(),
                Some(_) => verdicts.drop_record(),
            }
        }
        Ok(())
    }

    crate::plugin! { on_batch: first }
}

const EVERY_VERDICT: &str = r#"{
    "config": {"suffix": "!"},
    "cases": [
        {"name": "kept", "value": "plain", "expect": {"keep": true}},
        {"name": "dropped", "key": "k", "value": null, "expect": {"drop": true}},
        {"name": "changed", "value": "hi", "expect": {"replace": {"value": "HI!"}}},
        {"name": "new headers", "value": "headers", "headers": {"h": "1"}, "expect": {"replace": {"headers": {"a": "1"}}}},
        {"name": "null", "value": "null", "expect": {"replace": {"key": "gone", "value": null}}},
        {"name": "refused", "value": "bad", "expect": {"reject": "bad"}},
        {"name": "diverted", "value": "later", "expect": {"divert": "not now"}},
        {"name": "failed", "value": "fail", "expect": {"error": "cannot"}},
        {"name": "not text", "value": {"hex": "fffe"}, "expect": {"error": "value: invalid utf-8"}}
    ]
}"#;

fn case(value: &str, expect: &str) -> Golden {
    Golden::parse(&format!(
        r#"{{"cases":[{{"name":"c","value":{value},"timestamp_ms":7,"expect":{expect}}}]}}"#
    ))
    .unwrap()
}

fn reply_to<P: Plugin>(golden: &Golden, config: &str) -> Result<Vec<u8>, String> {
    run::<P>(config, &golden.context(), &golden.section().unwrap())
}

#[test]
fn every_verdict_reaches_the_reply() {
    golden::<shout::Plugin>(EVERY_VERDICT);
}

#[test]
fn a_filter_that_keeps_all_gives_the_short_reply() {
    assert_eq!(
        reply_to::<non_null::Plugin>(&case(r#""x""#, r#"{"keep":true}"#), ""),
        Ok(vec![1, 0])
    );
    golden::<non_null::Plugin>(r#"{"cases":[{"name":"null","expect":{"drop":true}}]}"#);
}

#[test]
fn timestamps_reach_a_map() {
    let golden = case("null", r#"{"replace":{"value":"7"}}"#);
    assert_eq!(golden.check(&reply_to::<stamp::Plugin>(&golden, "{}").unwrap()), Ok(vec![]));
}

#[test]
fn a_batch_handler_decides_or_fails_as_a_whole() {
    golden::<first_only::Plugin>(
        r#"{"cases":[{"name":"1","value":"a","expect":{"keep":true}},{"name":"2","value":"b","expect":{"drop":true}}]}"#,
    );
    assert_eq!(
        reply_to::<first_only::Plugin>(&case("null", r#"{"keep":true}"#), ""),
        Err("no value".to_owned())
    );
}

#[test]
fn a_mismatch_says_what_was_expected_and_found() {
    let golden = case(r#""hi""#, r#"{"reject":"why"}"#);
    let mismatches = golden
        .check(&reply_to::<shout::Plugin>(&golden, r#"{"suffix":""}"#).unwrap())
        .unwrap();
    let lines: Vec<_> = mismatches.iter().map(Mismatch::to_string).collect();
    assert_eq!(lines, [r#"c: expected reject "why", found replace value HI"#]);
}

#[test]
fn a_replacement_must_name_exactly_the_expected_parts() {
    let reply = reply_to::<shout::Plugin>(&case(r#""null""#, r#"{"keep":true}"#), r#"{"suffix":""}"#).unwrap();
    let is_expected = |expect| case(r#""null""#, expect).check(&reply).unwrap().is_empty();
    assert!(is_expected(r#"{"replace":{"key":"gone","value":null}}"#));
    assert!(!is_expected(r#"{"replace":{"key":"gone"}}"#));
    assert!(!is_expected(r#"{"replace":{"key":"gone","value":""}}"#));
    assert!(!is_expected(r#"{"replace":{"key":"gone","value":null,"headers":{}}}"#));
}

#[test]
fn json_is_compared_by_content() {
    assert!(Bytes::Json(serde_json::json!({"a": 1, "b": 2})).matches(br#"{ "b": 2, "a": 1 }"#));
    assert!(!Bytes::Json(serde_json::json!(1)).matches(b"x"));
}

#[test]
fn broken_golden_files_name_the_field() {
    let error = |text| Golden::parse(text).unwrap_err();
    assert!(error(r#"{"cases":[{"name":"x","expect":{"keep":false}}]}"#).starts_with("cases[0].expect.keep: only true"));
    assert!(error(r#"{"cases":[{"name":"x","value":{"hex":"f"},"expect":{"keep":true}}]}"#).contains("not hexadecimal"));
    assert!(error(r#"{"cases":[{"nam":"x"}]}"#).contains("unknown field `nam`"));
}

#[test]
fn a_broken_configuration_or_batch_is_an_error_of_the_call() {
    let golden = case(r#""x""#, r#"{"keep":true}"#);
    assert!(
        reply_to::<shout::Plugin>(&golden, "{}")
            .unwrap_err()
            .contains("missing field `suffix`")
    );
    let context = Context {
        record_count: 2,
        ..golden.context()
    };
    let error = run::<non_null::Plugin>("", &context, &golden.section().unwrap()).unwrap_err();
    assert!(error.starts_with("record length at byte"), "{error}");
}

#[test]
fn a_plugin_is_named_like_its_package_unless_told_otherwise() {
    let (sdk, named) = (non_null::Plugin::info(), shout::Plugin::info());
    assert_eq!((sdk.name, sdk.version, sdk.hooks.len()), ("sdk", env!("CARGO_PKG_VERSION"), 2));
    assert_eq!(
        (named.name, named.hooks, named.config_schema),
        ("shout", &[crate::Hook::View][..], "{}")
    );
}

#[test]
fn offsets_count_from_the_base_offset() {
    let golden = case(r#""x""#, r#"{"keep":true}"#);
    let (section, context) = (
        golden.section().unwrap(),
        Context {
            base_offset: Some(40),
            ..golden.context()
        },
    );
    let record = Batch::new(&context, &section).records().next().unwrap().unwrap();
    assert_eq!((record.offset, record.timestamp_ms), (Some(40), 7));
    let reply = run::<non_null::Plugin>("", &context, &section).unwrap();
    assert_eq!(VerdictReader::new(&reply, 1).unwrap().next(), Some(Ok(Read::Keep)));
}

#[test]
fn the_templates_golden_file_is_one() {
    assert!(Golden::parse(include_str!("../../templates/golden/basic.json")).is_ok_and(|golden| !golden.cases.is_empty()));
}
