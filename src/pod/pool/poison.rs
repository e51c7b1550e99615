//! Inputs that ended their pod: which are poison, and for how long they are refused.
//!
//! A policy without IO and without a clock.

use std::{collections::HashMap, time::Duration};

use crate::model::limits::{POISON_CRASHES, POISON_ENDS, POISON_INPUTS_MAX, POISON_MS};

/// How a pod ended while it had the input in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself: a fault signal, an exit, a broken protocol.
    Crash,
    /// By SIGKILL, which an operator or the kernel may have sent for reasons of their own.
    Kill,
}

/// How often one input, or one ask, ended its pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    crashes: u8,
    kills: u8,
}

impl Tally {
    pub fn add(&mut self, how: Ended) {
        let count = match how {
            Ended::Crash => &mut self.crashes,
            Ended::Kill => &mut self.kills,
        };
        *count = count.saturating_add(1);
    }

    /// Two crashes, or four endings of any kind: a crash is never better news than a kill.
    pub fn is_poison(&self) -> bool {
        self.crashes >= POISON_CRASHES || self.crashes.saturating_add(self.kills) >= POISON_ENDS
    }
}

/// The remembered inputs, by their digest.
#[derive(Debug, Default)]
pub struct Poison {
    inputs: HashMap<[u8; 32], Remembered>,
    /// When one of them last ended a pod.
    newest: Duration,
}

#[derive(Debug)]
struct Remembered {
    tally: Tally,
    /// When it last ended a pod.
    last: Duration,
}

impl Remembered {
    fn until(&self) -> Duration {
        self.last.saturating_add(Duration::from_millis(POISON_MS))
    }
}

impl Poison {
    pub fn new() -> Poison {
        Poison::default()
    }

    /// A pod ended while it had `input` in hand. Call this once per pod, even if a batch had the input twice.
    /// Returns true if the input is poison now.
    pub fn ended(&mut self, input: [u8; 32], how: Ended, now: Duration) -> bool {
        self.inputs.retain(|_, remembered| remembered.until() > now);
        if self.inputs.len() >= POISON_INPUTS_MAX && !self.inputs.contains_key(&input) {
            // Searches all of them, but only after a pod has died, which costs far more.
            if let Some(oldest) = self.inputs.iter().min_by_key(|(_, remembered)| remembered.last).map(|(input, _)| *input) {
                self.inputs.remove(&oldest);
            }
        }
        let remembered = self.inputs.entry(input).or_insert(Remembered { tally: Tally::default(), last: now });
        remembered.tally.add(how);
        remembered.last = now;
        self.newest = now;
        remembered.tally.is_poison()
    }

    /// For how long `input` is still refused; `None` if it may run.
    pub fn check(&mut self, input: &[u8; 32], now: Duration) -> Option<Duration> {
        if self.newest.saturating_add(Duration::from_millis(POISON_MS)) <= now {
            // All of them have expired: no input need be hashed from now on.
            self.inputs.clear();
        }
        let remembered = self.inputs.get(input)?;
        let left = remembered.until().saturating_sub(now);
        if left.is_zero() {
            self.inputs.remove(input);
            return None;
        }
        remembered.tally.is_poison().then_some(left)
    }

    /// `input` was answered, with success or with a fault of its own: it did not end the pods.
    pub fn answered(&mut self, input: &[u8; 32]) {
        self.inputs.remove(input);
    }

    /// Whether nothing is remembered: then no input need be hashed.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    pub fn clear(&mut self) {
        self.inputs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: [u8; 32] = [7; 32];
    const TERM: Duration = Duration::from_millis(POISON_MS);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn crashes_weigh_more_than_kills() {
        use Ended::{Crash, Kill};
        for (ends, poison) in [
            (&[][..], false),
            (&[Crash], false),
            (&[Crash, Crash], true),
            (&[Crash, Kill, Kill], false),
            (&[Kill, Kill, Kill], false),
            (&[Kill, Kill, Kill, Kill], true),
            (&[Kill, Crash, Kill, Kill], true),
            (&[Kill, Crash, Crash], true),
        ] {
            let mut tally = Tally::default();
            ends.iter().for_each(|how| tally.add(*how));
            assert_eq!(tally.is_poison(), poison, "{ends:?}");
        }
        let mut tally = Tally::default();
        (0..600).for_each(|_| tally.add(Kill));
        assert!(tally.is_poison(), "counts do not wrap around");
    }

    #[test]
    fn a_poison_input_is_refused_for_its_term_and_then_tried_again() {
        let mut poison = Poison::new();
        assert!(poison.is_empty());
        assert!(!poison.ended(INPUT, Ended::Crash, at(1)));
        assert_eq!(poison.check(&INPUT, at(1)), None, "one crash is nobody's fault yet");
        assert!(poison.ended(INPUT, Ended::Crash, at(5)));
        assert_eq!(poison.check(&INPUT, at(5)), Some(TERM));
        assert_eq!(poison.check(&INPUT, at(6)), Some(TERM - at(1)));
        assert_eq!(poison.check(&[8; 32], at(6)), None);
        assert_eq!(poison.check(&INPUT, at(5) + TERM), None);
        assert!(poison.is_empty(), "what has expired is forgotten");
        assert!(!poison.ended(INPUT, Ended::Crash, at(5) + TERM), "a new tally");
    }

    #[test]
    fn an_answer_or_the_operator_clears_an_input() {
        let mut poison = Poison::new();
        poison.ended(INPUT, Ended::Crash, at(1));
        poison.answered(&INPUT);
        assert!(!poison.ended(INPUT, Ended::Crash, at(2)));
        assert!(poison.ended(INPUT, Ended::Crash, at(3)));
        poison.clear();
        assert_eq!(poison.check(&INPUT, at(3)), None);
    }

    #[test]
    fn an_old_tally_does_not_count() {
        let mut poison = Poison::new();
        poison.ended(INPUT, Ended::Crash, at(1));
        assert!(!poison.ended(INPUT, Ended::Crash, at(1) + TERM));
        assert!(poison.ended(INPUT, Ended::Crash, at(2) + TERM));
    }

    #[test]
    fn the_oldest_input_makes_room() {
        let name = |number: usize| {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&number.to_le_bytes());
            name
        };
        let mut poison = Poison::new();
        for number in 0..POISON_INPUTS_MAX {
            poison.ended(name(number), Ended::Crash, Duration::from_millis(number as u64));
            poison.ended(name(number), Ended::Crash, Duration::from_millis(number as u64));
        }
        // Another end makes the first one recent again; the second is now the oldest.
        poison.ended(name(0), Ended::Crash, at(2));
        poison.ended(name(POISON_INPUTS_MAX), Ended::Crash, at(2));
        assert_eq!(poison.inputs.len(), POISON_INPUTS_MAX);
        assert!(poison.check(&name(0), at(2)).is_some());
        assert!(poison.check(&name(1), at(2)).is_none());
        assert!(poison.check(&name(2), at(2)).is_some());
    }
}
