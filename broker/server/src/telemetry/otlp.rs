//! As much of OTLP metrics as is exported: the name and last value of each number data point, and count and sum of histograms.
//!
//! `MetricsData { 1: ResourceMetrics { 2: ScopeMetrics { 2: Metric { 1: name, 5: Gauge, 7: Sum, 9: Histogram } } } }`; a data point of a gauge
//! or sum holds `4: double` or `6: sfixed64`, one of a histogram `4: fixed64 count` and `5: double sum`. Attributes (7, of histograms 9) go into
//! the name. Source: opentelemetry-proto, metrics/v1.

/// Longest name of a series, with its attributes, in bytes; longer ones are left out.
const NAME_BYTES_MAX: usize = 1024;
/// Most data points of a push that are kept.
const POINTS_MAX: usize = 10_000;

/// A field of a protobuf message.
enum Value<'a> {
    Fixed64(u64),
    Bytes(&'a [u8]),
    Other,
}

/// Fields in order; `None` for bytes that are no message.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => {
                varint(&mut bytes)?;
                Value::Other
            }
            1 => {
                let (fixed, rest) = bytes.split_first_chunk::<8>()?;
                bytes = rest;
                Value::Fixed64(u64::from_le_bytes(*fixed))
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (body, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Value::Bytes(body)
            }
            5 => {
                bytes = bytes.split_first_chunk::<4>()?.1;
                Value::Other
            }
            _ => return None,
        };
        fields.push((tag >> 3, value));
    }
    Some(fields)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn messages(bytes: &[u8], number: u64) -> Option<Vec<&[u8]>> {
    let found = fields(bytes)?.into_iter().filter_map(|(tag, value)| match value {
        Value::Bytes(body) if tag == number => Some(body),
        Value::Bytes(_) | Value::Fixed64(_) | Value::Other => None,
    });
    Some(found.collect())
}

/// Names, with attributes, and values; `None` for what is no metrics message.
pub(super) fn points(bytes: &[u8]) -> Option<Vec<(String, f64)>> {
    let mut points = Vec::new();
    for resource in messages(bytes, 1)? {
        for scope in messages(resource, 2)? {
            for metric in messages(scope, 2)? {
                metric_points(metric, &mut points)?;
            }
        }
    }
    Some(points)
}

fn metric_points(metric: &[u8], points: &mut Vec<(String, f64)>) -> Option<()> {
    let name = messages(metric, 1)?.first().copied()?;
    if name.len() > NAME_BYTES_MAX {
        return Some(());
    }
    let name = String::from_utf8_lossy(name).into_owned();
    for kind in [5, 7] {
        for point in messages(metric, kind)?
            .into_iter()
            .map(|body| messages(body, 1))
            .collect::<Option<Vec<_>>>()?
            .concat()
        {
            if points.len() >= POINTS_MAX {
                return Some(());
            }
            let Named::As(name) = with_attributes(&name, point, 7)? else {
                continue;
            };
            let mut last = None;
            for (tag, value) in fields(point)? {
                match (tag, value) {
                    (4, Value::Fixed64(bits)) => last = Some(f64::from_bits(bits)),
                    (6, Value::Fixed64(bits)) => last = Some(bits.cast_signed() as f64),
                    _ => {}
                }
            }
            points.extend(last.map(|value| (name, value)));
        }
    }
    for histogram in messages(metric, 9)? {
        for point in messages(histogram, 1)? {
            if points.len() >= POINTS_MAX {
                return Some(());
            }
            let Named::As(name) = with_attributes(&name, point, 9)? else {
                continue;
            };
            let (mut count, mut sum) = (None, None);
            for (tag, value) in fields(point)? {
                match (tag, value) {
                    (4, Value::Fixed64(bits)) => count = Some(bits as f64),
                    (5, Value::Fixed64(bits)) => sum = Some(f64::from_bits(bits)),
                    _ => {}
                }
            }
            points.extend(count.map(|count| (format!("{name}.count"), count)));
            points.extend(sum.map(|sum| (format!("{name}.sum"), sum)));
        }
    }
    Some(())
}

