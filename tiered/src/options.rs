//! What a tier is told: where the bucket is, who this broker is, and the bounds of its work.

use std::{fmt, time::Duration};

use uuid::Uuid;

/// Options of a tier. Sizes in bytes; durations say their unit by their type.
#[derive(Debug, Clone)]
pub struct TierOptions {
    /// `file:///absolute/directory` or `s3://bucket/prefix`.
    pub bucket_url: String,
    /// This cluster.
    pub cluster_id: Uuid,
    /// This broker.
    pub broker_id: i32,
    /// How often the cluster was restored from its bucket; outranks every leader epoch.
    pub incarnation: u64,
    /// Access to S3, over what the environment says (`AWS_ENDPOINT`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, …).
    pub s3: S3Options,
    /// How often a partition looks for work when nobody wakes it. Default 1 s.
    pub work_interval: Duration,
    /// The broker rolls the active segment of a tiered topic after this, so that it can be uploaded. Default 10 min.
    pub lag_max: Duration,
    /// Segments that are uploaded at the same time; each holds up to 80 MiB. Default 2.
    pub upload_concurrency: usize,
    /// Largest object that is uploaded in one piece. Default 32 MiB.
    pub single_put_bytes_max: u64,
    /// Size of the parts of a larger one; four are in flight. Default 16 MiB.
    pub part_bytes: usize,
    /// An upload may take this long, plus its size divided by `upload_bytes_per_second_min`. Default 30 s.
    pub upload_timeout_base: Duration,
    /// Slower uploads are given up and start again under a new name. Default 1 MiB/s.
    pub upload_bytes_per_second_min: u64,
    /// First wait after a failure, doubled with each further one. Default 500 ms.
    pub backoff_min: Duration,
    /// Longest wait after failures. Default 60 s.
    pub backoff_max: Duration,
    /// GETs at the same time, over all partitions. Default 16.
    pub fetch_concurrency: usize,
    /// Memory for cached units. Default 256 MiB.
    pub cache_bytes: u64,
    /// Unit of checksum and cache in new segment objects. Default 1 MiB.
    pub read_unit_bytes: u32,
    /// Largest range of one GET. Default 8 MiB.
    pub get_bytes_max: u64,
    /// How far a sequential reader is read ahead at most. Default 16 MiB.
    pub read_ahead_bytes_max: u64,
    /// Segment references in a head before the older half goes to a page. Default 512.
    pub head_segments_max: usize,
    /// How long an unreferenced object stays for readers of an older head. Default 1 h.
    pub delete_grace: Duration,
    /// How often a partition's folder is searched for objects that crashes left. Default 24 h.
    pub orphan_scan_interval: Duration,
}

impl TierOptions {
    /// Options with every default, for the bucket at `bucket_url`.
    pub fn new(bucket_url: impl Into<String>, cluster_id: Uuid, broker_id: i32) -> TierOptions {
        TierOptions {
            bucket_url: bucket_url.into(),
            cluster_id,
            broker_id,
            incarnation: 0,
            s3: S3Options::default(),
            work_interval: Duration::from_secs(1),
            lag_max: Duration::from_secs(600),
            upload_concurrency: 2,
            single_put_bytes_max: 32 << 20,
            part_bytes: 16 << 20,
            upload_timeout_base: Duration::from_secs(30),
            upload_bytes_per_second_min: 1 << 20,
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(60),
            fetch_concurrency: 16,
            cache_bytes: 256 << 20,
            read_unit_bytes: 1 << 20,
            get_bytes_max: 8 << 20,
            read_ahead_bytes_max: 16 << 20,
            head_segments_max: 512,
            delete_grace: Duration::from_secs(3600),
            orphan_scan_interval: Duration::from_secs(24 * 3600),
        }
    }

    /// The pause after the n-th failure in a row, n from 1.
    pub(crate) fn backoff(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        self.backoff_min.saturating_mul(1 << doublings).min(self.backoff_max)
    }

    /// Names the first option that is out of range.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let in_range = [
            ("upload_concurrency", self.upload_concurrency > 0),
            ("part_bytes", self.part_bytes >= 5 << 20),
            ("upload_bytes_per_second_min", self.upload_bytes_per_second_min > 0),
            ("backoff_min", !self.backoff_min.is_zero() && self.backoff_min <= self.backoff_max),
            ("fetch_concurrency", self.fetch_concurrency > 0),
            (
                "read_unit_bytes",
                (crate::segment::UNIT_BYTES_MIN..=crate::segment::UNIT_BYTES_MAX).contains(&self.read_unit_bytes),
            ),
            ("get_bytes_max", self.get_bytes_max >= u64::from(self.read_unit_bytes)),
            ("head_segments_max", self.head_segments_max >= 2),
            ("work_interval", !self.work_interval.is_zero()),
        ];
        in_range.iter().find(|(_, holds)| !holds).map_or(Ok(()), |(name, _)| Err(name))
    }
}

/// Access to S3. What is `None` comes from the environment.
#[derive(Clone, Default)]
pub struct S3Options {
    /// URL of an S3-compatible server.
    pub endpoint: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// Access key id.
    pub access_key_id: Option<String>,
    /// Secret access key; never printed.
    pub secret_access_key: Option<String>,
    /// Whether plain HTTP is allowed.
    pub allow_http: bool,
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id.as_ref().map(|_| "<hidden>"))
            .field("secret_access_key", &self.secret_access_key.as_ref().map(|_| "<hidden>"))
            .field("allow_http", &self.allow_http)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_credentials() {
        let mut options = TierOptions::new("s3://b", Uuid::nil(), 1);
        options.s3.access_key_id = Some("canary-id".to_owned());
        options.s3.secret_access_key = Some("canary-secret".to_owned());
        assert!(!format!("{options:?}").contains("canary"));
    }

    #[test]
    fn defaults_are_in_range_and_a_zero_is_named() {
        let mut options = TierOptions::new("s3://b", Uuid::nil(), 1);
        assert_eq!(options.check(), Ok(()));
        options.fetch_concurrency = 0;
        assert_eq!(options.check(), Err("fetch_concurrency"));
    }
}
