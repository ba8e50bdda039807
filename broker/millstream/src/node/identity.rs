//! Who a data directory belongs to: `meta.json`, written once.
//!
//! ```text
//! {"version":1,"cluster_id":"3f1c…","node_id":1}
//! ```

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// The only format so far.
const VERSION: u32 = 1;

/// A data directory's owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    version: u32,
    /// The cluster.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub cluster_id: Uuid,
    /// The node within the cluster.
    pub node_id: i32,
}

impl Identity {
    /// Reads the directory's identity, or gives it one: a new cluster. Call it with the directory's lock held.
    pub fn load_or_create(data_dir: &Path, node_id: i32) -> Result<Self> {
        let path = data_dir.join("meta.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Self {
                    version: VERSION,
                    cluster_id: Uuid::new_v4(),
                    node_id,
                };
                identity.write(data_dir).with_context(|| format!("write {}", path.display()))?;
                return Ok(identity);
            }
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let identity: Self = serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
        if identity.version != VERSION {
            bail!(
                "{} is of format {}, which is newer than this program; upgrade millstream",
                path.display(),
                identity.version
            );
        }
        if identity.node_id != node_id {
            bail!(
                "{} belongs to node {}, not to node {node_id}; use that node id or another data directory",
                data_dir.display(),
                identity.node_id
            );
        }
        Ok(identity)
    }

    /// Either the whole file is there after a crash, or none.
    fn write(&self, data_dir: &Path) -> Result<()> {
        let temporary = data_dir.join("meta.json.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(serde_json::to_string(self)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, data_dir.join("meta.json"))?;
        Ok(File::open(data_dir)?.sync_all()?)
    }
}

fn as_text<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_made_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(directory.path(), 1).unwrap();
        assert_eq!(Identity::load_or_create(directory.path(), 1).unwrap(), first);
        let error = Identity::load_or_create(directory.path(), 2).unwrap_err().to_string();
        assert!(error.contains("node 1, not to node 2"), "{error}");
    }

    #[test]
    fn damaged_and_newer_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.json");
        fs::write(&path, "{").unwrap();
        assert!(
            Identity::load_or_create(directory.path(), 1)
                .unwrap_err()
                .to_string()
                .contains("damaged")
        );
        fs::write(&path, format!(r#"{{"version":2,"cluster_id":"{}","node_id":1}}"#, Uuid::nil())).unwrap();
        assert!(
            Identity::load_or_create(directory.path(), 1)
                .unwrap_err()
                .to_string()
                .contains("newer")
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
