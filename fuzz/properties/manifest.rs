//! `recipe.toml`: any text is a manifest or an `invalid_manifest` with its line, and no key that Hob does not
//! know ever passes.
//!
//! A manifest that reads is written anew by another TOML library and must read as the same; then a key that
//! nobody knows is put into each of its tables in turn, and each such manifest must be refused. Its schemas
//! are asked about inputs, because that is what they are for.

use hob::model::{Blame, Code, Document, Fault, Manifest, limits, manifest::spec::Runtime};
use toml::{Table, Value};

const UNKNOWN: &str = "zz-unknown";

/// Inputs that a schema must be able to judge, whatever it says.
const INPUTS: &[&str] = &[
    "null",
    "true",
    "-7.25",
    "18446744073709551615",
    "\"\"",
    "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!\"",
    "[]",
    "[1, [2, [3, [4]]], \"x\", \"x\"]",
    "{}",
    "{\"text\": \"hello\", \"texts\": [\"a\", \"b\"], \"a\": {\"a\": {\"a\": {}}}}",
];

pub fn holds(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if text.len() as u64 > limits::MANIFEST_BYTES_MAX {
        return;
    }
    let manifest = match Manifest::parse(text, "recipe.toml") {
        Ok(manifest) => manifest,
        Err(fault) => return refused(&fault, text),
    };
    checked(&manifest);
    used(&manifest);
    // Integers of 64 bits without a sign are none of that library's.
    let Ok(table) = toml::from_str::<Table>(text) else { return };
    let again = toml::to_string(&table).expect("what was read can be written");
    let again = Manifest::parse(&again, "recipe.toml").unwrap_or_else(|fault| panic!("{fault} in\n{again}"));
    assert_eq!(format!("{again:?}"), format!("{manifest:?}"), "another spelling of the same manifest reads as another");
    for place in places(&table) {
        let mut spoilt = table.clone();
        at(&mut spoilt, &place).insert(UNKNOWN.into(), 1.into());
        let text = toml::to_string(&spoilt).expect("what was read can be written");
        let fault = Manifest::parse(&text, "recipe.toml").map(|_| ()).expect_err(&format!("{UNKNOWN} passes in {place:?} of\n{text}"));
        assert!(fault.message.contains(UNKNOWN), "{fault} does not name the unknown key in {place:?}");
    }
}

fn refused(fault: &Fault, text: &str) {
    assert_eq!((fault.code, fault.blame), (Code::InvalidManifest, Blame::Recipe), "{fault}");
    let line = fault.detail["line"].as_u64().unwrap_or_else(|| panic!("no line: {fault}"));
    assert!(line >= 1 && line <= text.matches('\n').count() as u64 + 1, "line {line}: {fault}");
    assert!(fault.message.starts_with(&format!("recipe.toml:{line}:")), "{fault}");
    assert!(fault.hint.is_some(), "no next step: {fault}");
    // Further mistakes, each with its line, and none before the first.
    let findings = fault.detail["findings"].as_array().cloned().unwrap_or_default();
    assert!(findings.len() != 1 && findings.len() <= limits::FINDINGS_MAX, "{} findings: {fault}", findings.len());
    let mut last = line;
    for finding in findings {
        let line = finding["line"].as_u64().unwrap_or_else(|| panic!("no line: {finding}"));
        assert!((last..=text.matches('\n').count() as u64 + 1).contains(&line), "line {line} after {last}: {fault}");
        assert!(finding["message"].as_str().is_some_and(|message| message.starts_with(&format!("recipe.toml:{line}:"))), "{finding}");
        last = line;
    }
}

