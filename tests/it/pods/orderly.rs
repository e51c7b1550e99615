//! Orderly ends: the functions that a program registered for its end run when its pod is drained, for every
//! kind of pod, and within a bound.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hob::model::{Code, status::ZygoteState};
use serde_json::{Value, json};

use crate::support::{Rig, call, inner_number, within};

/// Reports its end in a file: by `atexit`, by a log that is buffered until its shutdown, by a thread and an
/// executor that still work.
const BUFFERED: &str = r#"
import atexit, concurrent.futures, gc, logging, logging.handlers, os, threading, time
place = None
class Told(logging.Handler):
    def emit(self, record):
        tell(record.getMessage())
log = logging.getLogger("kept back")
log.setLevel(logging.INFO)
log.addHandler(logging.handlers.MemoryHandler(1000, target=Told()))
def tell(text):
    if place is not None:
        with open(place, "a") as file:
            file.write(text + "\n")
released = threading.Event()
def work():
    released.wait()
    time.sleep(0.05)
    tell("thread")
def release():
    time.sleep(0.05)
    released.set()
    return 1
@atexit.register
def goodbye():
    tell(f"atexit on {threading.current_thread() is threading.main_thread()}")
    raise ValueError("a bad function harms no other")
executor = concurrent.futures.ThreadPoolExecutor(1)
def answer(input):
    global place
    if place is None:
        place = input
        log.info("log")
        threading.Thread(target=work, daemon=False).start()
        executor.submit(release)
    return gc.get_freeze_count() > 0
"#;

const KINDS: &[(&str, &str, &str, &str)] = &[
    ("plain", "", "", "    def run(self, input):\n        return answer(input)\n"),
    ("streaming", "", "streaming = true", "    def run(self, input):\n        yield 1\n        return answer(input)\n"),
    (
        "batch",
        "",
        "idempotent = true\nbatch = { items = 4 }",
        "    def run(self, inputs):\n        return [answer(input) for input in inputs]\n",
    ),
    ("several", "concurrency = 3", "", "    def run(self, input):\n        return answer(input)\n"),
    ("async", "", "", "    async def run(self, input):\n        return answer(input)\n"),
    ("several-async", "concurrency = 3", "", "    async def run(self, input):\n        return answer(input)\n"),
];

fn buffered(rig: &Rig, name: &str, pod: &str, run: &str, method: &str) -> PathBuf {
    rig.pool(name, &format!("{BUFFERED}class Subject:\n{method}"), pod, run)
}

fn assert_ended(place: &Path, what: &str) {
    let text = fs::read_to_string(place).unwrap_or_default();
    let mut lines: Vec<&str> = text.lines().collect();
    // The executor's work ends the thread; both happen before `atexit`, as at the end of any program.
    assert_eq!(lines.first(), Some(&"thread"), "{what}: {text}");
    lines.sort_unstable();
    assert_eq!(lines, ["atexit on True", "log", "thread"], "{what}");
}

#[tokio::test]
async fn a_pod_that_goes_at_its_hosts_end_ends_in_order_whatever_its_kind() {
    let rig = Rig::new().await;
    let mut places = Vec::new();
    for (name, pod, run, method) in KINDS {
        let recipe = buffered(&rig, name, pod, run, method);
        let place = rig.open().join(name);
        let outcome = rig.host.call(call(&recipe, json!(place))).await.unwrap();
        assert_eq!(outcome.output.into_value(), json!(false), "{name}");
        places.push(place);
    }
    rig.close().await;
    for place in places {
        assert_ended(&place, place.file_name().unwrap().to_str().unwrap());
    }
}

#[tokio::test]
async fn a_pod_that_is_replaced_ends_in_order_with_its_last_answer() {
    let rig = Rig::new().await;
    for (name, pod, run, method) in KINDS {
        let recipe = buffered(&rig, name, &format!("recycle = {{ calls = 1 }}\n{pod}"), run, method);
        let place = rig.open().join(name);
        rig.host.call(call(&recipe, json!(place))).await.unwrap();
        within(60, &format!("{name}: the pod is replaced"), || fs::read_to_string(&place).is_ok_and(|text| text.lines().count() == 3))
            .await;
        assert_ended(&place, name);
    }
    rig.close().await;
}

#[tokio::test]
async fn a_forked_pod_ends_in_order() {
    let rig = Rig::new().await;
    let method = "    def run(self, input):\n        return answer(input) if input else False\n";
    let pod = "lock = \"pod/requirements.lock\"\npreload = [\"six\", \"logging.handlers\", \"concurrent.futures\", \"threading\"]\nmax = 2";
    let recipe = buffered(&rig, "forked", pod, "", method);
    fs::write(recipe.join("pod/requirements.lock"), include_str!("../zygotes/requirements.lock")).unwrap();
    rig.host.call(call(&recipe, Value::Null)).await.unwrap();
    let ready = || rig.host.status().zygotes.first().is_some_and(|zygote| zygote.state == ZygoteState::Ready);
    within(60, "pods can be forked", ready).await;
    let place = rig.open().join("forked");
    let forked = call(&recipe, json!(place)).one_shot();
    assert_eq!(rig.host.call(forked).await.unwrap().output.into_value(), json!(true));
    within(60, "its pod goes", || fs::read_to_string(&place).is_ok_and(|text| text.lines().count() == 3)).await;
    assert_ended(&place, "forked");
    rig.close().await;
}

#[tokio::test]
async fn a_pod_that_cannot_start_ends_in_order() {
    let rig = Rig::new().await;
    let method = "    def load(self, models):\n        self.place = PLACE\n        answer(self.place)\n        raise ValueError('no')\n    def run(self, input):\n        return 1\n";
    let place = rig.open().join("failing");
    let recipe = buffered(&rig, "failing", "", "", &method.replace("PLACE", &format!("{:?}", place.to_str().unwrap())));
    let fault = rig.host.call(call(&recipe, json!(1))).await.unwrap_err();
    assert_eq!(fault.code, Code::ImportFailed, "{fault:?}");
    within(60, "the pod is gone", || rig.host.pods().is_empty()).await;
    assert_ended(&place, "failing");
    rig.close().await;
}

#[tokio::test]
async fn an_end_that_hangs_is_over_in_its_time_and_harms_nobody() {
    let rig = Rig::new().await;
    let hangs = [
        ("thread", "threading.Thread(target=lambda: time.sleep(600)).start()"),
        ("function", "atexit.register(lambda: time.sleep(600))"),
        ("spins", "atexit.register(lambda: sum(iter(int, 1)))"),
        ("exits", "atexit.register(lambda: sys.exit(3))"),
    ];
    for (name, hang) in hangs {
        let source = format!(
            "import atexit, os, sys, threading, time\nclass Subject:\n    def run(self, input):\n        {hang}\n        \
             open(input, 'w').close()\n        return os.getpid()\n"
        );
        let recipe = rig.pool(name, &source, "recycle = { calls = 1 }", "");
        let place = rig.open().join(name);
        let first = rig.host.call(call(&recipe, json!(place))).await.unwrap().output.into_value();
        assert!(place.exists(), "{name}: it hangs at its end");
        let gone = || rig.host.pods().iter().all(|pod| pod.pid.and_then(inner_number).map(|pid| json!(pid)) != Some(first.clone()));
        within(60, &format!("{name}: the pod is gone"), gone).await;
        assert_ne!(rig.host.call(call(&recipe, json!(place))).await.unwrap().output.into_value(), first, "{name}");
    }
    rig.close().await;
}
