//! What may go, and when: pure decisions over a head, the local segments and the topic's configuration.
//!
//! Two limits, each by time and by size: the *local* one frees disk space and never passes the end of the bucket (I6); the
//! *total* one raises the log start. A segment's age counts from the smaller of its largest timestamp and its upload, so that
//! timestamps from the future cannot pin data. -1 is no limit.

use millstream_log::remote::{SealedSegment, TierConfig};

use crate::head::Head;

/// First offset that the local log should keep, if that is more than nothing to do. `local_only_floor` bounds it: nothing at or
/// above the end of the bucket goes.
pub(crate) fn local_trim(head: &Head, sealed: &[SealedSegment], active_bytes: u64, config: &TierConfig, now_ms: i64) -> Option<i64> {
    let mut local_bytes = sealed.iter().map(|segment| segment.size).fold(active_bytes, u64::saturating_add);
    let mut up_to = None;
    for segment in sealed {
        if segment.next_offset > head.remote_end {
            break;
        }
        let below_start = segment.next_offset <= head.log_start;
        let by_time = older_than(
            age_ms(segment.max_timestamp, uploaded_ms(head, segment.next_offset), now_ms),
            config.local_retention_ms,
        );
        let by_size = fits_without(local_bytes, segment.size, config.local_retention_bytes);
        if !below_start && !by_time && !by_size {
            break;
        }
        local_bytes = local_bytes.saturating_sub(segment.size);
        up_to = Some(segment.next_offset);
    }
    up_to
}

/// The log start that total retention and DeleteRecords ask for; at least the head's own.
pub(crate) fn log_start(head: &Head, source_log_start: i64, local_only_bytes: u64, config: &TierConfig, now_ms: i64) -> i64 {
    let mut total_bytes = head.bytes().saturating_add(local_only_bytes);
    let mut start = head.log_start.max(source_log_start.min(head.remote_end));
    let pages = head.pages.iter().map(|page| (page.next, page.bytes, page.max_ts, page.uploaded_ms));
    let segs = head.segs.iter().map(|seg| (seg.next, seg.footer_pos, seg.max_ts, seg.uploaded_ms));
    for (next, bytes, max_timestamp, uploaded_ms) in pages.chain(segs) {
        let by_time = older_than(age_ms(max_timestamp, uploaded_ms, now_ms), config.retention_ms);
        let by_size = fits_without(total_bytes, bytes, config.retention_bytes);
        if next > start && !by_time && !by_size {
            break;
        }
        total_bytes = total_bytes.saturating_sub(bytes);
        start = start.max(next);
    }
    start
}

fn uploaded_ms(head: &Head, next_offset: i64) -> i64 {
    let holder = head.segs.get(head.segs.partition_point(|seg| seg.next < next_offset));
    holder.map_or(-1, |seg| seg.uploaded_ms)
}

fn age_ms(max_timestamp: i64, uploaded_ms: i64, now_ms: i64) -> i64 {
    let known = [max_timestamp, uploaded_ms].into_iter().filter(|time| *time >= 0);
    known.min().map_or(0, |time| now_ms.saturating_sub(time))
}

fn older_than(age_ms: i64, limit_ms: i64) -> bool {
    limit_ms >= 0 && age_ms > limit_ms
}

fn fits_without(total_bytes: u64, bytes: u64, limit_bytes: i64) -> bool {
    u64::try_from(limit_bytes).is_ok_and(|limit| total_bytes.saturating_sub(bytes) >= limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{head_of, seg_ref, unlimited};

    fn sealed(base: i64, next: i64, max_timestamp: i64) -> SealedSegment {
        SealedSegment {
            base_offset: base,
            next_offset: next,
            size: 100,
            min_timestamp: -1,
            max_timestamp,
        }
    }

    #[test]
    fn local_trim_stops_at_the_end_of_the_bucket() {
        let head = head_of(vec![seg_ref(0, 10, 100, 5), seg_ref(10, 20, 100, 5)]);
        let config = TierConfig {
            local_retention_bytes: 0,
            ..unlimited()
        };
        let segments = [sealed(0, 10, 5), sealed(10, 20, 5), sealed(20, 30, 5)];
        assert_eq!(local_trim(&head, &segments, 0, &config, 100), Some(20));
    }

    #[test]
    fn local_trim_keeps_what_the_limits_allow() {
        let head = head_of(vec![seg_ref(0, 10, 100, 5), seg_ref(10, 20, 100, 50)]);
        let segments = [sealed(0, 10, 5), sealed(10, 20, 50)];
        assert_eq!(local_trim(&head, &segments, 50, &unlimited(), 1_000), None);
        let by_time = TierConfig {
            local_retention_ms: 60,
            ..unlimited()
        };
        assert_eq!(local_trim(&head, &segments, 50, &by_time, 100), Some(10));
        let by_size = TierConfig {
            local_retention_bytes: 150,
            ..unlimited()
        };
        assert_eq!(local_trim(&head, &segments, 50, &by_size, 100), Some(10));
        let just_not = TierConfig {
            local_retention_bytes: 151,
            ..unlimited()
        };
        assert_eq!(local_trim(&head, &segments, 50, &just_not, 100), None);
    }

    #[test]
    fn a_timestamp_from_the_future_does_not_pin_data() {
        let mut segment = seg_ref(0, 10, 100, i64::MAX);
        segment.uploaded_ms = 7;
        let head = head_of(vec![segment]);
        let config = TierConfig {
            retention_ms: 10,
            ..unlimited()
        };
        assert_eq!(log_start(&head, 0, 0, &config, 17), 0);
        assert_eq!(log_start(&head, 0, 0, &config, 18), 10);
    }

    #[test]
    fn total_retention_counts_local_bytes_that_are_not_in_the_bucket() {
        let head = head_of(vec![seg_ref(0, 10, 100, 5), seg_ref(10, 20, 100, 5)]);
        let config = TierConfig {
            retention_bytes: 200,
            ..unlimited()
        };
        assert_eq!(log_start(&head, 0, 99, &config, 0), 0);
        assert_eq!(log_start(&head, 0, 100, &config, 0), 10);
    }

    #[test]
    fn delete_records_moves_the_start_into_a_segment_but_not_past_the_bucket() {
        let head = head_of(vec![seg_ref(0, 10, 100, 5)]);
        assert_eq!(log_start(&head, 7, 0, &unlimited(), 0), 7);
        assert_eq!(log_start(&head, 70, 0, &unlimited(), 0), 10);
    }
}