/// A series' name with its attributes, unless they are too long to be kept.
enum Named {
    As(String),
    TooLong,
}

fn with_attributes(name: &str, point: &[u8], number: u64) -> Option<Named> {
    let mut parts = Vec::new();
    let mut len = name.len();
    for attribute in messages(point, number)? {
        let key = messages(attribute, 1)?.first().copied().unwrap_or_default();
        let value = messages(attribute, 2)?.first().map(|value| messages(value, 1)).unwrap_or_default();
        let value = value?.first().copied().unwrap_or_default();
        len += key.len() + value.len();
        if len > NAME_BYTES_MAX {
            return Some(Named::TooLong);
        }
        parts.push(format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value)));
    }
    Some(Named::As(if parts.is_empty() {
        name.to_owned()
    } else {
        format!("{name}{{{}}}", parts.join(","))
    }))
}

/// One gauge, for tests.
#[cfg(test)]
pub(super) fn sample(name: &str, value: f64) -> Vec<u8> {
    let wrap = |number: u8, body: &[u8]| [&[number << 3 | 2, u8::try_from(body.len()).unwrap()], body].concat();
    let point = [&[4 << 3 | 1], &value.to_bits().to_le_bytes()[..]].concat();
    let metric = [wrap(1, name.as_bytes()), wrap(5, &wrap(1, &point))].concat();
    wrap(1, &wrap(2, &wrap(2, &metric)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_and_repeated_values_cost_no_more_than_the_push() {
        assert_eq!(points(&sample(&"n".repeat(100), 1.0)).map(|points| points.len()), Some(1));
        let wrap = |number: u8, body: &[u8]| [&[number << 3 | 2], &length(body.len())[..], body].concat();
        let value = [&[4 << 3 | 1][..], &[0; 8]].concat();
        let metric = |name: &[u8], point: &[u8]| wrap(1, &wrap(2, &wrap(2, &[wrap(1, name), wrap(5, &wrap(1, point))].concat())));
        assert_eq!(points(&metric(&[b'n'; 300_000], &value)), Some(Vec::new()));
        assert_eq!(points(&metric(b"n", &value.repeat(50_000))), Some(vec![("n".to_owned(), 0.0)]));
        let attribute = wrap(7, &[wrap(1, &[b'k'; 2000]), wrap(2, &wrap(1, b"v"))].concat());
        assert_eq!(points(&metric(b"n", &[attribute, value].concat())), Some(Vec::new()));
    }

    fn length(mut len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while len >= 0x80 {
            bytes.push((len & 0x7f) as u8 | 0x80);
            len >>= 7;
        }
        bytes.push(len as u8);
        bytes
    }

    #[test]
    fn gauges_are_read_and_damage_is_noticed() {
        let bytes = sample("a.b", 1.5);
        assert_eq!(points(&bytes), Some(vec![("a.b".to_owned(), 1.5)]));
        for end in 1..bytes.len() {
            assert_eq!(points(&bytes[..end]), None, "cut at {end}");
        }
        assert_eq!(points(&[]), Some(vec![]));
    }

    #[test]
    fn hostile_bytes_end_in_nothing() {
        for bytes in [
            &[0xff; 32][..],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x0b],
        ] {
            assert_eq!(points(bytes), None);
        }
    }
    #[test]
    fn fuzz_pushed_metrics() {
        millstream_fuzz::fuzz("pushed metrics", &[sample("a.b", 1.5), sample(&"n".repeat(100), -1.0)], |bytes| {
            let points = points(bytes);
            assert!(points.as_ref().is_none_or(|points| points.len() <= bytes.len()));
            points.is_some_and(|points| !points.is_empty())
        });
    }
}
