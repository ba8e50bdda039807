//! Runs of many seeds. `MILLSTREAM_SIM_SEED` plays one, `MILLSTREAM_SIM_SEEDS` says how many otherwise.

use std::env;

use crate::{
    node::Flaw,
    world::{Run, run, run_flawed},
};
use millstream_history::{
    check::violations,
    history::{Answer, Event},
};

const SEEDS: u64 = 100;

/// Seeds that once failed, with what they found; each is played every time.
const KEPT: &[u64] = &[21];

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// What is wrong with a run; empty if nothing is.
fn complaints(Run { history, surprises }: &Run) -> Vec<String> {
    let broken = violations(history).into_iter().map(|violation| violation.to_string());
    surprises.iter().cloned().chain(broken).collect()
}

#[test]
fn every_seed_keeps_every_promise() {
    let only = number("MILLSTREAM_SIM_SEED");
    let seeds: Vec<u64> = match only {
        Some(seed) => vec![seed],
        None => {
            let many = number("MILLSTREAM_SIM_SEEDS").unwrap_or(SEEDS);
            KEPT.iter().copied().chain(0..many).collect()
        }
    };
    let mut failed = Vec::new();
    for seed in seeds {
        let outcome = run(seed);
        let mut wrong = complaints(&outcome);
        if run(seed).history.hash() != outcome.history.hash() {
            wrong.push("D0 the same seed gave another history".to_owned());
        }
        if !wrong.is_empty() {
            if only.is_some() {
                eprintln!("{}", outcome.history);
            }
            eprintln!("MILLSTREAM_SIM_SEED={seed} cargo test -p millstream-sim\n  {}", wrong.join("\n  "));
            failed.push(seed);
        }
    }
    assert!(
        failed.is_empty(),
        "seeds {failed:?} failed; rerun one with MILLSTREAM_SIM_SEED=<seed>"
    );
}

/// A broker with the flaw breaks the promise in one of the first seeds.
fn check_flaw(flaw: Flaw, invariant: &str) {
    let is_found = |seed: u64| {
        violations(&run_flawed(seed, flaw).history)
            .iter()
            .any(|violation| violation.invariant == invariant)
    };
    assert!((0..SEEDS).any(is_found), "no seed found {invariant} in a broker that {flaw:?}");
}

#[test]
fn broker_that_acknowledges_before_the_sync_is_found() {
    check_flaw(Flaw::AcknowledgesEarly, "I1");
}

#[test]
fn broker_that_shows_records_before_the_sync_is_found() {
    check_flaw(Flaw::ShowsEarly, "I2");
}

#[test]
fn broker_that_takes_retries_for_new_batches_is_found() {
    check_flaw(Flaw::ForgetsSequences, "I3");
}

#[test]
fn coordinator_that_answers_before_the_sync_is_found() {
    check_flaw(Flaw::AnswersEarly, "I9");
}

#[test]
fn controller_that_answers_before_the_sync_is_found() {
    check_flaw(Flaw::DecidesEarly, "M1");
}

#[test]
fn runs_are_worth_checking() {
    let (mut sent, mut read, mut committed, mut owned, mut unknown, mut restarts) = (0, 0, 0, 0, 0, 0);
    for seed in 0..10 {
        for (_, event) in run(seed).history.events {
            match event {
                Event::Ok(_, Answer::Sent(_)) => sent += 1,
                Event::Ok(_, Answer::Records(records)) => read += records.len(),
                Event::Ok(_, Answer::Committed(offset)) if offset > 0 => committed += 1,
                Event::Ok(_, Answer::Owns(numbers)) if !numbers.is_empty() => owned += 1,
                Event::Unknown(_) => unknown += 1,
                Event::Fault(what) if what == "started" => restarts += 1,
                _ => {}
            }
        }
    }
    let counts = [sent, read, committed, owned, unknown, restarts];
    let wanted = [200, 1_000, 50, 30, 100, 50];
    assert!(
        counts.iter().zip(wanted).all(|(count, wanted)| *count >= wanted),
        "sent, read, committed, owned, unknown and restarts are {counts:?}, and should be at least {wanted:?}"
    );
}

#[test]
fn different_seeds_give_different_histories() {
    assert_ne!(run(1).history.hash(), run(2).history.hash());
}
