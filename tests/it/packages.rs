//! Popular packages, unchanged, inside the sandbox: without any permission, in started and in forked pods.
//!
//! These tests check whether a pod has what packages expect of a system: child processes, shared memory,
//! semaphores, files in /proc and /sys.

mod weights;

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hob::{
    host::{Config, Host, WithinWalls},
    model::{
        Blob, Call, Code, Home, Outcome, Permissions, Silent, progress,
        status::{Class, ZygoteState},
    },
    shelf::environment::{self, Environment, Existing, Wanted, python, requirements::Lock, tools::Tools, uv},
};
use semver::VersionReq;
use serde_json::{Value, json};

/// How long the imports of a zygote and its canary may take, in seconds, on a machine that is busy with other
/// tests.
const ZYGOTE_S: u64 = 120;

/// Building environments takes long: the tests of a checkout share them, and the next run reuses them.
async fn host() -> Host {
    Host::open(Config::new(Home::at(Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages-home"))).with_hob(env!("CARGO_BIN_EXE_hob")))
        .await
        .unwrap()
}

fn to(recipe: &Path, operation: &str, input: Value) -> Call {
    Call::new(&recipe.display().to_string(), operation, input).unwrap()
}

/// Makes a call in a separate pod, which must be fully confined; returns the output, and whether the pod was
/// forked.
async fn alone(host: &Host, call: Call) -> (Value, bool) {
    let before: Vec<String> = host.pods().into_iter().map(|pod| pod.incarnation).collect();
    let running = host.start(call.one_shot());
    let outcome = running.outcome();
    tokio::pin!(outcome);
    let mut seen = None;
    let done: Outcome = loop {
        tokio::select! {
            done = &mut outcome => break done.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        let new = host.pods().into_iter().find(|pod| !before.contains(&pod.incarnation) && pod.sandbox.is_some());
        seen = seen.or(new.map(|pod| (pod.sandbox.unwrap(), pod.forked)));
    };
    let (sandbox, forked) = seen.expect("a pod is there for longer than a look at it takes");
    assert_eq!((sandbox.class, sandbox.missing), (Class::Full, Vec::new()));
    (done.output.into_value(), forked)
}

/// Waits for the zygote of a recipe that was called before; panics with the reason if there can be none.
async fn zygote(host: &Host) {
    for _ in 0..ZYGOTE_S * 20 {
        match host.status().zygotes.into_iter().next() {
            Some(zygote) if zygote.state == ZygoteState::Ready => return,
            Some(zygote) if zygote.state == ZygoteState::Unforkable => panic!("{:?}", zygote.why),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("no zygote within {ZYGOTE_S} s: {:?}", host.status().zygotes);
}

/// Makes each call in a started pod, then each in a forked one; returns the outputs of both.
async fn started_and_forked(host: &Host, recipe: &str, calls: impl Fn(&Path) -> Vec<Call>) -> [Vec<Value>; 2] {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes").join(recipe);
    let (place, mut outputs) = (tempfile::tempdir().unwrap(), [Vec::new(), Vec::new()]);
    for call in calls(&without_preload(&recipe, place.path())) {
        let (output, forked) = alone(host, call).await;
        assert!(!forked);
        outputs[0].push(output);
    }
    let calls = calls(&recipe);
    // This call starts a zygote, and does not wait for it.
    host.call(calls[0].clone()).await.unwrap();
    zygote(host).await;
    for call in calls {
        let (output, forked) = alone(host, call).await;
        assert!(forked);
        outputs[1].push(output);
    }
    outputs
}

/// A copy of a recipe whose pods are never forked; without it, timing decides whether they are forked.
fn without_preload(recipe: &Path, place: &Path) -> PathBuf {
    let manifest = std::fs::read_to_string(recipe.join("recipe.toml")).unwrap();
    let kept: Vec<&str> = manifest.lines().filter(|line| !line.starts_with("preload = ")).collect();
    assert_eq!(kept.len() + 1, manifest.lines().count());
    std::fs::write(place.join("recipe.toml"), kept.join("\n")).unwrap();
    std::fs::create_dir(place.join("pod")).unwrap();
    for file in std::fs::read_dir(recipe.join("pod")).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        std::fs::copy(&file, place.join("pod").join(file.file_name().unwrap())).unwrap();
    }
    place.to_owned()
}

#[tokio::test]
async fn scikit_learn_and_multiprocessing_run_as_they_are() {
    let host = host().await;
    let mut outputs = started_and_forked(&host, "forest", |recipe| {
        let ways = ["fork", "spawn", "forkserver"].map(|way| to(recipe, "share", json!({ "way": way })));
        ways.into_iter().chain([to(recipe, "learn", json!({}))]).collect()
    })
    .await;
    for outputs in &mut outputs {
        let squares: Vec<u32> = (0..10).map(|number| number * number).collect();
        for shared in &outputs[..3] {
            assert_eq!(*shared, json!({"squares": squares, "counted": 400, "told": [0, 0, 1, 1, 2, 2], "summed": 999_000.0}));
        }
        let learnt = &mut outputs[3];
        assert!(learnt["right"].as_u64().unwrap() > 420, "{learnt}");
        // On a busy machine one of the two workers may have done everything before the other started.
        let workers = learnt.as_object_mut().unwrap().remove("workers").unwrap();
        assert!((1..=2).contains(&workers.as_u64().unwrap()), "joblib computed in {workers} processes");
    }
    assert_eq!(outputs[0], outputs[1]);
    host.shutdown().await;
}

#[tokio::test]
async fn psutil_sees_a_process_and_its_children_as_on_any_machine() {
    let host = host().await;
    let outputs = started_and_forked(&host, "watch", |recipe| vec![to(recipe, "look", json!({}))]).await;
    for (how, outputs) in ["started", "forked"].into_iter().zip(outputs) {
        assert_eq!(outputs[0]["wrong"], json!({}), "{how}");
        assert_eq!(outputs[0]["right"].as_array().unwrap().len(), 21, "{how}: {outputs:?}");
    }
    host.shutdown().await;
}

/// The rows of docs/values.md for values of packages: the expression, and its JSON.
fn rows() -> Vec<(&'static str, &'static str)> {
    let cells = |line: &'static str| Some(line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect::<Vec<_>>());
    let row = |line| match cells(line)?[..] {
        [_, expression, becomes] => Some((expression.strip_prefix('`')?.strip_suffix('`')?, becomes)),
        _ => None,
    };
    let is_of_a_package = |(expression, _): &(&str, &str)| {
        ["numpy.", "pandas.", "polars.", "pyarrow.", "Found("].iter().any(|package| expression.contains(package))
    };
    include_str!("../../docs/values.md").lines().filter_map(row).filter(is_of_a_package).collect()
}

#[tokio::test]
async fn values_of_numpy_pandas_polars_pyarrow_and_pydantic_become_what_the_page_says() {
    let host = host().await;
    let (good, faults): (Vec<_>, Vec<_>) = rows().into_iter().partition(|(_, becomes)| becomes.starts_with('`'));
    assert!(good.len() >= 9 && faults.len() >= 8, "{good:?} {faults:?}");
    let expressions: Vec<&str> = good.iter().map(|(expression, _)| *expression).collect();
    let wanted: Vec<Value> = good.iter().map(|(_, becomes)| serde_json::from_str(becomes.trim_matches('`')).unwrap()).collect();
    // The second pod is forked, although pyarrow does much at its import.
    for outputs in started_and_forked(&host, "rich", |recipe| vec![to(recipe, "give", json!(expressions))]).await {
        let Value::Array(found) = &outputs[0] else { panic!("{outputs:?}") };
        for ((expression, found), wanted) in expressions.iter().zip(found).zip(&wanted) {
            // Compared as text, because another order of keys counts as another value.
            assert_eq!(found.to_string(), wanted.to_string(), "{expression}");
        }
        assert_eq!(found.len(), wanted.len());
    }
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes/rich");
    for (expression, becomes) in faults {
        let fault = host.call(to(&recipe, "give", json!([expression]))).await.unwrap_err();
        assert_eq!(fault.code, Code::InvalidOutput, "{expression}: {fault:?}");
        let (hint, says) = (fault.hint.unwrap(), becomes.strip_prefix("fault: ").unwrap().trim_matches('`'));
        assert!(hint.contains(says), "{expression}: `{says}` is not in `{hint}`");
    }
    host.shutdown().await;
}

const SAID: &str = "the weather is fine today and we are going to the park";

#[tokio::test]
async fn pocketsphinx_hears_what_was_said() {
    let (host, spoken) = (host().await, speech().await);
    let [started, forked] = started_and_forked(&host, "speech", |recipe| {
        let mut calls = vec![to(recipe, "pronounce", json!({"word": "hello"}))];
        if let Some(audio) = &spoken {
            let blob = Blob::new("audio", "audio/wav", audio.clone());
            calls.push(to(recipe, "listen", json!({})).with_blobs(vec![blob]));
        }
        calls
    })
    .await;
    assert_eq!(started, forked);
    assert_eq!(started[0], json!({"phones": "HH AH L OW"}));
    if spoken.is_some() {
        let text = started[1]["text"].as_str().unwrap();
        let missed: Vec<&str> = SAID.split(' ').filter(|word| !text.split(' ').any(|heard| heard == *word)).collect();
        assert!(missed.len() <= 2, "heard `{text}`, missed {missed:?}");
    }
    host.shutdown().await;
}

/// The environment of torch, made as a host makes it. It is the only one in its home: an environment of an
/// older lock is deleted first.
///
/// `uv` links its files out of the cache instead of copying, and then the cache is deleted: the 6 GB never
/// take their space twice.
async fn environment_of_torch(home: &Home, uv: &Path, lock: &[u8], range: &VersionReq) -> Environment {
    let (progress, place): (progress::Shared, _) = (Arc::new(Silent), tempfile::tempdir().unwrap());
    let linking = place.path().join("uv");
    std::fs::write(&linking, format!("#!/bin/sh\nUV_LINK_MODE=hardlink exec '{}' \"$@\"\n", uv.display())).unwrap();
    std::fs::set_permissions(&linking, PermissionsExt::from_mode(0o755)).unwrap();
    let python = python::find(range, None).await.unwrap();
    let found = uv::find(home, &Tools::default().with_uv(linking.clone()), &python, &progress).await.unwrap();
    let digest = environment::digest(&Lock::parse(lock, "requirements.lock").unwrap(), &python, &found);
    for older in environment::all(home).unwrap().into_iter().filter(|other| *other != digest) {
        assert!(environment::remove(home, older).unwrap(), "{older} is in use");
    }
    let what = "recipes/text-generation/pod/requirements.lock";
    let compiler = WithinWalls::of(home, Arc::default()).unwrap();
    let wanted =
        Wanted { lock, what, python: &python, existing: Existing::Trust, indexes: &[], label: "test/generate", compiler: &compiler };
    let tools = Tools::default().with_uv(linking);
    let made = environment::ensure(home, &tools, &wanted, &progress).await.unwrap_or_else(|fault| panic!("{fault}: {:?}", fault.detail));
    match std::fs::remove_dir_all(home.uv_cache()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{}: {error}", home.uv_cache().display()),
        _ => made,
    }
}

/// Needs an environment of 6 GB, so only `make test-torch` runs it. HOB_TEST_TORCH names the home in which to
/// make it; the file `python` there then names its interpreter, for other tests that need torch.
#[tokio::test]
async fn torch_and_transformers_run_as_they_are() {
    let Some(root) = std::env::var_os("HOB_TEST_TORCH").map(PathBuf::from) else {
        println!("SKIPPED: torch is large; `make test-torch` runs this");
        return;
    };
    let (home, tests) = (Home::at(&root), Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"));
    let lock = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/text-generation/pod/requirements.lock")).unwrap();
    let (_, uv) = crate::cli::rig::tools();
    let made = environment_of_torch(&home, uv, &lock, &">=3.11, <3.15".parse().unwrap()).await;
    std::fs::write(root.join("python"), made.python.as_os_str().as_encoded_bytes()).unwrap();
    std::fs::write(root.join("uv"), uv.as_os_str().as_encoded_bytes()).unwrap();

    let place = tempfile::tempdir().unwrap();
    let (model, forked) = (place.path().join("model"), place.path().join("forked"));
    let maker = tests.join("recipes/generate/make_model.py");
    let status = std::process::Command::new(&made.python).arg("-B").arg(maker).arg(&model).status().unwrap();
    assert!(status.success(), "the model: {status}");
    let tools = Tools::default().with_uv(uv.clone());
    let host = Host::open(Config::new(home.clone()).with_hob(env!("CARGO_BIN_EXE_hob")).with_tools(tools)).await.unwrap();
    std::fs::create_dir_all(forked.join("pod")).unwrap();
    for file in ["recipe.toml", "pod/generate.py"] {
        let text = std::fs::read_to_string(tests.join("recipes/generate").join(file)).unwrap();
        std::fs::write(forked.join(file), text.replace("\"MODEL\"", &format!("{model:?}"))).unwrap();
    }
    std::fs::write(forked.join("pod/requirements.lock"), &lock).unwrap();
    let started = place.path().join("started");
    std::fs::create_dir(&started).unwrap();
    let started = without_preload(&forked, &started);
    let mut outputs = Vec::new();
    for recipe in [&started, &forked] {
        // The recipe's only permission: the model's folder.
        let mut permissions = Permissions::default();
        permissions.add("read", model.to_str().unwrap()).unwrap();
        host.grant(&recipe.display().to_string().parse().unwrap(), permissions, false).await.unwrap();
        if recipe == &forked {
            // This call starts a zygote.
            host.call(to(recipe, "load_rows", json!({}))).await.unwrap();
            zygote(&host).await;
        }
        for (operation, input) in [("generate", json!({"text": "the cat sat on"})), ("load_rows", json!({}))] {
            let (output, is_forked) = alone(&host, to(recipe, operation, input)).await;
            assert_eq!(is_forked, recipe == &forked);
            outputs.push(output);
        }
    }
    assert_eq!(outputs[0]["tokens"].as_array().unwrap().len(), 4 + 12, "{outputs:?}");
    assert_eq!(outputs[1], json!({"sums": [24.0, 88.0, 152.0, 216.0], "workers": 2}));
    assert_eq!(outputs[..2], outputs[2..]);
    host.shutdown().await;
    assert_eq!(environment::all(&home).unwrap(), [made.digest], "the host used the environment that was there");
}

/// The WAV of a synthetic voice; `None` without flite, whose voices pocketsphinx understands.
async fn speech() -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("said.wav");
    let status = tokio::process::Command::new("flite").args(["-voice", "slt", "-t", SAID, "-o"]).arg(&file).status().await;
    match status {
        Ok(status) => {
            assert!(status.success(), "flite: {status}");
            Some(std::fs::read(file).unwrap())
        }
        Err(error) => {
            println!("SKIPPED: what was said could not be made without flite ({error}); `make setup` installs it");
            None
        }
    }
}
