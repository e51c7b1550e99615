//! The cost of a pattern: the states that may be alive at one byte of the text, and its bytes once compiled.
//!
//! The engine (`regex`) needs time proportional to the text times the states, whatever the pattern. States
//! are counted in the exact text that the engine gets, with counted repetitions written out: `[ab]{3000}` has
//! 3,000.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Bytes that one range of a class, and one state, take when compiled.
const RANGE_BYTES: f64 = 32.0;

/// What matching with a pattern costs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct PatternCost {
    /// Most states that are active at once: units for each byte of the text.
    pub states: f64,
    /// Approximate compiled size in bytes.
    pub bytes: f64,
}

/// The cost of `pattern`, in JSON Schema's notation. An unreadable pattern costs nothing: compiling it
/// reports why.
pub(super) fn cost(pattern: &str) -> PatternCost {
    let Ok(translated) = jsonschema_regex::to_rust_regex(pattern) else { return PatternCost::default() };
    match regex_syntax::parse(&translated) {
        Ok(hir) => of(&hir),
        Err(_) => PatternCost::default(),
    }
}

/// The parser's own limit on nesting bounds the depth.
fn of(hir: &Hir) -> PatternCost {
    let sum = |parts: &[Hir]| {
        parts.iter().map(of).fold(PatternCost::default(), |a, b| PatternCost { states: a.states + b.states, bytes: a.bytes + b.bytes })
    };
    match hir.kind() {
        HirKind::Empty => PatternCost { states: 0.0, bytes: RANGE_BYTES },
        HirKind::Look(_) => PatternCost { states: 1.0, bytes: RANGE_BYTES },
        HirKind::Literal(literal) => PatternCost { states: literal.0.len() as f64, bytes: literal.0.len() as f64 * RANGE_BYTES },
        // Letters of several bytes: one path through them is active, whatever the class.
        HirKind::Class(Class::Unicode(class)) => PatternCost { states: 2.0, bytes: (1 + class.ranges().len()) as f64 * RANGE_BYTES },
        HirKind::Class(Class::Bytes(class)) => PatternCost { states: 1.0, bytes: (1 + class.ranges().len()) as f64 * RANGE_BYTES },
        HirKind::Repetition(repetition) => {
            let times = f64::from(repetition.max.unwrap_or(repetition.min).max(repetition.min).max(1));
            let once = of(&repetition.sub);
            PatternCost { states: (once.states + 1.0) * times, bytes: (once.bytes + RANGE_BYTES) * times }
        }
        HirKind::Capture(capture) => of(&capture.sub),
        HirKind::Concat(parts) => sum(parts),
        HirKind::Alternation(parts) => {
            let all = sum(parts);
            PatternCost { states: all.states + 1.0, bytes: all.bytes + RANGE_BYTES }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_repetitions_are_written_out() {
        assert!(cost("^[a-z]+$").states < 8.0);
        assert!((3_000.0..10_000.0).contains(&cost("[ab]*a[ab]{3000}c").states));
        assert!(cost("((a{100}){100}){100}").states >= 1e6);
        assert!(cost(r"\p{L}{1000}").bytes > 10e6);
        // A pattern that the engine does not accept is left to its compiler to refuse.
        assert_eq!(cost("(?=a)"), PatternCost::default());
        assert_eq!(cost("("), PatternCost::default());
    }
}
