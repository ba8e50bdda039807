//! `millstream plugin test`: golden files over the compiled component, in the host that brokers run plugins with.
//!
//! The host answers with what becomes of a batch, not with the plugin's verdicts; they are told from it, since the chain has one
//! binding whose failing records are diverted: a record that is not there was dropped, one that differs was replaced.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use millstream_abi::{HeaderRef, RawRecord, RecordReader, VerdictWriter};
use millstream_core::transform::{
    Artefact, BatchContext, Binding, BreakerMode, Chain, ChainOutcome, FailurePolicy, Hook, Inspected, Limits, Transform,
};
use millstream_host::{HostOptions, PluginHost};
use millstream_sdk::testing::{Golden, Mismatch};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::build;
use crate::cli::output::{self, Output};

/// A plugin that loops would be stopped by its limits on every case; the breaker must not turn that into something else.
const CRASHES_PER_MINUTE: u32 = 1000;

/// Run a plugin's golden files over its component, with a broker's limits.
#[derive(Debug, Args)]
pub struct Test {
    /// The plugin's directory, which holds golden/*.json
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Test this WebAssembly file instead of building the project
    #[arg(long, value_name = "FILE")]
    wasm: Option<PathBuf>,
    /// How results look
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Test {
    /// Runs the verb.
    pub async fn run(&self) -> Result<()> {
        let files = golden_files(&self.dir)?;
        let path = match &self.wasm {
            Some(path) => path.clone(),
            None => build::component(&self.dir)?.0,
        };
        let wasm = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let host = PluginHost::new(HostOptions::default())?;
        let inspected = host.inspect(Bytes::from(wasm)).await.with_context(|| path.display().to_string())?;
        if !inspected.hooks.contains(&Hook::Produce) {
            bail!("{} cannot run on produce, which is where golden files are run", inspected.name);
        }
        let mut rows = Vec::new();
        for file in &files {
            let golden = read_golden(file)?;
            let found = run(&host, &inspected, &golden).await.with_context(|| file.display().to_string())?;
            rows.extend(golden.cases.iter().map(|case| row(file, &case.name, &found)));
        }
        let failures = rows.iter().filter(|row| row["ok"] == false).count();
        match self.output {
            Output::Json => output::line(&Value::from(rows.clone()).to_string())?,
            Output::Table => {
                let summary = format!(
                    "{}@{}: {} of {} cases ok",
                    inspected.name,
                    inspected.version,
                    rows.len() - failures,
                    rows.len()
                );
                output::line(&format!("{}{summary}", told(&rows)))?;
            }
        }
        if failures > 0 {
            bail!("{failures} of {} cases failed", rows.len());
        }
        Ok(())
    }
}

/// The report about a case.
fn row(file: &Path, case: &str, found: &[Mismatch]) -> Value {
    let mismatch = found.iter().find(|mismatch| mismatch.case == case);
    let mut row = json!({"file": file.display().to_string(), "case": case, "ok": mismatch.is_none()});
    if let Some(mismatch) = mismatch {
        row["expected"] = json!(mismatch.expected);
        row["found"] = json!(mismatch.found);
    }
    row
}

/// The cases in words, below the names of their files.
fn told(rows: &[Value]) -> String {
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let mut told = String::new();
    let mut file = String::new();
    for row in rows {
        if text(row, "file") != file {
            file = text(row, "file");
            told.push_str(&format!("{file}\n"));
        }
        let case = text(row, "case");
        told.push_str(&match row["ok"] == true {
            true => format!("  ok    {case}\n"),
            false => format!(
                "  FAIL  {case}\n        expected {}\n        found    {}\n",
                text(row, "expected"),
                text(row, "found")
            ),
        });
    }
    told
}

fn golden_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let folder = dir.join("golden");
    let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    let mut files = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    if files.is_empty() {
        bail!("there is no golden file (*.json) in {}", folder.display());
    }
    Ok(files)
}

fn read_golden(path: &Path) -> Result<Golden> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Golden::parse(&text).map_err(|error| anyhow!("{}: {error}", path.display()))
}

/// Runs a golden file's batch and returns the cases that differ.
async fn run(host: &PluginHost, inspected: &Inspected, golden: &Golden) -> Result<Vec<Mismatch>> {
    let chain = Arc::new(chain(inspected, golden.config.to_string()));
    host.prepare(Arc::clone(&chain)).await?;
    let section = Bytes::from(golden.section()?);
    let count = i32::try_from(golden.cases.len()).context("count the cases")?;
    let context = BatchContext {
        base_offset: -1,
        leader_epoch: -1,
        record_count: count,
        ..BatchContext::default()
    };
    let outcome = host.run(chain, context, section.clone()).await;
    Ok(golden.check(&verdicts(&section, count, &outcome)?)?)
}

fn chain(inspected: &Inspected, config: String) -> Chain {
    Chain {
        hook: Hook::Produce,
        topic: "golden".to_owned(),
        view: None,
        version: 1,
        bindings: vec![Binding {
            artefact: Arc::new(Artefact {
                name: inspected.name.clone(),
                version: inspected.version.clone(),
                sha256: sha256(&inspected.component),
                component: inspected.component.clone(),
            }),
            config,
            policy: FailurePolicy::Divert,
            breaker: BreakerMode::Closed,
            limits: Limits {
                crashes_per_minute: CRASHES_PER_MINUTE,
                ..Limits::for_hook(Hook::Produce)
            },
            dead_letter_topic: Some("golden.dead-letter".to_owned()),
        }],
    }
}

