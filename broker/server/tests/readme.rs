//! The README's table of API keys is what the code serves.

use std::fmt::Write;

use millstream_protocol::ApiKey;
use millstream_server::{API_VERSIONS, served_versions};

#[test]
fn the_readme_lists_exactly_the_served_versions() {
    let readme = include_str!("../../../README.md");
    let mut table = String::from("| key | API | versions |\n|---|---|---|\n");
    for key in API_VERSIONS {
        let versions = served_versions(*key).expect("a listed key is served");
        writeln!(
            table,
            "| {} | {} | {}–{} |",
            *key as i16,
            ApiKey::name(*key),
            versions.start(),
            versions.end()
        )
        .expect("write to a string");
    }
    let found = readme
        .split("<!-- api table -->\n")
        .nth(1)
        .and_then(|rest| rest.split("<!-- /api table -->").next());
    assert_eq!(found.map(str::trim), Some(table.trim()), "put this table into README.md:\n{table}");
}
