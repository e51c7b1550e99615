//! Apps that embed the crate: their own types, names of recipes, limits, and unsuitable runtimes.
//!
//! These tests use only the crate's root, as an app does.

use std::{
    future::Future,
    task::{Context, Waker},
    time::Duration,
};

use hob::{Blame, Call, Code, Config, Door, Fault, Home, Host, Limits, Outcome};
use serde::{Deserialize, Serialize};

use crate::support::{Rig, recipe_at};

mod serving;

#[derive(Serialize)]
struct Words<'a> {
    words: &'a [&'a str],
    factor: f64,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Lengths {
    lengths: Vec<f64>,
}

const MEASURES: &str =
    "class Subject:\n    def run(self, input):\n        return {'lengths': [len(word) * input['factor'] for word in input['words']]}\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_apps_types_go_in_and_come_out_and_what_does_not_fit_is_said() {
    let rig = Rig::new().await;
    let recipe = rig.python("measures", MEASURES, false);
    let recipe = recipe.to_str().unwrap();
    let words = Words { words: &["one", "three"], factor: 0.5 };
    let call = Call::new(recipe, "run", &words).unwrap();
    assert_eq!(rig.host.call_typed::<Lengths>(call.clone()).await.unwrap(), Lengths { lengths: vec![1.5, 2.5] });
    let outcome = rig.host.call(call.clone()).await.unwrap();
    assert!(outcome.took() > Duration::ZERO && outcome.read::<Lengths>().unwrap().lengths.len() == 2);

    let fault = rig.host.call_typed::<Vec<String>>(call).await.unwrap_err();
    assert_eq!((fault.code, fault.blame), (Code::Usage, Blame::Caller));
    assert!(fault.message.contains("the output of `test/measures` 0.1.0 is not a `") && fault.message.contains("Vec"), "{fault}");
    let fault = Call::new(recipe, "run", Words { words: &[], factor: f64::NAN }).unwrap_err();
    assert_eq!((fault.code, fault.blame), (Code::InvalidJson, Blame::Caller));
    assert!(fault.message.contains("/factor"), "{fault}");
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_names_what_provides_a_capability_as_on_the_command_line() {
    let rig = Rig::new().await;
    let folder = rig.python("provides", "class Subject:\n    def run(self, input):\n        return 1\n", false);
    let manifest = std::fs::read_to_string(folder.join("recipe.toml")).unwrap();
    std::fs::write(folder.join("recipe.toml"), format!("capability = \"ones@1\"\n{manifest}")).unwrap();
    let call = || Call::new("ones@1", "run", ()).unwrap();
    let fault = rig.host.call(call()).await.unwrap_err();
    assert!(fault.code == Code::RecipeNotFound && fault.message.contains("ones@1"), "{fault}");
    let name = rig.install(&folder).await;
    assert_eq!(rig.host.call(call()).await.unwrap().recipe, name.to_string());
    // A parameter that takes a recipe takes a capability too.
    let word = "ones@1".parse().unwrap();
    assert_eq!(rig.host.show(&word).await.unwrap().name, name);
    assert_eq!(rig.host.granted(&word).await.unwrap().recipe, name.to_string());
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_has_more_time_than_the_apps_limits_say() {
    let folder = tempfile::tempdir().unwrap();
    let slow = "import time\nclass Subject:\n    def run(self, input):\n        time.sleep(input)\n        return input\n";
    let recipe = recipe_at(folder.path(), "slow", slow, "", "");
    let config = Config::new(Home::at(folder.path().join("home")));
    let host = Host::open(config.with_limits(Limits::default().with_deadline(Duration::from_millis(2_500)))).await.unwrap();
    let call = |seconds: u32| Call::new(recipe.to_str().unwrap(), "run", seconds).unwrap();
    for long in [call(600), call(600).with_deadline(Duration::from_secs(300))] {
        let fault = host.call(long).await.unwrap_err();
        assert_eq!(fault.code, Code::Deadline, "{fault}");
    }
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_within_which_nothing_runs_are_refused_and_what_they_cost_is_said_to_be_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let config = || Config::new(Home::at(folder.path().join("home")));
    for (limits, name) in [
        (Limits::default().with_deadline(Duration::ZERO), "Limits::with_deadline"),
        (Limits::default().with_deadline(Duration::from_micros(999)), "Limits::with_deadline"),
        (Limits::default().with_memory(0), "Limits::with_memory"),
        (Limits::default().with_gpu_memory(0), "Limits::with_gpu_memory"),
        (Limits::default().with_waiting_events(0), "Limits::with_waiting_events"),
    ] {
        refused(&Host::open(config().with_limits(limits)).await.err().unwrap(), &[name, "wanted at least 1 "]);
    }
    // Settings of the app replace those of the operator's files and of the recipe.
    let recipe = recipe_at(
        folder.path(),
        "large",
        "import time\nclass Subject:\n    def run(self, input):\n        time.sleep(600)\n",
        "[pod.residency]\nmemory_bytes = 2_000_000_000",
        "",
    );
    let call = || Call::new(recipe.to_str().unwrap(), "run", ()).unwrap();
    let host = Host::open(config().with_limits(Limits::default().with_memory(1_000_000_000))).await.unwrap();
    let fault = host.call(call()).await.unwrap_err();
    host.shutdown().await;
    assert_eq!(fault.code, Code::OutOfMemory, "{fault}");
    let hint = |fault: &Fault, door: Door| fault.clone().worded(door).hint.unwrap().to_string();
    assert!(hint(&fault, Door::Crate).starts_with("`Limits::with_memory` says what pods may have"), "{fault:?}");
    assert!(hint(&fault, Door::Http).starts_with("the app's `Limits::with_memory` says"), "{fault:?}");
    let host = Host::open(config().with_limits(Limits::default().with_deadline(Duration::from_millis(1_500)))).await.unwrap();
    let fault = host.call(call()).await.unwrap_err();
    let of_the_call = host.call(call().with_deadline(Duration::from_millis(200))).await.unwrap_err();
    host.shutdown().await;
    assert_eq!((fault.code, of_the_call.code), (Code::Deadline, Code::Deadline), "{fault}");
    assert!(hint(&fault, Door::Crate).contains("`Limits::with_deadline` says so"), "{fault:?}");
    assert!(hint(&of_the_call, Door::Crate).contains("`Call::with_deadline`"), "{of_the_call:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_may_say_as_long_as_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe_at(folder.path(), "quick", "class Subject:\n    def run(self, input):\n        return input\n", "", "");
    let config = Config::new(Home::at(folder.path().join("home")));
    let limits = Limits::default().with_deadline(Duration::MAX).with_drain(Duration::MAX);
    let host = Host::open(config.with_limits(limits)).await.unwrap();
    let call = Call::new(recipe.to_str().unwrap(), "run", 1).unwrap().with_deadline(Duration::MAX);
    assert_eq!(host.call_typed::<u32>(call).await.unwrap(), 1);
    host.shutdown().await;
}

/// Polls a future once, as an executor without tokio does.
fn polled_without_tokio<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits for what never comes"),
    }
}

