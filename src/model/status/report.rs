//! The progress report of a pod, in types.

use std::fmt;

use serde_json::Value;

/// The progress of an operation, as its pod reported it, e.g. with
/// `hob_pod.progress(done=3, total=10, unit="texts", message="embedding")`.
///
/// A pod may report any JSON object. This type reads the four keys that every caller understands; a key that
/// is missing or of the wrong kind is `None`. Its [`Display`](fmt::Display) is one line for people:
/// `embedding: 3 of 10 texts`.
///
/// ```
/// use hob::{Event, Report};
///
/// let event = Event::Progress { data: serde_json::json!({ "done": 3, "total": 10, "unit": "texts" }) };
/// let report = event.report().unwrap();
/// assert_eq!((report.done, report.share(), report.to_string()), (Some(3.0), Some(0.3), "3 of 10 texts".to_owned()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Report<'a> {
    /// How much is done, in `unit`; never negative.
    pub done: Option<f64>,
    /// How much there is, in `unit`; above zero. It may change between two reports.
    pub total: Option<f64>,
    /// What is counted, e.g. `texts` or `seconds`.
    pub unit: Option<&'a str>,
    /// The current activity, for people.
    pub message: Option<&'a str>,
    /// The whole report of the pod.
    pub data: &'a Value,
}

impl<'a> Report<'a> {
    /// Reads a pod's report.
    pub fn of(data: &'a Value) -> Report<'a> {
        let number = |key: &str| data.get(key).and_then(Value::as_f64).filter(|number| number.is_finite() && *number >= 0.0);
        let text = |key: &str| data.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        Report {
            done: number("done"),
            total: number("total").filter(|total| *total > 0.0),
            unit: text("unit"),
            message: text("message"),
            data,
        }
    }

    /// The done share, from 0 to 1; `None` unless both numbers are known.
    pub fn share(&self) -> Option<f64> {
        Some((self.done? / self.total?).clamp(0.0, 1.0))
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, into: &mut fmt::Formatter) -> fmt::Result {
        let counted = match (self.done, self.total) {
            (Some(done), Some(total)) => format!("{} of {}", Short(done), Short(total)),
            (Some(done), None) => Short(done).to_string(),
            (None, Some(total)) => format!("of {}", Short(total)),
            (None, None) => {
                return match self.message {
                    Some(message) => into.write_str(message),
                    None => self.data.fmt(into),
                };
            }
        };
        if let Some(message) = self.message {
            write!(into, "{message}: ")?;
        }
        into.write_str(&counted)?;
        self.unit.map_or(Ok(()), |unit| write!(into, " {unit}"))
    }
}

/// A number with only as many decimals as people want.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, into: &mut fmt::Formatter) -> fmt::Result {
        let text = format!("{:.2}", self.0);
        into.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_of_its_kind_is_as_if_it_were_not_there() {
        let full = json!({ "done": 2.5, "total": 10, "unit": "seconds", "message": "listening", "more": [1] });
        let report = Report::of(&full);
        assert_eq!((report.done, report.total, report.unit, report.message), (Some(2.5), Some(10.0), Some("seconds"), Some("listening")));
        assert_eq!((report.share(), report.data), (Some(0.25), &full));
        for odd in
            [json!({ "done": "2", "total": 0, "unit": 3, "message": "" }), json!({ "done": -1, "total": -1 }), json!([1]), json!(null)]
        {
            let report = Report::of(&odd);
            assert_eq!((report.done, report.total, report.unit, report.message, report.share()), (None, None, None, None, None), "{odd}");
        }
        // More than all counts as all; one number alone gives no share.
        assert_eq!(Report::of(&json!({ "done": 12, "total": 10 })).share(), Some(1.0));
        assert_eq!((Report::of(&json!({ "done": 12 })).share(), Report::of(&json!({ "total": 12 })).share()), (None, None));
    }

    #[test]
    fn it_is_a_line_for_people() {
        for (data, line) in [
            (json!({ "done": 3, "total": 10, "unit": "texts", "message": "embedding" }), "embedding: 3 of 10 texts"),
            (json!({ "done": 0.30000000000000004, "total": 1.5 }), "0.3 of 1.5"),
            (json!({ "done": 100, "unit": "steps" }), "100 steps"),
            (json!({ "total": 1000 }), "of 1000"),
            (json!({ "message": "compiling", "unit": "steps" }), "compiling"),
            (json!({ "slept": 0.25 }), r#"{"slept":0.25}"#),
        ] {
            assert_eq!(Report::of(&data).to_string(), line);
        }
    }
}
