//! A log directory with a damaged file is refused, or opened without it: never a panic, and never a read without end.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use millstream_fuzz::fuzz;
use millstream_log::{
    CompactOptions, LogConfig, LogDir, LogDirOptions, LogError,
    disk::{Disk, FileMode, MemoryDisk},
};
use millstream_protocol::{
    compression::Compression,
    record::{BatchBuilder, BatchHeader, NewRecord},
};

const NOW_MS: i64 = 1_000_000;
const DIR: &str = "/data/t-0";

fn open_dir(disk: &MemoryDisk) -> Result<Arc<LogDir>, LogError> {
    LogDir::open(LogDirOptions {
        path: "/data".into(),
        disk: Arc::new(disk.clone()),
        clock: Arc::new(|| NOW_MS),
    })
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 400,
        index_interval_bytes: 100,
        ..LogConfig::default()
    }
}

/// The files of a log with several segments, a compacted one among them, stopped cleanly or not.
fn files(is_clean: bool) -> BTreeMap<PathBuf, Vec<u8>> {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk).unwrap();
    let log = dir.open_log("t-0", config()).unwrap();
    dir.sync_names().unwrap();
    for number in 0..24 {
        let mut builder = BatchBuilder::new(Compression::None).idempotent(5, 0, number);
        builder.push(&NewRecord {
            timestamp: 1_000 + i64::from(number),
            key: Some(&[b'a' + u8::try_from(number % 3).unwrap()]),
            value: Some(b"value"),
            ..NewRecord::default()
        });
        let batch = builder.build().unwrap();
        log.append(&BatchHeader::parse(&batch).unwrap(), &batch, 0, NOW_MS, None).unwrap();
        if number == 15 {
            log.sync(NOW_MS).unwrap();
            let options = CompactOptions {
                now_ms: NOW_MS,
                stable_end: 16,
                lag_ms_min: 0,
                delete_retention_ms: 0,
                keys_max: 100,
                pace: &|_| true,
            };
            assert!(log.compact(&options).unwrap().is_some());
        }
    }
    log.sync(NOW_MS).unwrap();
    if is_clean {
        dir.close(&[log]).unwrap();
    }
    let mut files = BTreeMap::new();
    for parent in ["/data", DIR] {
        for name in disk.list(Path::new(parent)).unwrap() {
            let path = Path::new(parent).join(name);
            if let Ok(file) = disk.open(&path, FileMode::Read) {
                let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
                let read = file.read_at(&mut bytes, 0).unwrap();
                bytes.truncate(read);
                files.insert(path, bytes);
            }
        }
    }
    files
}

/// Opens a log with one file replaced, and reads all of it.
fn read_with(files: &BTreeMap<PathBuf, Vec<u8>>, path: &Path, bytes: &[u8]) -> Result<i64, LogError> {
    let disk = MemoryDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    for (known, whole) in files.iter().filter(|(known, _)| !known.ends_with(".lock")) {
        let content = if known == path { bytes } else { whole };
        let file = disk.open(known, FileMode::Create).unwrap();
        file.write_at(&[content], 0).unwrap();
    }
    let log = open_dir(&disk)?.open_log("t-0", config())?;
    let (mut next, mut batches) = (log.local_start_offset(), 0);
    while let Some(read) = log.read(next, log.log_end_offset(), 1 << 16, true)? {
        let mut end = next;
        for item in millstream_protocol::record::split_batches(read.bytes()?) {
            let Ok((header, _)) = item else { return Ok(batches) };
            // A reader passes over what lies before its place.
            end = end.max(header.next_offset());
            batches += 1;
        }
        assert!(end > next, "readers at {next} would never get on");
        next = end;
    }
    Ok(batches)
}

fn fuzz_directory(target: &str, is_clean: bool) {
    let files = files(is_clean);
    let names: Vec<&PathBuf> = files.keys().filter(|path| path.starts_with(DIR)).collect();
    assert!(names.len() > 6, "{names:?}");
    assert!(
        read_with(&files, Path::new("none"), &[]).unwrap() > 8,
        "the log is readable as it is"
    );
    let corpus: Vec<Vec<u8>> = (0_u8..)
        .zip(&names)
        .map(|(number, name)| [&[number], &files[*name][..]].concat())
        .collect();
    fuzz(target, &corpus, |input| {
        let Some((number, bytes)) = input.split_first() else { return false };
        let name = names[usize::from(*number) % names.len()];
        read_with(&files, name, bytes).is_ok_and(|batches| batches > 8)
    });
}

#[test]
fn fuzz_directory_after_a_clean_stop() {
    fuzz_directory("log directory, clean", true);
}

#[test]
fn fuzz_directory_after_a_crash() {
    fuzz_directory("log directory, crashed", false);
}
