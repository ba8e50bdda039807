//! The small file that says where a log starts, how far it is known to be durable, and which leader epochs wrote it.
//!
//! Text, so that an operator can read it; its last line is the CRC-32C of all before it.
//! ```text
//! millstream-log 1
//! start 120
//! recovery 5000
//! epoch 0 0
//! epoch 3 4711
//! crc 1a2b3c4d
//! ```

use std::{fmt::Write, path::Path};

use crate::{
    LogError,
    disk::{Disk, read_file, replace_file},
    remote::EpochEntry,
};

const FILE_NAME: &str = "checkpoint";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub log_start_offset: i64,
    /// Everything below was synced.
    pub recovery_point: i64,
    pub epochs: Vec<EpochEntry>,
}

impl Checkpoint {
    /// Reads a log's checkpoint; the default if there is none.
    pub fn load(disk: &dyn Disk, dir: &Path) -> Result<Self, LogError> {
        let path = dir.join(FILE_NAME);
        match read_file(disk, &path).map_err(LogError::io("read checkpoint", &path))? {
            None => Ok(Self::default()),
            Some(bytes) => Self::decode(&bytes).map_err(|reason| LogError::CorruptFile { path, reason }),
        }
    }

    /// Replaces a log's checkpoint, durably.
    pub fn store(&self, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        let path = dir.join(FILE_NAME);
        replace_file(disk, &path, self.encode().as_bytes()).map_err(LogError::io("write checkpoint", &path))
    }

    fn encode(&self) -> String {
        let mut text = format!(
            "millstream-log 1\nstart {}\nrecovery {}\n",
            self.log_start_offset, self.recovery_point
        );
        for entry in &self.epochs {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "epoch {} {}", entry.epoch, entry.start_offset);
        }
        let _ = writeln!(text, "crc {:08x}", crc_of(text.as_bytes()));
        text
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(bytes).map_err(|_| "not text")?;
        let (body, crc) = text.trim_end().rsplit_once("crc ").ok_or("no crc")?;
        if u32::from_str_radix(crc, 16) != Ok(crc_of(body.as_bytes())) {
            return Err("crc does not match");
        }
        let mut lines = body.lines();
        if lines.next() != Some("millstream-log 1") {
            return Err("unknown version");
        }
        let mut checkpoint = Self::default();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["start", offset] => checkpoint.log_start_offset = offset.parse().map_err(|_| "bad start")?,
                ["recovery", offset] => checkpoint.recovery_point = offset.parse().map_err(|_| "bad recovery point")?,
                ["epoch", epoch, start] => checkpoint.epochs.push(EpochEntry {
                    epoch: epoch.parse().map_err(|_| "bad epoch")?,
                    start_offset: start.parse().map_err(|_| "bad epoch start")?,
                }),
                _ => return Err("unknown line"),
            }
        }
        Ok(checkpoint)
    }
}

fn crc_of(bytes: &[u8]) -> u32 {
    // A CRC-32C fits its 32 bits; the library hands out every width as u64.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_round_trips_and_notices_every_flipped_bit() {
        let checkpoint = Checkpoint {
            log_start_offset: 5,
            recovery_point: 77,
            epochs: vec![
                EpochEntry { epoch: 0, start_offset: 0 },
                EpochEntry {
                    epoch: 4,
                    start_offset: 60,
                },
            ],
        };
        let bytes = checkpoint.encode().into_bytes();
        assert_eq!(Checkpoint::decode(&bytes), Ok(checkpoint.clone()));
        for index in 0..bytes.len() - 1 {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1;
            assert_ne!(Checkpoint::decode(&damaged), Ok(checkpoint.clone()), "byte {index}");
        }
    }
}
