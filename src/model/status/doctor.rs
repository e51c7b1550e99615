//! What this machine can do for pods: `host` determines it, people and programs read it, and this file judges
//! it.
//!
//! `mod.rs` is about pods that run; this file is about what would surround one, and what to do if that is not
//! enough.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::status::{MemoryBound, ZygoteStatus};

/// The Landlock version from which signals and abstract sockets cannot leave a sandbox (Linux 6.12).
pub const LANDLOCK_WANTED: u32 = 6;

/// The whole result of `hob doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Doctor {
    /// Whether pods of this machine run fully confined.
    pub confined: bool,
    /// The verdict in words.
    pub verdict: String,
    /// What bounds the memory of pods.
    #[serde(default)]
    pub memory: MemoryBound,
    /// What to do if pods are not fully confined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
    pub machine: Machine,
    pub python: Tool,
    pub uv: Tool,
    /// Layers that HOB_SANDBOX_WITHOUT makes unavailable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    /// `None` if nothing could be tried.
    pub trial: Option<Trial>,
    pub bounds: Bounds,
    /// Files that a pod with `devices=gpu` is given; empty without a GPU.
    pub gpu: Vec<PathBuf>,
    pub zygotes: Possible,
    /// Whether only the owner may write to Hob's own files.
    pub home: Safe,
    pub kept: Kept,
    #[serde(default)]
    pub files: OpenFiles,
    /// The zygotes of the running server; `None` if none runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<Vec<ZygoteStatus>>,
}

/// Where a host keeps the files that it writes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Kept {
    /// Logs, dossiers, sessions, sockets, scratch folders of pods.
    pub state: PathBuf,
    /// Files that can be made again.
    pub cache: PathBuf,
    /// Whether one of them lies outside the home, because the home is not writable; files there are lost with
    /// that folder.
    pub elsewhere: bool,
}

/// How many files a process may have open: connections of callers count, and what pods take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OpenFiles {
    /// The limit at the start of the process (`ulimit -Sn`).
    pub now: u64,
    /// The limit to which a server raises it: as many as it can use, and as it may have (`ulimit -Hn`).
    pub served: u64,
    /// As many as a server can use.
    pub wanted: u64,
}

/// The machine on which it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    pub architecture: String,
    /// The user whose rights Hob has.
    pub user: u32,
    /// Whether it runs in a container, as far as that is visible.
    pub container: bool,
    /// Kernel settings that decide about user namespaces, as far as they exist.
    pub settings: Vec<(String, String)>,
}

/// A program that pods need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tool {
    pub path: Option<PathBuf>,
    pub version: Option<String>,
    /// Why the tool is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The result of the sandbox trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Trial {
    /// Each layer tried alone.
    pub layers: Vec<Layer>,
    /// The version of Landlock; `None` if the kernel has none.
    pub landlock: Option<u32>,
    /// Why all layers together did not make a sandbox.
    pub whole: Option<Refusal>,
    /// Layers that the trial of the acts had to do without, each with the reason.
    pub missing: Vec<String>,
    /// Forbidden acts, tried within the available layers.
    pub acts: Vec<Act>,
    /// Acts that only a missing layer would have denied.
    pub untried: Vec<String>,
    /// Whether the trial had a process namespace of its own.
    #[serde(default)]
    pub apart: bool,
    /// Why it had no process namespace of its own; `None` if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_apart: Option<String>,
}

/// One layer of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Layer {
    pub name: String,
    /// Why the layer is unavailable.
    pub why: Option<String>,
}

/// The error that ended a pod before it was ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Refusal {
    pub layer: String,
    pub why: String,
}

/// One forbidden act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Act {
    pub name: String,
    /// What happened; `None` if the act was denied.
    pub wrong: Option<String>,
}

/// What bounds the memory and the processes of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Bounds {
    /// Whether a control group bounds memory, in the kernel; otherwise the host checks the memory several
    /// times a second.
    pub memory: bool,
    /// Whether a control group bounds processes; otherwise a limit that counts all processes of the user.
    pub processes: bool,
    /// Both in words, with the reasons.
    pub text: String,
}

/// Whether pods can be forked from a zygote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Possible {
    pub possible: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Whether only the owner may write to Hob's own files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Safe {
    /// The first file that somebody else may write to; `None` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The command that fixes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What a version of Landlock leaves open, or denies too much of.
pub fn landlock_lacks(version: u32) -> Vec<&'static str> {
    const SINCE: &[(u32, &str)] = &[
        (2, "files cannot be moved between folders (Linux 5.19)"),
        (3, "files that may be read may be cut short (Linux 6.2)"),
        (4, "TCP ports are not told apart (Linux 6.7)"),
        (5, "commands to device files are not denied (Linux 6.10)"),
        (LANDLOCK_WANTED, "signals are not held (Linux 6.12): pods have a process namespace each for that, and none is forked"),
        (9, "a socket that is made in a granted folder while a pod runs can be connected to (Linux 7.1)"),
    ];
    SINCE.iter().filter(|(since, _)| version < *since).map(|(_, lack)| *lack).collect()
}

