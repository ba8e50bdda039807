//! Answers that wait until what they tell is durable.

use std::collections::VecDeque;

/// Sends an answer. Dropped instead, it refuses: whoever waits learns that the coordinator is gone.
pub(crate) type Answer = Box<dyn FnOnce() + Send>;

/// Answers in the order of their decisions, each with the log end offset that it waits for. Many commands share one sync.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: VecDeque<(i64, Answer)>,
}

impl Outbox {
    /// Adds an answer to be sent when everything below `offset` is safe.
    pub fn push(&mut self, offset: i64, answer: Answer) {
        let last = self.waiting.back().map_or(offset, |(last, _)| *last);
        assert!(last <= offset, "an answer waits for offset {offset}, an earlier one for {last}");
        self.waiting.push_back((offset, answer));
    }

    /// What the first answer waits for.
    pub fn next_offset(&self) -> Option<i64> {
        self.waiting.front().map(|(offset, _)| *offset)
    }

    /// Sends what is safe.
    pub fn release(&mut self, high_watermark: i64) {
        while let Some((_, answer)) = self.waiting.pop_front_if(|(offset, _)| *offset <= high_watermark) {
            answer();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn answers_go_out_in_order_and_never_above_the_high_watermark() {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let mut outbox = Outbox::default();
        for (offset, name) in [(1, "a"), (3, "b"), (3, "c"), (4, "d")] {
            let sent = Arc::clone(&sent);
            outbox.push(offset, Box::new(move || sent.lock().unwrap().push(name)));
        }
        outbox.release(0);
        assert_eq!((sent.lock().unwrap().len(), outbox.next_offset()), (0, Some(1)));
        outbox.release(3);
        assert_eq!((sent.lock().unwrap().clone(), outbox.next_offset()), (vec!["a", "b", "c"], Some(4)));
        outbox.release(9);
        assert_eq!((sent.lock().unwrap().len(), outbox.next_offset()), (4, None));
    }
}
