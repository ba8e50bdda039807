//! Opens the bucket and proves, before anything is trusted to it, that it keeps its promises.
//!
//! Some S3 look-alikes ignore `If-Match` and `If-None-Match`; two leaders would then both win a commit. The probe writes and
//! deletes one small object and refuses such a store (failure matrix row 28). It also decides how heads are kept.

use std::{path::Path as FilePath, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use object_store::{
    ClientConfigKey, Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig, UpdateVersion,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    local::LocalFileSystem,
    path::Path,
};
use thiserror::Error;
use ulid::Ulid;

use crate::{
    head_store::{EtagHead, HeadStore, SeqHead},
    layout::Layout,
    options::TierOptions,
};

/// An object store that several parts of the tier use.
pub type SharedStore = Arc<dyn ObjectStore>;

const REQUEST_TIMEOUT: &str = "30 seconds";
const CONNECT_TIMEOUT: &str = "5 seconds";
const PROBE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a tier does not start.
#[derive(Debug, Error)]
pub enum TierError {
    /// An option is out of range.
    #[error("option {0} is out of range")]
    Option(&'static str),
    /// The bucket's URL cannot be used.
    #[error("bucket url {url} is not file:///absolute/directory or s3://bucket/prefix")]
    BucketUrl {
        /// The URL.
        url: String,
    },
    /// The bucket's directory cannot be created.
    #[error("create bucket directory {path}")]
    Directory {
        /// The directory.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store failed.
    #[error("{operation} in the bucket")]
    Store {
        /// What was tried.
        operation: &'static str,
        /// What the store said.
        source: StoreError,
    },
    /// The store did not answer in time.
    #[error("the bucket did not answer the start-up probe within {}s", PROBE_TIMEOUT.as_secs())]
    ProbeTimeout,
    /// The store breaks a promise that the tier needs.
    #[error("the store cannot hold a tier: {broken}")]
    Unsafe {
        /// The promise.
        broken: &'static str,
    },
    /// The bucket's marker is from a newer version, or is not one of ours.
    #[error("millstream.json in the bucket is not of format {}", crate::marker::FORMAT)]
    Marker,
}

impl TierError {
    /// Whether the same bucket may work later: it was out of reach, rather than unfit or misnamed.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Store { .. } | Self::ProbeTimeout => true,
            Self::Option(_) | Self::BucketUrl { .. } | Self::Directory { .. } | Self::Unsafe { .. } | Self::Marker => false,
        }
    }
}

fn failed(operation: &'static str) -> impl FnOnce(StoreError) -> TierError {
    move |source| TierError::Store { operation, source }
}

/// An open bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// For data: the client retries by itself, since every name is written once.
    pub data: SharedStore,
    /// For heads: the client must not retry by itself, the commit protocol does.
    pub heads: SharedStore,
    /// Folder inside the bucket, may be empty.
    pub prefix: String,
}

impl Bucket {
    /// A bucket in one store, for tests and embedders.
    pub fn new(store: SharedStore, prefix: &str) -> Bucket {
        Bucket {
            data: store.clone(),
            heads: store,
            prefix: prefix.to_owned(),
        }
    }

    /// Opens the bucket that the options name. Nothing is sent yet.
    pub fn open(options: &TierOptions) -> Result<Bucket, TierError> {
        let url = options.bucket_url.as_str();
        let bad_url = || TierError::BucketUrl { url: url.to_owned() };
        if let Some(directory) = url.strip_prefix("file://") {
            if !FilePath::new(directory).is_absolute() {
                return Err(bad_url());
            }
            std::fs::create_dir_all(directory).map_err(|source| TierError::Directory {
                path: directory.to_owned(),
                source,
            })?;
            // Local log segments are deleted once they are here, so a PUT has to survive a power cut.
            let store = LocalFileSystem::new_with_prefix(directory)
                .map_err(failed("open"))?
                .with_fsync(true);
            return Ok(Bucket::new(Arc::new(store), ""));
        }
        let (bucket, prefix) = url
            .strip_prefix("s3://")
            .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
            .ok_or_else(bad_url)?;
        if bucket.is_empty() {
            return Err(bad_url());
        }
        install_tls();
        // The tier's own work retries with backoff and says why; the client hides short hiccups only, not an outage of minutes.
        let few_retries = RetryConfig {
            max_retries: 2,
            retry_timeout: Duration::from_secs(10),
            ..RetryConfig::default()
        };
        let data = s3(options, bucket).with_retry(few_retries).build().map_err(failed("open"))?;
        let no_retry = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        let heads = s3(options, bucket).with_retry(no_retry).build().map_err(failed("open"))?;
        Ok(Bucket {
            data: Arc::new(data),
            heads: Arc::new(heads),
            prefix: prefix.to_owned(),
        })
    }

