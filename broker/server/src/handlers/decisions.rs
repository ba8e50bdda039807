//! Asking the controller for several items at once, and putting its outcomes into a response.

use millstream_core::metadata::controller::{Context, Decision, Outcome, Refusal};
use millstream_protocol::{ErrorCode, KString};

use crate::{broker::Broker, metadata::MetadataError};

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
