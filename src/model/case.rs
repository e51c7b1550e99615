//! A case of a recipe: a call, and its expected end. It is documentation, a test, and a trial for a forked
//! pod.
//!
//! `cases/<case>/input.json` is the call, with its blobs as files beside it. `output.json` (and `chunks.json`
//! of an operation that streams) is the expected result, or `fault.json` the expected fault.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Number, Value};

use super::{document::Document, fault::Fault, limits::BLOBS_MAX, shown, stand_in};

/// How far a non-integer number may be from the wanted one, as a fraction of it or of 1: processors differ in
/// the last digits that they compute.
const TOLERANCE: f64 = 1e-4;

/// One case, as read.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: String,
    pub operation: String,
    pub input: Value,
    /// Its blobs, each with its file in the case's folder.
    pub blobs: BTreeMap<String, String>,
    pub end: End,
    tolerance: Option<f64>,
}

/// The expected end of a case.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// `chunks`: the chunks before the output, if the case states them.
    Answer { output: Value, chunks: Option<Vec<Value>> },
    /// This code: one of Hob's own, or one of the recipe's.
    Fault(String),
}

/// A mistake in a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Wrong {
    /// The file, in the case's folder.
    pub file: &'static str,
    pub why: String,
    /// The next step, unless it is to correct the file.
    pub next: Option<&'static str>,
}

/// Returns the bytes of a file in a case's folder; `None` if there is no such file.
type File<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<u8>>, Fault>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    operation: String,
    input: Value,
    #[serde(default)]
    blobs: BTreeMap<String, String>,
    tolerance: Option<f64>,
}

