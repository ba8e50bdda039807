//! What the clients of a cluster did and were told, and the promises that it must keep whatever happens to it.
//!
//! A [`history::History`] holds every call with its end, in order: `Ok`, `Fail` (it did not happen, and never will) or `Unknown` (nobody
//! will learn whether it did). It comes from a simulation or, one JSON object per line, from real clients of real nodes; any number of
//! nodes, as the checker knows of none. [`check::violations`] judges it by named invariants (Jepsen's, where Kafka has them).

pub mod check;
pub mod history;