/// What the host takes for granted of every manifest.
fn checked(manifest: &Manifest) {
    let plain = |path: &str| {
        assert!(
            !path.starts_with('/') && path.split('/').all(|part| !["", ".", ".."].contains(&part)) && !path.contains(['\\', '\0']),
            "{path:?}"
        )
    };
    assert!(manifest.pod.is_some() || manifest.glue.is_some());
    assert!((1..=limits::OPERATIONS_MAX).contains(&manifest.operations().count()));
    for operation in manifest.operations() {
        assert!((1..=limits::DEADLINE_MAX_MS).contains(&operation.deadline_ms));
        if let Some(batch) = &operation.batch {
            assert!(operation.idempotent && !operation.streaming && (2..=limits::BATCH_ITEMS_MAX as usize).contains(&batch.items));
        }
    }
    if let Some(glue) = &manifest.glue {
        plain(&glue.source);
    }
    if let Some(pod) = &manifest.pod {
        match &pod.runtime {
            Runtime::Executable { entry } => plain(entry),
            Runtime::Python { entry, lock, .. } => {
                assert!(!entry.contains(['/', '\\', '\0']) && entry.matches(':').count() == 1, "{entry:?}");
                lock.iter().chain(&pod.warm_up).for_each(|path| plain(path));
            }
        }
        assert!(pod.pool.min <= pod.pool.max && (1..=limits::POOL_PODS_MAX as usize).contains(&pod.pool.max));
        assert!((1..=limits::POD_CONCURRENCY_MAX).contains(&u64::from(pod.concurrency)));
        assert!(pod.env.len() <= limits::POD_VARIABLES_MAX);
        for (name, value) in &pod.env {
            assert!(!name.starts_with("LD_") && !name.starts_with("PYTHON") && !name.contains('='), "{name}");
            // A process cannot be started with it.
            assert!(!value.contains('\0'), "the variable {name} holds a NUL");
        }
    }
    assert!(manifest.models.len() <= limits::MODELS_MAX);
    // All of them can lie in one folder, whatever its file system makes of capitals.
    let mut names: Vec<_> = manifest.models.iter().map(|model| model.name.to_ascii_lowercase() + "/").collect();
    names.sort();
    assert!(names.windows(2).all(|pair| !pair[1].starts_with(&pair[0])), "{names:?}");
    for model in &manifest.models {
        plain(&model.name);
        assert!(!model.name.bytes().any(|byte| byte.is_ascii_control()) && model.name.is_ascii(), "{:?}", model.name);
        assert!(model.name.len() <= limits::MODEL_NAME_BYTES_MAX && model.bytes <= limits::MODEL_BYTES_MAX);
        // It is written into the signed target, and read from there.
        if let Some(source) = &model.from {
            assert_eq!(source.exact().parse().as_ref(), Ok(source));
        }
    }
}

/// A schema judges every input, and says where one is wrong.
fn used(manifest: &Manifest) {
    for operation in manifest.operations() {
        for schema in [&operation.input, &operation.output] {
            for input in INPUTS {
                let document = Document::parse(*input, "input").expect("a document");
                if let Err(fault) = schema.check(&document, "input", Code::InvalidInput) {
                    assert!(fault.detail["violations"][0]["pointer"].is_string(), "{fault}");
                }
            }
            if let Some(cost) = operation.batch.as_ref().and_then(|batch| batch.cost.as_ref()) {
                assert!(cost.cost(schema.source()) >= 1);
            }
        }
    }
}

/// Every table whose keys Hob knows, as a way from the root: neither variables nor names nor what a schema
/// leaves free.
fn places(table: &Table) -> Vec<Vec<String>> {
    let way = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
    let mut places = vec![way(&[])];
    let has = |parent: &Table, name: &str| parent.get(name).and_then(Value::as_table).is_some();
    for name in ["glue", "pod"] {
        if has(table, name) {
            places.push(way(&[name]));
        }
    }
    if table.get("pod").and_then(Value::as_table).is_some_and(|pod| has(pod, "recycle")) {
        places.push(way(&["pod", "recycle"]));
    }
    for (index, _) in table.get("model").and_then(Value::as_array).into_iter().flatten().enumerate() {
        places.push(way(&["model", &index.to_string()]));
    }
    for (name, operation) in table.get("operations").and_then(Value::as_table).into_iter().flatten() {
        places.push(way(&["operations", name]));
        for inner in ["input", "output", "batch"] {
            if operation.as_table().is_some_and(|operation| has(operation, inner)) {
                places.push(way(&["operations", name, inner]));
            }
        }
    }
    // A large manifest has its tables asked for in part: each costs a parse.
    places.truncate(24);
    places
}

fn at<'t>(table: &'t mut Table, way: &[String]) -> &'t mut Table {
    let Some((first, rest)) = way.split_first() else { return table };
    match (table.get_mut(first), rest) {
        (Some(Value::Table(inner)), rest) => at(inner, rest),
        (Some(Value::Array(items)), [index, rest @ ..]) => match items.get_mut(index.parse::<usize>().expect("an index")) {
            Some(Value::Table(inner)) => at(inner, rest),
            _ => panic!("no table {way:?}"),
        },
        _ => panic!("no table {way:?}"),
    }
}
