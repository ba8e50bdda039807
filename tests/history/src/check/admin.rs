//! M1 to M3: topics, their configurations, producer ids.

use uuid::Uuid;

use super::{Ended, Found};
use crate::history::{Answer, Call};

/// M1 and M2: topics and their configurations.
pub(super) fn check_topics(calls: &[Ended<'_>], found: &mut Found) {
    for listed in calls {
        let (Call::ListTopics, Some((_, Answer::Topics(topics)))) = (listed.call, listed.ok()) else {
            continue;
        };
        let before: Vec<&Ended<'_>> = calls.iter().take_while(|ended| ended.invoked < listed.invoked).collect();
        let is_done = |ended: &Ended<'_>| ended.ok().is_some_and(|(at, _)| at < listed.invoked);
        for ended in &before {
            let deletion = |topic: &Uuid| {
                before
                    .iter()
                    .find(|other| *other.call == Call::DeleteTopic { topic: *topic } && !other.has_failed())
            };
            match ended.call {
                Call::CreateTopic { topic } if is_done(ended) && deletion(topic).is_none() && !topics.contains_key(topic) => {
                    found.add("M1", format!("{topic} was created, and is gone"));
                }
                Call::CreateTopic { topic } if ended.has_failed() && topics.contains_key(topic) => {
                    found.add("M1", format!("{topic} was refused, and is there"));
                }
                Call::DeleteTopic { topic } if is_done(ended) && topics.contains_key(topic) => {
                    found.add("M1", format!("{topic} was deleted, and is there"));
                }
                _ => {}
            }
        }
        for (topic, retention) in topics {
            check_retention(&before, is_done, topic, retention.as_ref(), found);
        }
    }
}

/// Decisions are made one at a time, so a value can be the last acknowledged one, or one that was tried after it.
fn check_retention(
    before: &[&Ended<'_>],
    is_done: impl Fn(&Ended<'_>) -> bool,
    topic: &Uuid,
    retention: Option<&String>,
    found: &mut Found,
) {
    let mut possible = vec![None];
    for ended in before {
        match ended.call {
            Call::SetRetention { topic: of, value } if of == topic && !ended.has_failed() => {
                if is_done(ended) {
                    possible.clear();
                }
                possible.push(Some(value));
            }
            _ => {}
        }
    }
    if !possible.contains(&retention) {
        found.add(
            "M2",
            format!("{topic} has retention.ms {retention:?}, which should be one of {possible:?}"),
        );
    }
}

/// M3: producer ids.
pub(super) fn check_producer_ids(calls: &[Ended<'_>], found: &mut Found) {
    let mut next = i64::MIN;
    for ended in calls {
        if let Some((_, Answer::ProducerIds(ids))) = ended.ok() {
            if ids.start < next {
                found.add("M3", format!("producer ids {ids:?} were given after those below {next}"));
            }
            next = next.max(ids.end);
        }
    }
}
