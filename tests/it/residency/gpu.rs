//! Residency on a real GPU: the numbers of `nvidia-smi` and of the driver, and memory that is really freed.
//! Skipped if there is no GPU.
//!
//! The pods call the driver itself (`libcuda` through ctypes), so that no framework is needed.

use std::path::PathBuf;

use hob::model::status::machine::{GpuKind, ResidencyChange};
use hob::pod::ThisMachine;
use serde_json::Value;

use super::*;

/// Holds a gigabyte of the GPU once it is loaded.
const ON_GPU: &str = r#"
import ctypes, os
import hob_pod

class Subject:
    loads = 0

    def load(self, models):
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.do("cuInit", 0)
        device, count = ctypes.c_int(), ctypes.c_int()
        self.do("cuDeviceGetCount", ctypes.byref(count))
        self.count = count.value
        self.do("cuDeviceGet", ctypes.byref(device), 0)
        self.device = device.value
        context, self.memory = ctypes.c_void_p(), ctypes.c_uint64()
        self.do("cuDevicePrimaryCtxRetain", ctypes.byref(context), self.device)
        self.do("cuCtxSetCurrent", context)
        self.do("cuMemAlloc_v2", ctypes.byref(self.memory), ctypes.c_size_t(1 << 30))
        self.loads += 1

    def do(self, name, *arguments):
        code = getattr(self.cuda, name)(*arguments)
        if code == 2:
            raise MemoryError(f"{name}: CUDA out of memory")
        assert code == 0, (name, code)

    UNLOAD

    def run(self, input):
        return {"pid": os.getpid(), "loads": self.loads, "gpu": hob_pod.gpu(), "count": self.count}
"#;

/// Frees all of it, the context too.
const RELEASES: &str = "def unload(self):\n        self.do(\"cuMemFree_v2\", self.memory)\n        \
                        self.do(\"cuDevicePrimaryCtxRelease_v2\", self.device)";
/// The context keeps some hundreds of megabytes, and here everything stays.
const KEEPS: &str = "def unload(self):\n        pass";

fn on_gpu(rig: &Rig, name: &str, unload: &str) -> PathBuf {
    let folder = rig.pool(name, &ON_GPU.replace("UNLOAD", unload), "residency = { gpu_bytes = 2147483648 }", "deadline_ms = 60000");
    let manifest = folder.join("recipe.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("[permissions]\n", "[permissions]\ndevices = [\"gpu\"]\n")).unwrap();
    let hob_toml = rig.folder.path().join("home/hob.toml");
    let text = std::fs::read_to_string(&hob_toml).unwrap();
    let head = format!("[grants.\"{}\"]\n", folder.display());
    // If the machine has no namespaces, the operator allows reduced confinement, as on any machine.
    std::fs::write(&hob_toml, text.replace(&head, &format!("{head}devices = [\"gpu\"]\nreduced = true\n"))).unwrap();
    folder
}

#[tokio::test]
async fn on_a_real_gpu_one_model_at_a_time_and_its_memory_comes_back() {
    let machine = ThisMachine::default();
    let Some(gpu) = machine.gpus().into_iter().find(|gpu| gpu.kind == GpuKind::Nvidia && gpu.bytes > 4 * GB) else {
        println!("SKIPPED: there is no GPU of NVIDIA with 4 GB");
        return;
    };
    println!("{}: {} of {} MB in use", gpu.name, gpu.used_bytes >> 20, gpu.bytes >> 20);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("home")).unwrap();
    std::fs::write(folder.path().join("home/hob.toml"), "[machine]\nexclusive_gpus = true\n").unwrap();
    let host = Host::open(Config::new(Home::at(folder.path().join("home"))).with_hob(env!("CARGO_BIN_EXE_hob"))).await.unwrap();
    let rig = Rig { folder, host };
    let releases = on_gpu(&rig, "releases", RELEASES);
    let keeps = on_gpu(&rig, "keeps", KEEPS);
    let without = on_gpu(&rig, "without", "pass");

    let first = who(&rig, &releases).await;
    assert_eq!((&first["gpu"], &first["count"]), (&Value::from(&*gpu.id), &Value::from(1)), "it sees its own alone");
    let measured = || rig.host.status().machine.residents.iter().map(|resident| resident.gpu_bytes).max().unwrap_or(0);
    within(60, "it was measured", || (GB..2 * GB).contains(&measured())).await;
    println!("measured: {} MB for 1024 MB and a context", measured() >> 20);
    let kept = who(&rig, &keeps).await["pid"].as_u64().unwrap() as u32;
    who(&rig, &without).await;
    assert!(!is_running(kept), "what it kept came back with its end");
    let again = who(&rig, &releases).await;
    assert_eq!((&again["pid"], &again["loads"]), (&first["pid"], &Value::from(2)), "it unloaded, and loaded in the same process");
    let events = rig.host.residency_events();
    never_two_at_once(&events);
    assert!(of(&events, ResidencyChange::Gone).len() >= 3, "{events:#?}");
    for event in &events {
        println!("{:>6} ms {:?} {}", event.at_ms, event.what, event.recipe);
    }
    rig.close().await;
    let used = machine.gpus().into_iter().find(|found| found.id == gpu.id).unwrap().used_bytes;
    assert!(used <= gpu.used_bytes + (64 << 20), "{} MB are still in use", used >> 20);
}
