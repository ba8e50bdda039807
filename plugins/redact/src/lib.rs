//! Masks, hashes or removes JSON fields, and finds e-mail addresses and card numbers anywhere in a value.
//!
//! A value is rewritten only where it must be: objects and arrays on the way to a change are written anew, in their order, and all
//! else is copied byte for byte, so numbers keep their spelling. A value without anything to redact is not parsed at all if a
//! search for the fields' names shows so, and is kept untouched.

mod conceal;
mod config;
mod patterns;
mod rewrite;

use millstream_sdk::{Change, Record, Result, plugin};

use config::Redactor;

fn redact(record: &Record<'_>, redactor: &Redactor) -> Result<Change> {
    let Some(value) = record.value else {
        return Ok(Change::none());
    };
    Ok(redactor.redact(value)?.map_or_else(Change::none, Change::of_value))
}

plugin! { config: Redactor, config_schema: include_str!("../config.schema.json"), map: redact }

#[cfg(test)]
mod tests;
