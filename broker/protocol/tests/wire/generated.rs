//! The generated files follow from the schema.

use std::fs;
use std::path::Path;

use crate::{emit, schema};

#[test]
fn checked_in_messages_are_what_the_generator_writes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let messages = schema::read_all(&root.join("schema")).unwrap();
    let files = emit::files(&messages).unwrap();
    for (path, expected) in &files {
        let actual = fs::read_to_string(root.join(path)).unwrap_or_default();
        assert!(
            actual == *expected,
            "{} is stale: run `cargo run -p millstream-protocol --example generate`",
            path.display()
        );
    }
    let on_disk = fs::read_dir(root.join("src/messages")).unwrap().count();
    assert_eq!(
        on_disk,
        messages.len() + 1,
        "src/messages holds a module that no schema file describes"
    );
}
