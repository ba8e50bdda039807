//! Which version of a plugin is meant when none is named.

use std::cmp::Ordering;

use millstream_core::metadata::ClusterImage;

/// The latest version of a plugin in the registry by semantic versioning; a pre-release only if there is nothing else.
pub fn latest_version(image: &ClusterImage, plugin: &str) -> Option<String> {
    let versions = image
        .plugins
        .values()
        .filter(|known| known.name == plugin)
        .map(|known| known.version.as_str());
    versions
        .max_by(|a, b| is_release(a).cmp(&is_release(b)).then_with(|| precedence(a, b)))
        .map(str::to_owned)
}

fn is_release(version: &str) -> bool {
    split(version).1.is_none()
}

/// Without the build part: `MAJOR.MINOR.PATCH`, and the pre-release part if there is one.
fn split(version: &str) -> (&str, Option<&str>) {
    let version = version.split_once('+').map_or(version, |(rest, _)| rest);
    version.split_once('-').map_or((version, None), |(core, pre)| (core, Some(pre)))
}

/// Precedence by section 11 of semver.org; versions that differ in their build parts only go by their text.
fn precedence(a: &str, b: &str) -> Ordering {
    let ((core_a, pre_a), (core_b, pre_b)) = (split(a), split(b));
    let pre = match (pre_a, pre_b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => by_identifiers(a, b),
    };
    by_identifiers(core_a, core_b).then(pre).then_with(|| a.cmp(b))
}

/// Identifiers one by one: numbers by value and below words, words by their bytes, and fewer identifiers below more.
fn by_identifiers(a: &str, b: &str) -> Ordering {
    a.split('.').map(identifier).cmp(b.split('.').map(identifier))
}

/// Sorts as the identifier does. A number has no leading zeros, so the longer one is the larger one, whatever its size.
fn identifier(text: &str) -> (bool, usize, &str) {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    (!is_number, if is_number { text.len() } else { 0 }, text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millstream_core::metadata::image::PluginImage;

    use super::*;

    #[test]
    fn versions_have_the_order_of_semver() {
        let ascending = [
            "0.9.10",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.0+b",
            "1.2.0",
            "1.10.0",
            "10.0.0",
        ];
        for (at, a) in ascending.iter().enumerate() {
            for (other, b) in ascending.iter().enumerate() {
                assert_eq!(precedence(a, b), at.cmp(&other), "{a} {b}");
            }
        }
    }

    #[test]
    fn the_latest_version_is_a_release_if_there_is_one() {
        let mut image = ClusterImage::empty(uuid::Uuid::nil());
        let mut push = |name: &str, version: &str| {
            let plugin = PluginImage {
                name: name.to_owned(),
                version: version.to_owned(),
                sha256: String::new(),
                size_bytes: 1,
                hooks: Vec::new(),
                config_schema: String::new(),
                pushed_ms: 0,
            };
            image.plugins.insert((name.to_owned(), version.to_owned()), Arc::new(plugin));
        };
        for version in ["1.9.0", "1.10.0", "2.0.0-rc.1"] {
            push("p", version);
        }
        push("q", "1.0.0-rc.1");
        push("pq", "9.0.0");
        assert_eq!(latest_version(&image, "p").as_deref(), Some("1.10.0"));
        assert_eq!(latest_version(&image, "q").as_deref(), Some("1.0.0-rc.1"));
        assert_eq!(latest_version(&image, "r"), None);
    }
}
