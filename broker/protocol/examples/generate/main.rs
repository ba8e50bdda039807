//! Writes `src/messages/` from `schema/`. Run it after a change of the schema: `cargo run -p millstream-protocol --example generate`.

mod emit;
mod schema;

use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let messages = schema::read_all(&root.join("schema"))?;
    for (path, text) in emit::files(&messages)? {
        fs::write(root.join(&path), text)?;
    }
    Ok(())
}
