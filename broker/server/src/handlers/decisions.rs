//! Asking the controller for several items at once, and putting its outcomes into a response.

use millstream_core::metadata::controller::{Context, Decision, Outcome, Refusal};
use millstream_protocol::{ErrorCode, KString};

use crate::{broker::Broker, context::RequestContext, metadata::MetadataError};

/// Decides for `count` items; all of them fail alike if what was decided could not be stored.
pub(super) async fn decide_each<T, D>(broker: &Broker, count: usize, decide: D) -> Vec<Outcome<T>>
where
    T: Send + 'static,
    D: FnOnce(&Context<'_>) -> Decision<Vec<Outcome<T>>> + Send + 'static,
{
    // Without authorization everybody is a cluster administrator, as in Kafka.
    match broker.metadata.decide(true, decide).await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            let code = not_stored(&error);
            let message = "The change could not be stored; the broker's log says why.";
            (0..count).map(|_| Err(refusal(code, message))).collect()
        }
    }
}

/// As [`decide_each`], for changes of topics that count against the client's quota (KIP-599): each item comes with how many partitions it
/// makes or removes. Of clients that know the error, from version `strict_since` on, what comes too soon is refused.
pub(super) async fn mutate_each<I, T, D>(
    broker: &Broker,
    context: &RequestContext,
    strict_since: i16,
    items: Vec<(usize, I)>,
    decide: D,
) -> Vec<Outcome<T>>
where
    I: Send + 'static,
    T: Send + 'static,
    D: FnOnce(&Context<'_>, Vec<I>) -> Decision<Vec<Outcome<T>>> + Send + 'static,
{
    let image = broker.metadata.image();
    let is_strict = context.version >= strict_since;
    let charge = |permits: f64| {
        let charged = broker.quotas.mutate(&image, context, is_strict, permits);
        context.mute.throttle(charged.unwrap_or_else(|wait_ms| wait_ms));
        charged.is_ok()
    };
    let mut allowed = Vec::with_capacity(items.len());
    let mut permits = Vec::with_capacity(items.len());
    for (partitions, item) in items {
        let partitions = partitions as f64;
        let is_allowed = charge(partitions);
        permits.push(is_allowed.then_some(partitions));
        if is_allowed {
            allowed.push(item);
        }
    }
    let mut decided = decide_each(broker, allowed.len(), move |context| decide(context, allowed))
        .await
        .into_iter();
    let outcome = |permits: Option<f64>| {
        let too_soon = || refusal(ErrorCode::ThrottlingQuotaExceeded, ErrorCode::ThrottlingQuotaExceeded.message());
        let outcome = permits.and_then(|_| decided.next()).unwrap_or_else(|| Err(too_soon()));
        if let (Some(permits), Err(_)) = (permits, &outcome) {
            // Nothing came of it.
            charge(-permits);
        }
        outcome
    };
    permits.into_iter().map(outcome).collect()
}

/// Logs that metadata could not be written; the code to answer with.
pub(crate) fn not_stored(error: &MetadataError) -> ErrorCode {
    tracing::error!(%error, "metadata could not be changed");
    ErrorCode::KafkaStorageError
}

/// A refusal that a handler makes itself, of what no core type can express.
pub(super) fn refusal(code: ErrorCode, message: impl Into<String>) -> Refusal {
    Refusal {
        code,
        message: message.into(),
    }
}

/// Outcomes by name, each name once: what is asked for twice is refused as one.
pub(super) fn each_once<T>(outcomes: impl Iterator<Item = (KString, T)>) -> impl Iterator<Item = (KString, T)> {
    let mut seen = std::collections::BTreeSet::new();
    outcomes.filter(move |(name, _)| seen.insert(name.to_string()))
}

/// Error code and message of an outcome, as responses carry them.
pub(super) fn verdict<T>(outcome: &Outcome<T>) -> (i16, Option<KString>) {
    match outcome {
        Ok(_) => (ErrorCode::None.code(), None),
        Err(refusal) => (refusal.code.code(), Some(KString::from(refusal.message.as_str()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_carry_a_message() {
        assert_eq!(verdict(&Ok(())), (0, None));
        let refused: Outcome<()> = Err(refusal(ErrorCode::InvalidRequest, "no"));
        assert_eq!(verdict(&refused), (42, Some(KString::from("no"))));
    }
}