impl Doctor {
    /// Draws the conclusions from the findings. `error`: why nothing could be tried.
    pub fn judge(&mut self, error: Option<String>) {
        let refused = self.trial.as_ref().and_then(|trial| trial.whole.as_ref());
        self.confined = self.trial.is_some() && refused.is_none() && error.is_none();
        self.verdict = match (&error, refused) {
            (Some(error), _) => format!("pods cannot run: {error}"),
            (None, Some(refused)) => format!("pods do not start, because they cannot be confined: {}: {}", refused.layer, refused.why),
            (None, None) if self.trial.is_none() => "nothing was tried".to_owned(),
            (None, None) => "pods run fully confined".to_owned(),
        };
        self.next = if self.confined { Vec::new() } else { self.next_steps(error.is_some()) };
    }

    fn next_steps(&self, untried: bool) -> Vec<String> {
        let mut next = Vec::new();
        if self.python.path.is_none() {
            next.push("install Python 3.9 or newer, or name one with HOB_PYTHON".to_owned());
        }
        if !self.without.is_empty() {
            next.push(format!("unset HOB_SANDBOX_WITHOUT, which takes {} for unavailable", self.without.join(", ")));
        }
        let broken = |name: &str| {
            let layers = self.trial.iter().flat_map(|trial| &trial.layers);
            layers
                .filter(|layer| layer.name == name && !self.without.iter().any(|without| without == name))
                .any(|layer| layer.why.is_some())
        };
        if broken("namespaces") {
            next.extend(self.about_namespaces());
        }
        let version = self.trial.as_ref().and_then(|trial| trial.landlock);
        match version {
            Some(version) if version < LANDLOCK_WANTED && self.refused_by("processes") => {
                next.push(format!(
                    "run Linux 6.12 or newer: this kernel ({}) has version {version} of Landlock, wanted {LANDLOCK_WANTED} where pods cannot have \
                     process namespaces",
                    self.machine.kernel
                ));
                if self.machine.container {
                    next.push(
                        "or let this container mount /proc: for Docker or Podman `--security-opt systempaths=unconfined`".to_owned(),
                    );
                }
            }
            None if broken("landlock") => next.push(format!(
                "switch Landlock on: Linux 6.12 or newer (this is {}), built with CONFIG_SECURITY_LANDLOCK, and `landlock` in `lsm=` of its \
                 command line; /sys/kernel/security/lsm lists what is on",
                self.machine.kernel
            )),
            Some(_) if broken("landlock") => next.push("report it: Landlock is there and does not hold (see `layers` and `acts`)".to_owned()),
            _ => {}
        }
        if broken("seccomp") {
            next.push(format!(
                "run a kernel with CONFIG_SECCOMP_FILTER on x86_64, aarch64 or riscv64 (this is {}); a container's own filter must let `seccomp` and \
                 `prctl` pass",
                self.machine.architecture
            ));
        }
        if next.is_empty() {
            next.push(match untried {
                true => "`HOB_LOG=hob=debug hob doctor` says more".to_owned(),
                false => "see above which act was not denied; a layer is there and does not hold".to_owned(),
            });
        }
        if !untried {
            next.push("or let a recipe's pods run with less, which is then shown beside them: `hob grant RECIPE --reduced`".to_owned());
        }
        next
    }

    fn refused_by(&self, layer: &str) -> bool {
        self.trial.as_ref().and_then(|trial| trial.whole.as_ref()).is_some_and(|refused| refused.layer == layer)
    }