fn refused(fault: &Fault, parts: &[&str]) {
    assert_eq!((fault.code, fault.blame), (Code::Usage, Blame::Caller), "{fault}");
    let told = format!("{} {}", fault.message, fault.hint.clone().unwrap_or_default());
    assert!(parts.iter().all(|part| told.contains(part)), "{told}");
}

#[test]
fn outside_of_a_runtime_or_in_one_without_timers_or_io_a_host_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let config = || Config::new(Home::at(folder.path().join("home")));
    refused(&polled_without_tokio(Host::open(config())).err().unwrap(), &["tokio runtime", "#[tokio::main]"]);
    let builder = tokio::runtime::Builder::new_current_thread;
    for (runtime, lack) in [
        (builder().build(), "timers (`enable_time`)"),
        (builder().enable_io().build(), "timers (`enable_time`)"),
        (builder().enable_time().build(), "IO (`enable_io`)"),
    ] {
        refused(&runtime.unwrap().block_on(Host::open(config())).err().unwrap(), &[lack, "enable_all()"]);
    }
}

#[test]
fn a_call_is_started_on_any_thread_and_waits_in_the_hosts_own_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe_at(folder.path(), "measures", MEASURES, "", "");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let host = runtime.block_on(Host::open(Config::new(Home::at(folder.path().join("home"))))).unwrap();
    let call = || Call::new(recipe.to_str().unwrap(), "run", Words { words: &["one"], factor: 1.0 }).unwrap();
    // This thread is outside of the runtime.
    refused(&polled_without_tokio(host.call(call())).unwrap_err(), &["outside of any"]);
    refused(&polled_without_tokio(host.verify(None)).unwrap_err(), &["outside of any"]);
    let running = host.start(call());
    let outcome: Outcome = runtime.block_on(running.outcome()).unwrap();
    assert_eq!(outcome.read::<Lengths>().unwrap(), Lengths { lengths: vec![3.0] });
    runtime.block_on(host.shutdown());
}