impl Case {
    /// Reads a case; `file` returns the bytes of a file in its folder, `None` if there is no such file.
    ///
    /// Errors: any fault of `file`; the inner error is a mistake in the case.
    pub fn read(name: &str, file: File) -> Result<Result<Case, Wrong>, Fault> {
        let wrong = |file: &'static str, why: String| Wrong { file, why, next: None };
        let document = |name: &'static str| -> Result<Result<Option<Value>, Wrong>, Fault> {
            let Some(bytes) = file(name)? else { return Ok(Ok(None)) };
            let text = match stand_in::text(bytes) {
                Ok(text) => text,
                Err(none) => return Ok(Err(Wrong { file: name, why: none.why, next: none.next })),
            };
            let read = Document::parse(text, "it").map_err(|fault| wrong(name, format!("is not usable: {}", fault.message)));
            Ok(read.map(|document| Some(document.into_value())))
        };
        let (input, output, chunks, fault) =
            (document("input.json")?, document("output.json")?, document("chunks.json")?, document("fault.json")?);
        Ok((|| {
            let input = input?.ok_or_else(|| wrong("input.json", "is missing".into()))?;
            let Written { operation, input, blobs, tolerance } = serde_json::from_value(input)
                .map_err(|error| wrong("input.json", format!("is not `{{\"operation\": ..., \"input\": ...}}`: {error}")))?;
            if tolerance.is_some_and(|tolerance| !(0.0..=1.0).contains(&tolerance)) {
                return Err(wrong("input.json", "has a `tolerance` that is not between 0 and 1".into()));
            }
            if let Some((name, file)) =
                blobs.iter().find(|(_, file)| file.is_empty() || file.starts_with('.') || file.contains(['/', '\\', '\0']))
            {
                return Err(wrong(
                    "input.json",
                    format!("has `{file:.100}` as the blob `{name:.100}`: wanted the name of a file beside it"),
                ));
            }
            if blobs.len() > BLOBS_MAX {
                return Err(wrong("input.json", format!("has {} blobs; at most {BLOBS_MAX} are carried", blobs.len())));
            }
            let end = match (output?, fault?, chunks?) {
                (Some(_), Some(_), _) => {
                    return Err(wrong("fault.json", "is there beside `output.json`: a case ends in one of them".into()));
                }
                (None, None, _) => return Err(wrong("output.json", "is missing, and so is `fault.json`".into())),
                (Some(output), None, None) => End::Answer { output, chunks: None },
                (Some(output), None, Some(Value::Array(chunks))) => End::Answer { output, chunks: Some(chunks) },
                (Some(_), None, Some(other)) => {
                    return Err(wrong("chunks.json", format!("is {}, wanted a list of all chunks", shown::found("", &other))));
                }
                (None, Some(_), Some(_)) => {
                    return Err(wrong("chunks.json", "is there beside `fault.json`: its chunks are not compared".into()));
                }
                (None, Some(fault), None) => {
                    let code = fault.get("code").and_then(Value::as_str).unwrap_or_default();
                    let is_word = (1..=64).contains(&code.len())
                        && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
                    if !is_word {
                        return Err(wrong("fault.json", format!("has the code `{code:.100}`: wanted a word of a-z, 0-9 and `_`")));
                    }
                    End::Fault(code.to_owned())
                }
            };
            Ok(Case { name: name.to_owned(), operation, input, blobs, end, tolerance })
        })())
    }

    /// How the result differs from the case, in words; `None` if it does not. `chunks` are compared only if
    /// the case states them.
    pub fn differs(&self, ended: Result<&Value, &Fault>, chunks: &[Value]) -> Option<String> {
        match (&self.end, ended) {
            (End::Answer { output, chunks: wanted }, Ok(found)) => {
                if let Some(wanted) = wanted {
                    let (wanted, found) = (Value::from(wanted.clone()), Value::from(chunks.to_vec()));
                    if let Some(why) = self.difference(&wanted, &found, "") {
                        return Some(format!("its chunks: {why}"));
                    }
                }
                self.difference(output, found, "").map(|why| format!("its answer: {why}"))
            }
            (End::Answer { .. }, Err(fault)) => {
                Some(format!("it ended as `{}` and wanted an answer: {}", fault.code.name(), fault.message))
            }
            (End::Fault(code), Ok(_)) => Some(format!("it gave an answer, wanted the fault `{code}`")),
            (End::Fault(code), Err(fault)) => {
                let own = fault.detail.get("code").and_then(Value::as_str);
                let found = own.filter(|_| fault.code.name() == "recipe_failed").unwrap_or(fault.code.name());
                (found != code).then(|| format!("it ended as `{found}`, wanted `{code}`: {}", fault.message))
            }
        }
    }

    /// The first place where the two differ. The found value may have keys that the case does not name: a
    /// case enforces what it states, and signed recipes exist whose cases state only a part. Neither value is
    /// deeper than a document.
    fn difference(&self, wanted: &Value, found: &Value, at: &str) -> Option<String> {
        let place = || shown::pointer(at);
        match (wanted, found) {
            (Value::Object(wanted), Value::Object(found)) => wanted.iter().find_map(|(key, wanted)| match found.get(key) {
                Some(found) => self.difference(wanted, found, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"))),
                None => Some(format!("at `{}` the key {} is missing", place(), shown::keys(std::iter::once(key.as_str())))),
            }),
            (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => wanted
                .iter()
                .zip(found)
                .enumerate()
                .find_map(|(index, (wanted, found))| self.difference(wanted, found, &format!("{at}/{index}"))),
            (Value::Number(wanted), Value::Number(found)) if self.is_near(wanted, found) => None,
            (wanted, found) if wanted == found => None,
            (wanted, found) => Some(format!("at `{}` found {}, wanted {}", place(), shown::found(at, found), shown::found(at, wanted))),
        }
    }

    fn is_near(&self, wanted: &Number, found: &Number) -> bool {
        let are_whole = !wanted.is_f64() && !found.is_f64();
        let tolerance = self.tolerance.unwrap_or(if are_whole { 0.0 } else { TOLERANCE });
        match (wanted.as_f64(), found.as_f64()) {
            _ if tolerance == 0.0 && are_whole => wanted == found,
            (Some(wanted), Some(found)) => (wanted - found).abs() <= tolerance * wanted.abs().max(1.0),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Code;

    fn read(files: &[(&str, &str)]) -> Result<Case, Wrong> {
        let file = |name: &str| Ok(files.iter().find(|(known, _)| *known == name).map(|(_, text)| text.as_bytes().to_vec()));
        Case::read("one", &file).unwrap()
    }

    const INPUT: (&str, &str) = ("input.json", r#"{"operation": "run", "input": 1}"#);

    #[test]
    fn what_came_is_held_against_what_is_wanted() {
        let case = |more: &str, output: &str| {
            let input = format!("{{\"operation\": \"run\", \"input\": 1{more}}}");
            read(&[("input.json", &input), ("output.json", output)]).unwrap()
        };
        let exact = case("", r#"{"a": [1, 0.5], "b/c": "x"}"#);
        let more = json!({ "a": [1, 0.5], "b/c": "x", "d": 1 });
        for same in [json!({ "a": [1, 0.5], "b/c": "x" }), json!({ "a": [1.0, 0.500_000_1], "b/c": "x" }), more] {
            assert_eq!(exact.differs(Ok(&same), &[]), None, "{same}");
        }
        for (other, says) in [
            (json!({ "a": [1, 0.6], "b/c": "x" }), "its answer: at `/a/1` found 0.6, wanted 0.5"),
            (json!({ "a": [2, 0.5], "b/c": "x" }), "at `/a/0` found 2, wanted 1"),
            (json!({ "a": [1], "b/c": "x" }), "at `/a` found a list of 1, wanted a list of 2"),
            (json!({ "a": [1, 0.5], "b/c": "y" }), "at `/b~1c` found the text \"y\", wanted the text \"x\""),
            (json!({ "a": [1, 0.5] }), "at `/` the key `b/c` is missing"),
            (json!(null), "found null, wanted an object"),
        ] {
            let why = exact.differs(Ok(&other), &[]).unwrap_or_else(|| panic!("{other}"));
            assert!(why.contains(says), "{why}");
        }
        assert_eq!(case(r#", "tolerance": 0.1"#, "[10, 0.5]").differs(Ok(&json!([11, 0.59])), &[]), None);
        assert!(case(r#", "tolerance": 0"#, "0.5").differs(Ok(&json!(0.500_000_000_1)), &[]).is_some());

        let fault = |code: Code| Fault::new(code, "no such thing");
        assert!(exact.differs(Err(&fault(Code::RecipeFailed)), &[]).unwrap().contains("it ended as `recipe_failed` and wanted an answer"));
        let own = read(&[INPUT, ("fault.json", r#"{"code": "empty_text"}"#)]).unwrap();
        assert_eq!(own.differs(Err(&fault(Code::RecipeFailed).with("code", "empty_text")), &[]), None);
        assert!(own.differs(Err(&fault(Code::InvalidInput).with("code", "empty_text")), &[]).unwrap().contains("wanted `empty_text`"));
        assert!(own.differs(Ok(&json!(1)), &[]).unwrap().contains("it gave an answer"));
        let streams = read(&[INPUT, ("output.json", "1"), ("chunks.json", "[1, 2]")]).unwrap();
        assert_eq!(streams.differs(Ok(&json!(1)), &[json!(1), json!(2)]), None);
        assert!(streams.differs(Ok(&json!(1)), &[json!(1)]).unwrap().contains("its chunks: at `/` found a list of 1"));
    }

    #[test]
    fn a_case_that_says_nothing_or_too_much_is_none() {
        for (files, file, says) in [
            (&[][..], "input.json", "is missing"),
            (&[INPUT], "output.json", "is missing, and so is"),
            (
                &[("input.json", r#"{"operation": "run", "input": 1, "blob": {}}"#), ("output.json", "1")],
                "input.json",
                "unknown field `blob`",
            ),
            (
                &[("input.json", r#"{"operation": "run", "input": 1, "blobs": {"a": "../x"}}"#), ("output.json", "1")],
                "input.json",
                "`../x`",
            ),
            (&[("input.json", r#"{"operation": "run", "input": 1, "tolerance": 2}"#), ("output.json", "1")], "input.json", "`tolerance`"),
            (&[INPUT, ("output.json", "1"), ("fault.json", "{}")], "fault.json", "beside `output.json`"),
            (&[INPUT, ("output.json", "1"), ("chunks.json", "{}")], "chunks.json", "wanted a list of all chunks"),
            (&[INPUT, ("fault.json", r#"{"code": "Not A Word"}"#)], "fault.json", "`Not A Word`"),
            (&[INPUT, ("output.json", "{")], "output.json", "is not usable"),
        ] {
            let wrong = read(files).unwrap_err();
            assert!(wrong.file == file && wrong.why.contains(says), "{wrong:?}");
        }
    }
}
