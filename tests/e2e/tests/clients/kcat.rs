//! kcat, with whichever librdkafka the distribution has (Debian 12: 2.0.2): the old client that scripts use.

use anyhow::{Context, Result, ensure};
use millstream_e2e::{
    broker::{Broker, Options},
    clients::kcat,
};
use serde_json::Value;

/// The numbers 1 to 500, one per line.
fn lines() -> String {
    (1..=500).map(|number| format!("{number}\n")).collect()
}

#[test]
fn kcat_reads_back_every_codec() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("lines-{codec}");
        broker.verb(&["topic", "create", &topic])?;
        kcat(&broker, &["-P", "-t", &topic, "-z", codec], lines().as_bytes())?;
        let Some(read) = kcat(&broker, &["-C", "-t", &topic, "-e", "-q"], b"")? else {
            return Ok(());
        };
        ensure!(read == lines(), "{codec}: {read}");
    }
    Ok(())
}

#[test]
fn kcat_keeps_keys_headers_and_nulls() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    kcat(
        &broker,
        &["-P", "-t", "keyed", "-K", ":", "-Z", "-H", "colour=blue", "-H", "empty="],
        b"a:1\nb:\nc:3\n",
    )?;
    let format = ["-C", "-t", "keyed", "-e", "-q", "-f", "%k|%S|%h\\n"];
    let Some(read) = kcat(&broker, &format, b"")? else { return Ok(()) };
    ensure!(
        read == "a|1|colour=blue,empty=\nb|-1|colour=blue,empty=\nc|1|colour=blue,empty=\n",
        "{read}"
    );
    Ok(())
}

#[test]
fn kcat_lists_the_cluster_and_finds_offsets() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "listed", "--partitions", "3"])?;
    kcat(&broker, &["-P", "-t", "listed", "-p", "1"], lines().as_bytes())?;
    let Some(listing) = kcat(&broker, &["-L", "-J"], b"")? else {
        return Ok(());
    };
    let listing: Value = serde_json::from_str(&listing).context("kcat's listing is JSON")?;
    let topics = listing["topics"].as_array().context("topics are listed")?;
    let topic = topics
        .iter()
        .find(|topic| topic["topic"] == "listed")
        .context("our topic is listed")?;
    ensure!(
        topic["partitions"].as_array().is_some_and(|partitions| partitions.len() == 3),
        "{topic}"
    );
    let found = kcat(&broker, &["-Q", "-t", "listed:1:-1"], b"")?.unwrap_or_default();
    ensure!(found.contains("offset 500"), "{found}");
    let first = kcat(&broker, &["-Q", "-t", "listed:1:1"], b"")?.unwrap_or_default();
    ensure!(first.contains("offset 0"), "{first}");
    Ok(())
}

#[test]
fn kcat_consumes_as_a_group_and_goes_on_where_it_stopped() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "grouped"])?;
    kcat(&broker, &["-P", "-t", "grouped"], lines().as_bytes())?;
    let earliest = ["-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000"];
    let group = |count| [&["-G", "kcats", "-q", "-c", count][..], &earliest, &["grouped"]].concat();
    let Some(first) = kcat(&broker, &group("200"), b"")? else {
        return Ok(());
    };
    let rest = kcat(&broker, &group("300"), b"")?.unwrap_or_default();
    ensure!(first + &rest == lines(), "the group lost or repeated records");
    Ok(())
}
