//! Values of group and client metrics configurations that are more than numbers.

use regex::Regex;

/// Where a share group begins to read a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareOffsetReset {
    /// At its start.
    Earliest,
    /// At its end.
    Latest,
    /// At what was produced this many milliseconds ago.
    ByDuration(i64),
}

impl ShareOffsetReset {
    /// Reads `earliest`, `latest` or `by_duration:` with an ISO 8601 duration; the error is a message.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text.to_ascii_lowercase().as_str() {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        let duration = text.strip_prefix("by_duration:").and_then(parse_duration_ms);
        duration.map(Self::ByDuration).ok_or_else(|| {
            let shown: String = text.escape_default().take(128).collect();
            format!("Invalid value {shown} for configuration share.auto.offset.reset: must be earliest, latest or by_duration:PnDTnHnMn.nS")
        })
    }
}

/// An ISO 8601 duration of days and time, as Java's `Duration` has it, in milliseconds.
fn parse_duration_ms(text: &str) -> Option<i64> {
    let rest = text.strip_prefix(['P', 'p'])?;
    let (days, time) = match rest.split_once(['T', 't']) {
        Some((days, time)) if !time.is_empty() => (days, time),
        Some(_) => return None,
        None => (rest, ""),
    };
    let mut total = 0.0;
    let mut any = false;
    for (part, units) in [
        (days, &[('D', 86_400_000.0)][..]),
        (time, &[('H', 3_600_000.0), ('M', 60_000.0), ('S', 1_000.0)][..]),
    ] {
        let mut number = String::new();
        let mut units = units.iter();
        for letter in part.chars() {
            if letter.is_ascii_digit() || letter == '.' {
                number.push(letter);
                continue;
            }
            let (_, factor) = units.find(|(unit, _)| unit.eq_ignore_ascii_case(&letter))?;
            total += number.parse::<f64>().ok()? * factor;
            number.clear();
            any = true;
        }
        if !number.is_empty() {
            return None;
        }
    }
    let is_sane = any && total < 1e15;
    is_sane.then_some(total as i64)
}

/// What a client is known by to client metrics subscriptions.
#[derive(Debug, Clone, Default)]
pub struct ClientFacts {
    /// `client_instance_id`
    pub instance_id: String,
    /// `client_id`
    pub client_id: String,
    /// `client_software_name`
    pub software_name: String,
    /// `client_software_version`
    pub software_version: String,
    /// `client_source_address`
    pub source_address: String,
    /// `client_source_port`
    pub source_port: String,
}

/// The pattern of a client metrics subscription: all parts must match.
#[derive(Debug, Clone)]
pub struct ClientMatch {
    parts: Vec<(String, Regex)>,
}

const SELECTORS: [&str; 6] = [
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

impl ClientMatch {
    /// Reads a comma-separated list of `selector=pattern`; the error is a message.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (selector, pattern) = item
                .split_once('=')
                .ok_or_else(|| format!("Illegal client matching pattern: {item}"))?;
            let (selector, pattern) = (selector.trim(), pattern.trim());
            if !SELECTORS.contains(&selector) {
                return Err(format!("Illegal client matching pattern: {item}"));
            }
            let regex = Regex::new(&format!("^(?:{pattern})$")).map_err(|_| format!("Illegal client matching pattern: {item}"))?;
            parts.push((selector.to_owned(), regex));
        }
        Ok(Self { parts })
    }

    /// Whether a client is meant.
    pub fn matches(&self, client: &ClientFacts) -> bool {
        self.parts.iter().all(|(selector, regex)| {
            let fact = match selector.as_str() {
                "client_instance_id" => &client.instance_id,
                "client_id" => &client.client_id,
                "client_software_name" => &client.software_name,
                "client_software_version" => &client.software_version,
                "client_source_address" => &client.source_address,
                _ => &client.source_port,
            };
            regex.is_match(fact)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_resets_are_read() {
        assert_eq!(ShareOffsetReset::parse("latest"), Ok(ShareOffsetReset::Latest));
        assert_eq!(ShareOffsetReset::parse("EARLIEST"), Ok(ShareOffsetReset::Earliest));
        assert_eq!(
            ShareOffsetReset::parse("by_duration:PT1H"),
            Ok(ShareOffsetReset::ByDuration(3_600_000))
        );
        assert_eq!(
            ShareOffsetReset::parse("by_duration:P2DT3M1.5S"),
            Ok(ShareOffsetReset::ByDuration(172_981_500))
        );
        for bad in [
            "",
            "none",
            "by_duration:",
            "by_duration:P",
            "by_duration:1H",
            "by_duration:PT",
            "by_duration:PT1M1H",
            "by_duration:-PT1H",
        ] {
            assert!(ShareOffsetReset::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_parts_of_a_client_match_must_hold() {
        let client = ClientFacts {
            client_id: "app-7".to_owned(),
            software_name: "librdkafka".to_owned(),
            ..ClientFacts::default()
        };
        let matches = |text: &str| ClientMatch::parse(text).unwrap().matches(&client);
        assert!(matches("") && matches("client_id=app-.*") && matches("client_id=app-7, client_software_name=lib.*"));
        assert!(!matches("client_id=app") && !matches("client_id=app-7,client_software_name=java"));
        for bad in ["client=a", "client_id", "client_id=("] {
            assert!(ClientMatch::parse(bad).is_err(), "{bad}");
        }
    }
}
