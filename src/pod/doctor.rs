//! Finds out what this machine can do for pods, by a trial without a pod.
//!
//! A small Python program (`hob_pod/doctor.py`) confines processes of its own as a pod is confined, and
//! reports which layers hold. `sandbox/plan.rs` makes its plan as it makes those of pods.

use crate::pod::spec;
use std::{path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use crate::{
    disk::{make, threads::blocking},
    model::{
        Code, Fault, act, hint,
        limits::{DOCTOR_ANSWER_BYTES_MAX, DOCTOR_TRIAL_MS, KERNEL_TEXT_BYTES_MAX},
        status::doctor::{Bounds, Machine, Trial},
    },
    pod::{
        process::vitals,
        sandbox::{cgroup::cgroups, devices::Gpu, plan, variables::OUTSIDE},
        spec::Program,
    },
};

/// The settings that decide whether a user may make namespaces, as `sysctl` names them.
const SETTINGS: &[&str] = &["user.max_user_namespaces", "kernel.unprivileged_userns_clone", "kernel.apparmor_restrict_unprivileged_userns"];

/// The files that container engines put into their containers.
const CONTAINER_MARKS: &[&str] = &["/.dockerenv", "/run/.containerenv"];

/// Tries each layer of the sandbox and the whole. `folder`: an empty one, used for nothing else; `python`:
/// any interpreter.
///
/// Errors: `io`; `sandbox_unavailable` if there is nothing to try, or the trial itself fails.
pub async fn examine(program: &Program, keeper: &Path, folder: &Path, without: &[String]) -> Result<Trial, Fault> {
    let io = |error: std::io::Error| Fault::io("trying the sandbox", &error);
    let (of, runner, place, lacking) = (program.clone(), keeper.to_owned(), folder.to_owned(), without.to_vec());
    let plan = blocking(move || {
        let plan = plan::trial_plan(&of, &runner, &place, &lacking)?;
        // The file that a pod must not be able to read must exist for the trial too.
        make::write(&spec::path_of(&place), b"nobody within reads this\n", make::PRIVATE_FILE).map_err(io)?;
        Ok(plan)
    })
    .await?;
    let mut command = Command::new(&program.base);
    command.args(["-I", "-S", "-B"]).arg(keeper.with_file_name("doctor.py"));
    let mut child = command
        .env_clear()
        .envs(OUTSIDE)
        .current_dir(folder)
        .process_group(0)
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io)?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(id as i32)));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let told = async {
        if let Some(mut stdin) = stdin {
            // A program that ended before it read all of the plan says why on its standard error.
            let _ = stdin.write_all(&plan).await;
        }
        tokio::join!(start_of(stdout), start_of(stderr))
    };
    let tried = async {
        let (out, err) = told.await;
        child.wait().await.map(|status| (out, err, status))
    };
    let tried = timeout(Duration::from_millis(DOCTOR_TRIAL_MS), tried).await;
    let failed = |why: String| {
        Fault::new(Code::SandboxUnavailable, format!("the sandbox cannot be tried with {}: {why}", program.base.display())).hint(hint![
            "name another interpreter with ",
            act::hob_python(),
            " (3.9 or newer)"
        ])
    };
    let (out, err, status) = tried.map_err(|_| failed(format!("no answer within {DOCTOR_TRIAL_MS} ms")))?.map_err(io)?;
    group.0 = None;
    let last = err.lines().rev().find(|line| !line.is_empty()).unwrap_or("it said nothing").to_owned();
    serde_json::from_str(&out).map_err(|_| failed(format!("{status}: {last}")))
}

/// Processes that are killed when this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may be gone already; that needs no report.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn start_of(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // After an error, the bytes read so far are all that there is.
        let _ = pipe.take(DOCTOR_ANSWER_BYTES_MAX).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The limits that this machine enforces on pods. Blocking the first time.
pub fn bounds() -> Bounds {
    let cgroups = cgroups();
    Bounds { memory: cgroups.limits_memory(), processes: cgroups.limits_processes(), text: cgroups.describe() }
}

/// The device files that a pod with a GPU gets. Blocking.
pub fn gpu_files() -> Vec<std::path::PathBuf> {
    Gpu::find().map(|gpu| gpu.devices).unwrap_or_default()
}

/// The machine that this host runs on. Blocking.
pub fn machine() -> Machine {
    let read = |name: &str| {
        let bytes = vitals::read(Path::new("/proc/sys").join(name.replace('.', "/")), KERNEL_TEXT_BYTES_MAX)?;
        Some((name.to_owned(), String::from_utf8_lossy(&bytes).trim().to_owned()))
    };
    Machine {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        user: rustix::process::geteuid().as_raw(),
        container: CONTAINER_MARKS.iter().any(|mark| Path::new(mark).exists()),
        settings: SETTINGS.iter().filter_map(|name| read(name)).collect(),
    }
}
