//! What all actors of a run share: the node, time, chance and the history.

use anyhow::Error;

use crate::{
    node::{Node, Process},
    rng::Rng,
};
use millstream_history::history::{Answer, Call, CallId, Event, History};

/// The place where a run happens.
pub struct Stage {
    /// The node.
    pub node: Node,
    /// What happened.
    pub history: History,
    /// Chance.
    pub rng: Rng,
    /// Virtual time.
    pub now_ms: i64,
    /// Producer ids that nobody has used yet.
    pub producer_ids: Vec<i64>,
    /// One answer in so many gets lost on its way.
    pub answer_loss: u64,
    /// Why the process cannot go on, if it cannot.
    pub broken: Option<String>,
    /// What must not happen and is not a matter of the history.
    pub surprises: Vec<String>,
    tokens: u64,
}

impl Stage {
    /// An empty stage.
    pub fn new(mut rng: Rng) -> Self {
        Self {
            node: Node::new(),
            history: History::default(),
            now_ms: 1_700_000_000_000,
            producer_ids: Vec::new(),
            answer_loss: 4 + rng.below(40),
            rng,
            broken: None,
            surprises: Vec::new(),
            tokens: 0,
        }
    }

    /// The process, if it runs.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.node.process.as_mut()
    }

    /// A name for a request that nothing else has.
    pub fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    /// Whether the network swallows an answer.
    pub fn loses_answer(&mut self) -> bool {
        self.rng.one_in(self.answer_loss)
    }

    /// Begins a call.
    pub fn invoke(&mut self, call: Call) -> CallId {
        self.history.invoke(self.now_ms, call)
    }

    /// A call went well.
    pub fn ok(&mut self, call: CallId, answer: Answer) {
        self.history.push(self.now_ms, Event::Ok(call, answer));
    }

    /// A call did not happen.
    pub fn fail(&mut self, call: CallId, reason: impl Into<String>) {
        self.history.push(self.now_ms, Event::Fail(call, reason.into()));
    }

    /// Nobody will learn what became of a call.
    pub fn unknown(&mut self, call: CallId) {
        self.history.push(self.now_ms, Event::Unknown(call));
    }

    /// A fault was made or mended.
    pub fn fault(&mut self, what: impl Into<String>) {
        self.history.push(self.now_ms, Event::Fault(what.into()));
    }

    /// The process met an error that it cannot go on with.
    pub fn broke(&mut self, error: &Error) {
        self.broken.get_or_insert_with(|| format!("{error:#}"));
    }

    /// Something that must never happen did.
    pub fn surprise(&mut self, what: impl Into<String>) {
        self.surprises.push(format!("at {} ms: {}", self.now_ms, what.into()));
    }
}
