//! Cuts a list of documents into asks, and collects the results. It maps text to text, and imports nothing of
//! the host.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

/// Most documents in one ask, and bytes of their JSON beyond which no further document is added: about one
/// run of the model, half a second of a busy core.
const ASK_DOCUMENTS: usize = 32;
const ASK_BYTES: usize = 10_000;

/// How often one call starts again because its pod was replaced.
const LIVES_MAX: u32 = 5;

/// Why the call fails: a code and a sentence for the fault, and the next step.
pub struct Wrong {
    pub code: &'static str,
    pub message: String,
    pub hint: &'static str,
}

impl Wrong {
    pub fn new(code: &'static str, message: String) -> Wrong {
        Wrong { code, message, hint: "" }
    }
}

/// The caller's input, which the host checked against the schema.
#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    documents: Vec<&'a RawValue>,
}

/// The part of a document that is read here.
#[derive(Deserialize)]
struct Named {
    id: String,
}

/// The pod's answer to one ask.
#[derive(Deserialize)]
struct Answer {
    #[serde(flatten)]
    counts: Counts,
    documents: u64,
    life: String,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize)]
struct Counts {
    added: u64,
    replaced: u64,
    unchanged: u64,
}

/// The documents of one ask, and the counts of its first answer.
struct Ask<'a> {
    documents: Vec<&'a RawValue>,
    before: usize,
    counts: Option<Counts>,
}

/// One `add` in progress.
pub struct Adding<'a> {
    asks: Vec<Ask<'a>>,
    total: usize,
    at: usize,
    life: Option<String>,
    lives: u32,
    documents: u64,
}

impl<'a> Adding<'a> {
    /// Reads the caller's input.
    ///
    /// Errors: `invalid_input` if an id is there twice, because it is unknown which of both is meant.
    pub fn read(input: &'a str) -> Result<Adding<'a>, Wrong> {
        let wrong = |error: serde_json::Error| Wrong::new("invalid_input", format!("the input: {error}"));
        let input: Input<'a> = serde_json::from_str(input).map_err(wrong)?;
        let (total, mut ids, mut asks, mut bytes) = (input.documents.len(), BTreeSet::new(), Vec::<Ask<'a>>::new(), 0);
        for (index, document) in input.documents.into_iter().enumerate() {
            let Named { id } = serde_json::from_str(document.get()).map_err(wrong)?;
            if let Some(id) = ids.replace(id) {
                let message = format!("the id `{id}` is there twice: wanted each document once, found it again at documents[{index}]");
                return Err(Wrong { code: "invalid_input", message, hint: "leave one of them out, or give it an id of its own" });
            }
            let length = document.get().len();
            match asks.last_mut() {
                Some(ask) if ask.documents.len() < ASK_DOCUMENTS && bytes + length <= ASK_BYTES => {
                    ask.documents.push(document);
                    bytes += length;
                }
                _ => {
                    asks.push(Ask { documents: vec![document], before: index, counts: None });
                    bytes = length;
                }
            }
        }
        Ok(Adding { asks, total, at: 0, life: None, lives: 0, documents: 0 })
    }

    /// The arguments of the next ask; `None` if all are answered.
    pub fn arguments(&self) -> Option<String> {
        let ask = self.asks.get(self.at)?;
        // The documents are passed on as they were written.
        let documents = ask.documents.iter().map(|document| document.get()).collect::<Vec<_>>().join(",");
        Some(format!(r#"{{"documents":[{documents}],"before":{},"total":{}}}"#, ask.before, self.total))
    }

    /// Takes the pod's answer to that ask.
    ///
    /// A pod that replaces a dead one begins with the last checkpoint, which may lack documents of earlier
    /// asks of this call. So if the pod is another one, all asks are sent again: documents that are there
    /// already cost nothing.
    pub fn take(&mut self, answer: &str) -> Result<(), Wrong> {
        let answer: Answer =
            serde_json::from_str(answer).map_err(|error| Wrong::new("unexpected_answer", format!("the pod's answer: {error}")))?;
        self.asks[self.at].counts.get_or_insert(answer.counts);
        self.documents = answer.documents;
        let other = self.life.as_ref().is_some_and(|life| *life != answer.life);
        self.life = Some(answer.life);
        if !other {
            self.at += 1;
            return Ok(());
        }
        self.lives += 1;
        if self.lives > LIVES_MAX {
            let message = format!("the pod was replaced {} times while {} documents were added", self.lives, self.total);
            return Err(Wrong { code: "pod_replaced", message, hint: "`hob logs` shows how its pods ended; then add them again" });
        }
        self.at = 0;
        Ok(())
    }

    /// The caller's output.
    pub fn output(&self) -> String {
        let mut sum = Counts::default();
        for counts in self.asks.iter().filter_map(|ask| ask.counts) {
            sum.added += counts.added;
            sum.replaced += counts.replaced;
            sum.unchanged += counts.unchanged;
        }
        let mut output = json!(sum);
        output["documents"] = Value::from(self.documents);
        output.to_string()
    }
}
