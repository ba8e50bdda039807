//! The binding's configuration: JSON text into an author's type.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The configuration of a plugin that takes none: an empty object.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// Parses a configuration; the error names the field. Empty text counts as an empty object.
pub(crate) fn parse<C: DeserializeOwned>(text: &str) -> Result<C, String> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    let mut json = serde_json::Deserializer::from_str(text);
    let config = serde_path_to_error::deserialize(&mut json).map_err(|error| match error.path().to_string().as_str() {
        "." => format!("config: {}", error.inner()),
        path => format!("config field {path}: {}", error.inner()),
    })?;
    json.end().map_err(|error| format!("config: {error}"))?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        rules: Vec<Rule>,
    }

    #[derive(Debug, Deserialize)]
    struct Rule {
        #[serde(rename = "keep")]
        _keep: u8,
    }

    fn error_of(text: &str) -> String {
        parse::<Config>(text).unwrap_err()
    }

    #[test]
    fn errors_name_the_field() {
        let error = error_of(r#"{"rules":[{"keep":1},{"keep":"x"}]}"#);
        assert!(error.starts_with("config field rules[1].keep: invalid type: string"), "{error}");
        assert!(error_of("{}").starts_with("config: missing field `rules`"));
        assert!(error_of(r#"{"rule":[]}"#).contains("unknown field `rule`"));
        assert!(error_of(r#"{"rules":[]} x"#).contains("trailing characters"));
    }

    #[test]
    fn empty_text_is_an_empty_object() {
        assert!(parse::<NoConfig>(" ").is_ok());
        assert!(parse::<NoConfig>(r#"{"a":1}"#).is_err());
        assert_eq!(parse::<Config>(r#"{"rules":[]}"#).unwrap().rules.len(), 0);
    }
}
