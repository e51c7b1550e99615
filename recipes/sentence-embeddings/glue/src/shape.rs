//! Maps the caller's JSON to the pod's, and the pod's to the caller's.
//!
//! It maps text to text. Vectors are never parsed into numbers: 384 of them are 4 KB of text, and the slice
//! that the pod wrote is passed on unchanged.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Numbers in a vector.
const DIMENSIONS: usize = 384;

/// The model that this recipe runs.
const MODEL: &str = "all-MiniLM-L6-v2";

/// Decimals of a similarity, as a factor: as many as the vectors have.
const PRECISION: f64 = 1e7;

/// Why the call fails: a code and a sentence for the fault.
pub struct Wrong {
    pub code: &'static str,
    pub message: String,
}

impl Wrong {
    pub fn new(code: &'static str, message: String) -> Wrong {
        Wrong { code, message }
    }
}

/// The caller's input. The host checked it against the schema, which allows one of `texts` and `text`.
#[derive(Deserialize)]
struct Input {
    texts: Option<Vec<String>>,
    text: Option<String>,
    similarity_to: Option<String>,
}

/// The pod's answer.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    embeddings: Vec<&'a RawValue>,
}

/// The answer to the caller.
#[derive(Serialize)]
struct Output<'a> {
    embeddings: &'a [&'a RawValue],
    model: &'a str,
    dimensions: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    similarities: Option<Vec<f64>>,
}

/// One parsed call.
pub struct Plan {
    /// The texts that the pod embeds: the caller's texts, and last the one to compare with.
    texts: Vec<String>,
    compares: bool,
}

impl Plan {
    /// Reads the caller's input for `operation`.
    pub fn read(operation: &str, input: &str) -> Result<Plan, Wrong> {
        if operation != "embed" {
            return Err(Wrong::new("operation_not_found", format!("this glue has no operation `{operation}` (it has: `embed`)")));
        }
        let input: Input = serde_json::from_str(input).map_err(|error| Wrong::new("invalid_input", format!("the input: {error}")))?;
        let mut texts = input.texts.unwrap_or_default();
        texts.extend(input.text);
        if texts.is_empty() {
            return Err(Wrong::new("invalid_input", "nothing to embed: wanted `texts` or `text`".into()));
        }
        let compares = input.similarity_to.is_some();
        texts.extend(input.similarity_to);
        Ok(Plan { texts, compares })
    }

    /// The pod's arguments.
    pub fn arguments(&self) -> String {
        serde_json::json!({ "texts": self.texts }).to_string()
    }

    /// The caller's output, from the pod's answer.
    pub fn output(&self, answer: &str) -> Result<String, Wrong> {
        let answer: Answer =
            serde_json::from_str(answer).map_err(|error| Wrong::new("unexpected_answer", format!("the pod's answer: {error}")))?;
        if answer.embeddings.len() != self.texts.len() {
            return Err(Wrong::new(
                "unexpected_answer",
                format!("the pod gave {} vectors for {} texts", answer.embeddings.len(), self.texts.len()),
            ));
        }
        let (embeddings, similarities) = match answer.embeddings.split_last() {
            Some((reference, embeddings)) if self.compares => (embeddings, Some(similarities(reference, embeddings)?)),
            _ => (&answer.embeddings[..], None),
        };
        let output = Output { embeddings, model: MODEL, dimensions: DIMENSIONS, similarities };
        serde_json::to_string(&output).map_err(|error| Wrong::new("unexpected_answer", format!("the output: {error}")))
    }
}

/// Cosines: the products of the vectors, which have length 1. Rounding may leave one slightly above 1.
fn similarities(reference: &RawValue, embeddings: &[&RawValue]) -> Result<Vec<f64>, Wrong> {
    let reference = numbers(reference)?;
    let cosine = |vector: &&RawValue| {
        let product: f64 = numbers(vector)?.iter().zip(&reference).map(|(one, other)| one * other).sum();
        Ok((product.clamp(-1.0, 1.0) * PRECISION).round() / PRECISION)
    };
    embeddings.iter().map(cosine).collect()
}

fn numbers(vector: &RawValue) -> Result<Vec<f64>, Wrong> {
    let vector: Vec<f64> =
        serde_json::from_str(vector.get()).map_err(|error| Wrong::new("unexpected_answer", format!("a vector of the pod's: {error}")))?;
    match vector.len() {
        DIMENSIONS => Ok(vector),
        found => Err(Wrong::new("unexpected_answer", format!("the pod gave a vector of {found} numbers, wanted {DIMENSIONS}"))),
    }
}
