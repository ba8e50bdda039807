//! The wire codec against its schema, against another implementation, and against hostile bytes.

mod codec;
#[path = "../../examples/generate/emit.rs"]
mod emit;
mod fuzz;
mod generated;
mod hostile;
mod oracle;
mod rules;
mod sample;
#[path = "../../examples/generate/schema.rs"]
mod schema;
mod table;
