//! The four shapes of handlers, and how each turns into verdicts. [`plugin!`](crate::plugin!) calls these.
//!
//! An error of a handler becomes that record's *error* verdict; only a damaged batch fails the call.

use crate::{Batch, Change, Record, Result, Verdict, VerdictWriter};

/// Keeps the records for which the handler says true, and drops the others.
pub fn filter<C>(
    batch: Batch<'_>,
    config: &C,
    verdicts: &mut VerdictWriter,
    handler: impl Fn(&Record<'_>, &C) -> Result<bool>,
) -> Result<()> {
    for record in batch.records() {
        match handler(&record?, config) {
            Ok(true) => verdicts.keep(),
            Ok(false) => verdicts.drop_record(),
            Err(error) => verdicts.error(error.message()),
        }
    }
    Ok(())
}

/// Changes records.
pub fn map<C>(
    batch: Batch<'_>,
    config: &C,
    verdicts: &mut VerdictWriter,
    handler: impl Fn(&Record<'_>, &C) -> Result<Change>,
) -> Result<()> {
    for record in batch.records() {
        match handler(&record?, config) {
            Ok(change) => change.write(verdicts),
            Err(error) => verdicts.error(error.message()),
        }
    }
    Ok(())
}

/// Decides about each record.
pub fn filter_map<C>(
    batch: Batch<'_>,
    config: &C,
    verdicts: &mut VerdictWriter,
    handler: impl Fn(&Record<'_>, &C) -> Result<Verdict>,
) -> Result<()> {
    for record in batch.records() {
        match handler(&record?, config) {
            Ok(verdict) => verdict.write(verdicts),
            Err(error) => verdicts.error(error.message()),
        }
    }
    Ok(())
}

/// Leaves the whole batch to the handler; its error fails the batch.
pub fn on_batch<C>(
    batch: Batch<'_>,
    config: &C,
    verdicts: &mut VerdictWriter,
    handler: impl Fn(Batch<'_>, &C, &mut VerdictWriter) -> Result<()>,
) -> Result<()> {
    handler(batch, config, verdicts)
}
