//! {{name}}: keeps the records whose value contains a text.

use millstream_sdk::{Record, Result, plugin};

/// The configuration of a binding, as JSON. An unknown or missing field refuses the binding.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The text to look for.
    contains: String,
}

/// True keeps the record, false drops it; an error leaves it to the binding's policy.
fn keep(record: &Record<'_>, config: &Config) -> Result<bool> {
    Ok(record.value_str()?.is_some_and(|value| value.contains(&config.contains)))
}

plugin! { name: "{{name}}", config: Config, filter: keep }

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_sdk::testing::golden;

    #[test]
    fn golden_basic() {
        golden::<Plugin>(include_str!("../golden/basic.json"));
    }
}