    /// Runs the probe and returns the way in which this bucket can keep heads.
    pub(crate) async fn probe(&self, layout: &Layout) -> Result<Box<dyn HeadStore>, TierError> {
        let key = layout.probe(Ulid::generate());
        let probed = tokio::time::timeout(PROBE_TIMEOUT, probe(self.heads.as_ref(), &key))
            .await
            .map_err(|_| TierError::ProbeTimeout)?;
        match probed {
            Ok(true) => Ok(Box::new(EtagHead::new(self.heads.clone()))),
            Ok(false) => Ok(Box::new(SeqHead::new(self.heads.clone()))),
            Err(error) => {
                // A probe object that stays behind harms nobody.
                let _ = self.heads.delete(&key).await;
                Err(error)
            }
        }
    }
}

fn s3(options: &TierOptions, bucket: &str) -> AmazonS3Builder {
    let s3 = &options.s3;
    // Set one by one: `with_client_options` would drop what the environment says about the client.
    let mut builder = AmazonS3Builder::from_env()
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ConnectTimeout), CONNECT_TIMEOUT);
    if s3.allow_http {
        builder = builder.with_allow_http(true);
    }
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &s3.region {
        builder = builder.with_region(region);
    }
    if let Some(id) = &s3.access_key_id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = &s3.secret_access_key {
        builder = builder.with_secret_access_key(secret);
    }
    builder.with_bucket_name(bucket)
}

fn install_tls() {
    // An error means that the process has a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Checks the store's promises with one object. Says whether `If-Match` works.
async fn probe(store: &dyn ObjectStore, key: &Path) -> Result<bool, TierError> {
    let put = |bytes: &'static [u8], mode: PutMode| store.put_opts(key, bytes.into(), PutOptions::from(mode));
    let broken = |broken| Err(TierError::Unsafe { broken });

    let first = put(b"probe-1", PutMode::Create).await.map_err(failed("create a probe object"))?;
    match put(b"probe-2", PutMode::Create).await {
        Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {}
        Err(source) => {
            return Err(TierError::Store {
                operation: "create a probe object again",
                source,
            });
        }
        Ok(_) => return broken("it overwrites although If-None-Match forbids it"),
    }
    let version = |e_tag: Option<String>| PutMode::Update(UpdateVersion { e_tag, version: None });
    let conditional = match put(b"probe-3", version(first.e_tag.clone())).await {
        Ok(second) if second.e_tag.is_some() && second.e_tag != first.e_tag => match put(b"probe-4", version(first.e_tag)).await {
            Err(StoreError::Precondition { .. } | StoreError::AlreadyExists { .. }) => true,
            Err(source) => {
                return Err(TierError::Store {
                    operation: "update a probe object",
                    source,
                });
            }
            Ok(_) => return broken("it overwrites although If-Match forbids it"),
        },
        Ok(_) => return broken("its ETag does not change with the content"),
        Err(StoreError::NotImplemented { .. } | StoreError::NotSupported { .. }) => false,
        Err(source) => {
            return Err(TierError::Store {
                operation: "update a probe object",
                source,
            });
        }
    };
    let expected: &[u8] = if conditional { b"probe-3" } else { b"probe-1" };

    let read = store
        .get(key)
        .await
        .map_err(failed("read a probe object"))?
        .bytes()
        .await
        .map_err(failed("read a probe object"))?;
    if read != expected {
        return broken("it does not return what was written last");
    }
    let range = store.get_range(key, 2..5).await.map_err(failed("read a range of a probe object"))?;
    if Some(range.as_ref()) != expected.get(2..5) {
        return broken("it ignores ranges");
    }
    let folder = key
        .prefix_match(&Path::default())
        .map(|parts| parts.collect::<Vec<_>>())
        .unwrap_or_default();
    let parent = Path::from_iter(folder.iter().take(folder.len().saturating_sub(1)).cloned());
    let listed: Vec<_> = store
        .list(Some(&parent))
        .try_collect()
        .await
        .map_err(failed("list probe objects"))?;
    if !listed.iter().any(|object| object.location == *key) {
        return broken("its listing lags behind its writes");
    }
    store.delete(key).await.map_err(failed("delete a probe object"))?;
    match store.get(key).await {
        Err(StoreError::NotFound { .. }) => Ok(conditional),
        Err(source) => Err(TierError::Store {
            operation: "read a deleted probe object",
            source,
        }),
        Ok(_) => broken("it returns what was deleted"),
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
