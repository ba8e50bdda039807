use std::{fmt, sync::Arc};

use futures_util::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutPayload, PutResult, Result,
    memory::InMemory,
};
use uuid::Uuid;

use super::*;

/// A store that ignores one or both of the conditions, as some S3 look-alikes do.
#[derive(Debug)]
struct Careless {
    inner: InMemory,
    ignores_create: bool,
}

impl fmt::Display for Careless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Careless")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Careless {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let mode = match opts.mode {
            PutMode::Create if !self.ignores_create => PutMode::Create,
            _ => PutMode::Overwrite,
        };
        self.inner.put_opts(location, payload, PutOptions::from(mode)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused() {
    for ignores_create in [true, false] {
        let store = Arc::new(Careless {
            inner: InMemory::new(),
            ignores_create,
        });
        let probed = Bucket::new(store, "").probe(&Layout::new("")).await;
        assert!(matches!(probed, Err(TierError::Unsafe { .. })), "{probed:?}");
    }
}

#[tokio::test]
async fn the_probe_picks_the_head_store_and_leaves_nothing_behind() {
    let memory: SharedStore = Arc::new(InMemory::new());
    let heads = Bucket::new(memory.clone(), "p").probe(&Layout::new("p")).await.unwrap();
    assert!(format!("{heads:?}").starts_with("EtagHead"));
    assert_eq!(memory.list(None).try_collect::<Vec<_>>().await.unwrap(), []);

    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}/bucket", directory.path().display());
    let bucket = Bucket::open(&TierOptions::new(url, Uuid::nil(), 1)).unwrap();
    let heads = bucket.probe(&Layout::new("")).await.unwrap();
    assert!(format!("{heads:?}").starts_with("SeqHead"));
}

#[test]
fn an_s3_bucket_opens_with_options_and_without_a_request() {
    let mut options = TierOptions::new("s3://bucket/some/prefix", Uuid::nil(), 1);
    options.s3.region = Some("eu-central-1".to_owned());
    options.s3.access_key_id = Some("canary-id".to_owned());
    options.s3.secret_access_key = Some("canary-secret".to_owned());
    let bucket = Bucket::open(&options).unwrap();
    assert_eq!(bucket.prefix, "some/prefix");
    assert!(!format!("{bucket:?}").contains("canary-secret"));
}

#[test]
fn urls_that_name_no_bucket_are_refused() {
    for url in ["", "s3://", "s3:///x", "http://x", "file://relative", "/tmp/x"] {
        let opened = Bucket::open(&TierOptions::new(url, Uuid::nil(), 1));
        assert!(matches!(opened, Err(TierError::BucketUrl { .. })), "{url}");
    }
}