    fn about_namespaces(&self) -> Vec<String> {
        let is = |name: &str, value: &str| self.machine.settings.iter().any(|(known, found)| known == name && found == value);
        let mut next = Vec::new();
        if is("user.max_user_namespaces", "0") {
            next.push("let users make user namespaces: `sysctl -w user.max_user_namespaces=15000`".to_owned());
        }
        if is("kernel.unprivileged_userns_clone", "0") {
            next.push("let users make user namespaces: `sysctl -w kernel.unprivileged_userns_clone=1`".to_owned());
        }
        if is("kernel.apparmor_restrict_unprivileged_userns", "1") {
            next.push(
                "load the AppArmor profile `packaging/apparmor/hob` (`apparmor_parser -r`), which lets Hob and its interpreters make user namespaces, or \
                 `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
                    .to_owned(),
            );
        }
        // A guess: a setting that is known to forbid it comes first.
        if self.machine.container && next.is_empty() {
            next.push(
                "start the container so that it may make namespaces and mount in them: for Docker or Podman \
                 `--security-opt seccomp=packaging/container/seccomp.json --security-opt apparmor=unconfined --security-opt systempaths=unconfined` \
                 (that profile is in Hob's sources; `seccomp=unconfined` does as well)"
                    .to_owned(),
            );
        }
        if next.is_empty() {
            next.push(format!(
                "run Linux 5.12 or newer (this is {}) with user, mount, network and IPC namespaces, and let this user make them",
                self.machine.kernel
            ));
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(layers: [Option<&str>; 3], landlock: Option<u32>, whole: Option<(&str, &str)>) -> Doctor {
        let names = ["namespaces", "landlock", "seccomp"];
        let layers = names.iter().zip(layers).map(|(name, why)| Layer { name: (*name).into(), why: why.map(str::to_owned) }).collect();
        let whole = whole.map(|(layer, why)| Refusal { layer: layer.into(), why: why.into() });
        let tool = |path: &str| Tool { path: Some(path.into()), version: Some("1".into()), why: None };
        Doctor {
            confined: false,
            verdict: String::new(),
            memory: MemoryBound::Watched,
            next: Vec::new(),
            machine: Machine { kernel: "6.1.0".into(), architecture: "x86_64".into(), user: 1000, container: false, settings: Vec::new() },
            python: tool("/usr/bin/python3"),
            uv: tool("/usr/bin/uv"),
            without: Vec::new(),
            trial: Some(Trial {
                layers,
                landlock,
                whole,
                missing: Vec::new(),
                acts: Vec::new(),
                untried: Vec::new(),
                apart: false,
                not_apart: None,
            }),
            bounds: Bounds { memory: false, processes: false, text: String::new() },
            gpu: Vec::new(),
            zygotes: Possible { possible: true, why: None },
            home: Safe::default(),
            files: OpenFiles::default(),
            kept: Kept::default(),
            serving: None,
        }
    }

    fn judged(mut doctor: Doctor, error: Option<&str>) -> (bool, String, String) {
        doctor.judge(error.map(str::to_owned));
        (doctor.confined, doctor.verdict, doctor.next.join("\n"))
    }

    #[test]
    fn a_machine_that_has_all_is_told_so_and_nothing_else() {
        assert_eq!(judged(found([None; 3], Some(7), None), None), (true, "pods run fully confined".into(), String::new()));
        // Layers that were not tried do not count as available.
        let untried = Doctor { trial: None, ..found([None; 3], Some(7), None) };
        assert!(!judged(untried.clone(), None).0);
        let (confined, verdict, next) =
            judged(Doctor { python: Tool { path: None, version: None, why: None }, ..untried }, Some("no Python"));
        assert!(!confined && verdict.contains("no Python") && next.contains("HOB_PYTHON") && !next.contains("--reduced"), "{next}");
    }

    #[test]
    fn each_lack_has_its_next_step() {
        // An old kernel lacks nothing if pods have process namespaces.
        assert!(judged(found([None; 3], Some(5), None), None).0);
        let old = found([None; 3], Some(5), Some(("processes", "mounting /proc: Operation not permitted")));
        let (confined, verdict, next) = judged(old.clone(), None);
        assert!(!confined && verdict.contains("processes: mounting /proc") && !next.contains("systempaths"), "{verdict}");
        let container = Doctor { machine: Machine { container: true, ..old.machine.clone() }, ..old };
        assert!(judged(container, None).2.contains("systempaths=unconfined"));
        assert!(next.contains("Linux 6.12") && next.contains("version 5") && next.contains("--reduced"), "{next}");

        let mut barred = found([Some("No space left on device"), None, None], Some(7), Some(("namespaces", "No space left on device")));
        barred.machine.settings = vec![("user.max_user_namespaces".into(), "0".into())];
        assert!(judged(barred.clone(), None).2.contains("sysctl -w user.max_user_namespaces"));
        barred.machine.settings = vec![("kernel.apparmor_restrict_unprivileged_userns".into(), "1".into())];
        assert!(judged(barred.clone(), None).2.contains("AppArmor profile"));
        barred.machine.settings.clear();
        barred.machine.container = true;
        assert!(judged(barred.clone(), None).2.contains("seccomp=unconfined"));
        barred.machine.container = false;
        assert!(judged(barred, None).2.contains("Linux 5.12"));

        let off = found([None, Some("Operation not supported"), None], None, Some(("landlock", "Operation not supported")));
        assert!(judged(off, None).2.contains("`lsm=`"));
        let bare = found([None, None, Some("Invalid argument")], Some(7), Some(("seccomp", "Invalid argument")));
        assert!(judged(bare, None).2.contains("CONFIG_SECCOMP_FILTER"));
        // A layer that was made unavailable is not a lack of the machine.
        let mut told = found([None, None, Some("made unavailable")], Some(7), Some(("seccomp", "made unavailable")));
        told.without = vec!["seccomp".into()];
        let next = judged(told, None).2;
        assert!(next.contains("unset HOB_SANDBOX_WITHOUT") && !next.contains("CONFIG_SECCOMP_FILTER"), "{next}");
    }

    #[test]
    fn each_version_leaves_less_open_than_the_one_before() {
        assert!(landlock_lacks(9).is_empty() && landlock_lacks(6) == landlock_lacks(7));
        assert_eq!(landlock_lacks(6).len(), 1);
        assert_eq!(landlock_lacks(5).len(), 2);
        assert_eq!(landlock_lacks(1).len(), 6);
    }
}