/// Lower-case hexadecimal SHA-256.
fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The verdict list that led to an outcome.
fn verdicts(section: &[u8], count: i32, outcome: &ChainOutcome) -> Result<Vec<u8>> {
    let mut writer = VerdictWriter::new(u32::try_from(count).context("count the cases")?);
    let (records, record_count, rejected, diverted) = match outcome {
        ChainOutcome::Unchanged => {
            writer.keep_rest();
            return Ok(writer.finish()?);
        }
        ChainOutcome::Stalled { reason } => bail!("{reason}"),
        ChainOutcome::Changed {
            records,
            record_count,
            rejected,
            diverted,
        } => (records, *record_count, rejected, diverted),
    };
    let survivors: BTreeMap<i32, RawRecord<'_>> = RecordReader::new(records, record_count)
        .map(|record| record.map(|record| (record.offset_delta, record)))
        .collect::<Result<_, _>>()?;
    for (original, index) in RecordReader::new(section, count).zip(0..) {
        let original = original?;
        if let Some(rejected) = rejected.iter().find(|rejected| rejected.index == index) {
            writer.reject(&rejected.reason);
        } else if let Some(diverted) = diverted.iter().find(|diverted| diverted.index == index) {
            match diverted.kind {
                "verdict" => writer.divert(&diverted.reason),
                _ => writer.error(&diverted.reason),
            }
        } else {
            match survivors.get(&original.offset_delta) {
                None => writer.drop_record(),
                Some(survivor) => keep_or_replace(&mut writer, &original, survivor)?,
            }
        }
    }
    Ok(writer.finish()?)
}

fn keep_or_replace(writer: &mut VerdictWriter, original: &RawRecord<'_>, survivor: &RawRecord<'_>) -> Result<()> {
    let key = (original.key != survivor.key).then_some(survivor.key);
    let value = (original.value != survivor.value).then_some(survivor.value);
    let has_same_headers = original.headers.eq(survivor.headers);
    if key.is_none() && value.is_none() && has_same_headers {
        writer.keep();
        return Ok(());
    }
    let mut headers = Vec::new();
    for header in survivor.headers {
        headers.push(HeaderRef {
            key: header.key_str().context("a header's name is no text")?,
            value: header.value,
        });
    }
    writer.replace(key, value, (!has_same_headers).then_some(&headers[..]));
    Ok(())
}

#[cfg(test)]
mod tests {
    use millstream_abi::append_record;
    use millstream_core::transform::{Diverted, Rejected};

    use super::*;

    fn golden() -> Golden {
        let text = r#"{"cases": [
            {"name": "kept", "value": "a", "expect": {"keep": true}},
            {"name": "dropped", "value": "b", "expect": {"drop": true}},
            {"name": "replaced", "value": "c", "expect": {"replace": {"value": "C", "headers": {"h": "1"}}}},
            {"name": "rejected", "value": "d", "expect": {"reject": "bad"}},
            {"name": "diverted", "value": "e", "expect": {"divert": "aside"}},
            {"name": "failed", "value": "f", "expect": {"error": "oops"}}
        ]}"#;
        Golden::parse(text).unwrap()
    }

    fn diverted(index: i32, kind: &'static str, reason: &str) -> Diverted {
        Diverted {
            index,
            original: Bytes::new(),
            dead_letter_topic: "d".to_owned(),
            plugin: "p".to_owned(),
            version: "1.0.0".to_owned(),
            kind,
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn verdicts_are_told_from_what_became_of_the_records() {
        let golden = golden();
        let section = golden.section().unwrap();
        let mut records = Vec::new();
        append_record(&mut records, 0, 0, None, Some(b"a"), &[]).unwrap();
        append_record(
            &mut records,
            0,
            2,
            None,
            Some(b"C"),
            &[HeaderRef {
                key: "h",
                value: Some(b"1"),
            }],
        )
        .unwrap();
        let outcome = ChainOutcome::Changed {
            records: records.into(),
            record_count: 2,
            rejected: vec![Rejected {
                index: 3,
                reason: "p@1.0.0: bad".to_owned(),
            }],
            diverted: vec![diverted(4, "verdict", "aside"), diverted(5, "error", "oops")],
        };
        assert_eq!(golden.check(&verdicts(&section, 6, &outcome).unwrap()).unwrap(), []);
    }

    #[test]
    fn a_plugin_that_keeps_everything_differs_where_it_should_not() {
        let golden = golden();
        let reply = verdicts(&golden.section().unwrap(), 6, &ChainOutcome::Unchanged).unwrap();
        assert_eq!(golden.check(&reply).unwrap().len(), 5);
        let stalled = ChainOutcome::Stalled {
            reason: "no time".to_owned(),
        };
        assert!(verdicts(b"", 0, &stalled).unwrap_err().to_string().contains("no time"));
    }

    #[test]
    fn differences_are_shown_below_their_case() {
        let found = [Mismatch {
            case: "b".to_owned(),
            expected: "keep".to_owned(),
            found: "drop".to_owned(),
        }];
        let rows = [row(Path::new("g.json"), "a", &found), row(Path::new("g.json"), "b", &found)];
        assert_eq!(
            told(&rows),
            "g.json\n  ok    a\n  FAIL  b\n        expected keep\n        found    drop\n"
        );
    }
}
