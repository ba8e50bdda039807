use millstream_abi::{HeaderRef, VerdictWriter, append_record};
use millstream_core::transform::{FailurePolicy, Hook};

use super::*;

fn section(values: &[&str]) -> Section {
    let mut bytes = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let delta = i32::try_from(index).unwrap();
        append_record(&mut bytes, i64::from(delta), delta, None, Some(value.as_bytes()), &[]).unwrap();
    }
    Section::new(bytes.into(), i32::try_from(values.len()).unwrap()).unwrap()
}

fn output(values: &[&str]) -> Output {
    let rules = Rules {
        hook: Hook::Produce,
        policy: FailurePolicy::Drop,
        has_dead_letter_topic: true,
    };
    let input = section(values);
    let limits = OutputLimits::new(input.bytes().len(), 1 << 20);
    Output::new(input, rules, limits)
}

fn values(section: &Section) -> Vec<String> {
    let count = i32::try_from(section.record_count()).unwrap();
    let value = |record: Result<RawRecord<'_>, _>| String::from_utf8_lossy(record.unwrap().value.unwrap()).into_owned();
    RecordReader::new(section.bytes(), count).map(value).collect()
}

#[test]
fn framing_must_hold_exactly_the_records_it_counts() {
    let bytes = section(&["a", "bb", "ccc"]).bytes().clone();
    assert!(Section::new(bytes.clone(), 3).is_ok());
    for count in [-1, 0, 1, 2, 4] {
        assert!(Section::new(bytes.clone(), count).is_err(), "{count}");
    }
    for length in 1..bytes.len() {
        assert!(Section::new(bytes.slice(..length), 3).is_err(), "cut at {length}");
    }
    assert!(
        Section::new(Bytes::from_static(&[0xff; 12]), 1).is_err(),
        "a length that never ends"
    );
    assert!(Section::new(Bytes::from_static(&[1, 0]), 1).is_err(), "a negative length");
}

#[test]
fn halves_cover_their_window() {
    let section = section(&["a", "bb", "ccc", "dddd", "eeeee"]);
    let (left, right) = section.halves(&section.window());
    assert_eq!((left.first, left.count, right.first, right.count), (0, 2, 2, 3));
    assert_eq!(left.bytes.end, right.bytes.start);
    let (middle, _) = section.halves(&right);
    assert_eq!(section.slice(&middle), &section.records_at([2].into_iter())[0]);
}

#[test]
fn windows_applied_one_after_the_other_make_one_section() {
    let mut output = output(&["a", "b", "c", "d"]);
    let (left, right) = output.input().halves(&output.input().window());
    let mut verdicts = VerdictWriter::new(2);
    verdicts.replace(None, Some(Some(b"new")), None);
    verdicts.keep();
    output.apply(&left, &verdicts.finish().unwrap()).unwrap();
    let mut verdicts = VerdictWriter::new(2);
    verdicts.divert("why");
    verdicts.keep();
    output.apply(&right, &verdicts.finish().unwrap()).unwrap();
    let (section, changed, effects, tally) = output.finish();
    assert!(changed);
    assert_eq!(values(&section), ["new", "b", "d"]);
    assert_eq!([0, 1, 2].map(|record| section.origin_of(record)), [0, 1, 3]);
    let effect = Effect {
        record: 2,
        action: Action::Divert,
        kind: "verdict",
        reason: "why".to_owned(),
    };
    assert_eq!(effects, [effect]);
    assert_eq!(
        tally,
        Tally {
            replaced: 1,
            diverted: 1,
            ..Tally::default()
        }
    );
}

#[test]
fn bad_reply_leaves_no_trace() {
    let mut output = output(&["a", "b", "c", "d"]);
    let (left, right) = output.input().halves(&output.input().window());
    let mut verdicts = VerdictWriter::new(2);
    verdicts.keep();
    verdicts.drop_record();
    output.apply(&left, &verdicts.finish().unwrap()).unwrap();
    let mut verdicts = VerdictWriter::new(2);
    verdicts.replace(Some(None), None, Some(&[HeaderRef { key: "h", value: None }]));
    verdicts.reject("no");
    let mut reply = verdicts.finish().unwrap();
    reply.push(0);
    assert!(matches!(output.apply(&right, &reply), Err(ApplyError::Reply(_))));
    output.apply(&right, &[1, 0]).unwrap();
    let (section, changed, effects, tally) = output.finish();
    assert!(changed && effects.is_empty());
    assert_eq!(values(&section), ["a", "c", "d"]);
    assert_eq!(
        tally,
        Tally {
            dropped: 1,
            ..Tally::default()
        }
    );
}

#[test]
fn section_that_loses_nothing_is_handed_on_without_a_copy() {
    let mut output = output(&["a", "b"]);
    let before = output.input().bytes().as_ptr();
    output.apply(&output.input().window(), &[1, 1, 2, 0, 0, 0, 0, 0]).unwrap();
    let (section, changed, ..) = output.finish();
    assert!(!changed);
    assert_eq!(section.bytes().as_ptr(), before);
}
