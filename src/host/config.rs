//! The configuration with which a host is opened.

use crate::disk::look;
use std::{path::PathBuf, sync::Arc, time::Duration};

use super::GlueCompiler;
use crate::{
    model::{Call, Code, Fault, Home, Progress, Silent, act, hint, progress, status::machine::MachineRules},
    pod::{Machine, ThisMachine},
    shelf::{self, environment::tools::Tools, models::sources::Sources},
};

/// Upper limits for a host. A limit that is not set is that of `hob.toml` or of the recipes; a limit that is
/// set can only lower it. [`Host::open`](crate::Host::open) refuses limits within which nothing could run.
///
/// ```
/// use std::time::Duration;
/// use hob::Limits;
///
/// let limits = Limits::default().with_memory(8 << 30).with_deadline(Duration::from_secs(60)).with_drain(Duration::from_secs(2));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    pub(super) memory_bytes: Option<u64>,
    pub(super) gpu_bytes: Option<u64>,
    pub(super) deadline: Option<Duration>,
    pub(super) events_bytes: Option<usize>,
    pub(super) drain: Option<Duration>,
}

impl Limits {
    /// Bytes of memory for all pods together, at least 1.
    pub fn with_memory(mut self, bytes: u64) -> Limits {
        self.memory_bytes = Some(bytes);
        self
    }

    /// Bytes of memory on each GPU, at least 1.
    pub fn with_gpu_memory(mut self, bytes: u64) -> Limits {
        self.gpu_bytes = Some(bytes);
        self
    }

    /// The longest time for any call, whatever its operation says; at least 1 ms.
    pub fn with_deadline(mut self, longest: Duration) -> Limits {
        self.deadline = Some(longest);
        self
    }

    /// Bytes of events that may wait for the caller of each call, at least 1; the default is 1 MiB. Chunks
    /// that find no room wait in the pod.
    pub fn with_waiting_events(mut self, bytes: usize) -> Limits {
        self.events_bytes = Some(bytes);
        self
    }

    /// The time that accepted calls have to finish when the host shuts down; the default is 10 s. With zero,
    /// they end at once.
    pub fn with_drain(mut self, longest: Duration) -> Limits {
        self.drain = Some(longest);
        self
    }

    /// The operator's rules, lowered to these limits.
    pub(super) fn within(&self, mut rules: MachineRules) -> MachineRules {
        let is_less = |ours: Option<u64>, theirs: Option<u64>| ours.is_some_and(|ours| theirs.is_none_or(|theirs| ours < theirs));
        if is_less(self.memory_bytes, rules.memory_bytes) {
            (rules.memory_bytes, rules.memory_is_of_the_app) = (self.memory_bytes, true);
        }
        if is_less(self.gpu_bytes, rules.gpu_bytes) {
            (rules.gpu_bytes, rules.gpu_is_of_the_app) = (self.gpu_bytes, true);
        }
        rules
    }

    /// Refuses limits within which no call could run.
    ///
    /// Errors: `usage`.
    pub(super) fn check(&self) -> Result<(), Fault> {
        const MILLISECOND: Duration = Duration::from_millis(1);
        let bad = [
            ("with_memory", self.memory_bytes == Some(0), "0 bytes", "1 byte"),
            ("with_gpu_memory", self.gpu_bytes == Some(0), "0 bytes", "1 byte"),
            ("with_waiting_events", self.events_bytes == Some(0), "0 bytes", "1 byte"),
            ("with_deadline", self.deadline.is_some_and(|longest| longest < MILLISECOND), "less than 1 ms", "1 ms"),
        ];
        match bad.iter().find(|(_, is_bad, ..)| *is_bad) {
            Some((name, _, found, wanted)) => {
                let text = format!("`Limits::{name}` leaves nothing to run with: found {found}, wanted at least {wanted}");
                Err(Fault::new(Code::Usage, text).hint("leave it out: the operator and the recipes have limits of their own"))
            }
            None => Ok(()),
        }
    }

    /// Whether these limits are the reason that a call had no more than `budget_ms`.
    pub(super) fn are_why(&self, budget_ms: u64) -> bool {
        self.deadline.is_some_and(|longest| longest.as_millis() <= u128::from(budget_ms))
    }

    /// The call, with its deadline lowered to the limit.
    pub(super) fn shortened(&self, call: Call) -> Call {
        match (self.deadline, call.deadline()) {
            (Some(longest), None) => call.with_deadline(longest),
            (Some(longest), Some(asked)) if longest < asked => call.with_deadline(longest),
            _ => call,
        }
    }
}

/// The files, tools, limits and services of a host.
#[derive(Clone)]
pub struct Config {
    pub(super) home: Home,
    pub(super) tools: Tools,
    pub(super) progress: progress::Shared,
    pub(super) forks: bool,
    pub(super) without: Arc<[String]>,
    pub(super) sources: Sources,
    pub(super) machine: Arc<dyn Machine>,
    pub(super) compiler: GlueCompiler,
    pub(super) limits: Limits,
}

impl Config {
    /// All files below `home`; tools are looked up; progress is not shown; models come from the public hub,
    /// without a token.
    pub fn new(home: Home) -> Config {
        let (progress, without) = (Arc::new(Silent), Arc::default());
        Config {
            home,
            tools: Tools::default(),
            progress,
            forks: true,
            without,
            sources: Sources::default(),
            machine: Arc::new(ThisMachine::default()),
            compiler: GlueCompiler::default(),
            limits: Limits::default(),
        }
    }

    /// From HOB_HOME (one folder for everything) or the XDG folders, HOB_PYTHON, HOB_UV and
    /// HOB_SANDBOX_WITHOUT, and the variables of the hub for models ([`Sources::from_variables`]).
    ///
    /// Errors: `invalid_config` when neither HOB_HOME nor HOME is set, a file is in the place of the home, or
    /// HOB_SANDBOX_WITHOUT names an unknown layer.
    pub fn from_environment() -> Result<Config, Fault> {
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        if let Some(root) = std::env::var_os("HOB_HOME").filter(|value| !value.is_empty()) {
            let root = std::path::absolute(&root).map_err(|error| Fault::io("finding HOB_HOME", &error))?;
            return Config::new(findable(Home::at(root))?).with_variables();
        }
        let home = folder("HOME").ok_or_else(|| {
            Fault::new(Code::InvalidConfig, "neither HOB_HOME nor HOME says where Hob's files lie").hint(hint![
                "set ",
                act::hob_home(),
                " to a folder"
            ])
        })?;
        let xdg = |name: &str, default: &str| folder(name).unwrap_or_else(|| home.join(default)).join("hob");
        let home = Home::xdg(
            xdg("XDG_CONFIG_HOME", ".config"),
            xdg("XDG_DATA_HOME", ".local/share"),
            xdg("XDG_CACHE_HOME", ".cache"),
            xdg("XDG_STATE_HOME", ".local/state"),
        );
        Config::new(findable(home)?).with_variables()
    }

    /// The home, which has the host's files.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Reports slow steps to `progress`.
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Config {
        self.progress = progress;
        self
    }

    /// Uses this interpreter and this `uv` instead of looking them up.
    pub fn with_tools(mut self, tools: Tools) -> Config {
        self.tools = tools;
        self
    }

    /// Sets upper limits.
    pub fn with_limits(mut self, limits: Limits) -> Config {
        self.limits = limits;
        self
    }

    /// Fetches models that name their origin through `sources`.
    pub fn with_sources(mut self, sources: Sources) -> Config {
        self.sources = sources;
        self
    }

    /// The sources through which models are fetched.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Compiles glue with the `hob` program at `path`, which must have this crate's version.
    ///
    /// Glue is compiled in a separate process with limits, never by the app that embeds this crate nor by the
    /// app's executable. Without this setting, that process runs the first `hob` in the absolute folders of
    /// PATH. A program that is missing, or has another version, is a fault only when there is something to
    /// compile: at the install of a recipe that has glue, and at the first call of a recipe folder that has
    /// glue.
    pub fn with_hob(mut self, path: impl Into<PathBuf>) -> Config {
        self.compiler = GlueCompiler::of(path);
        self
    }

    /// The compiler of glue.
    pub(crate) fn compiler(&self) -> &GlueCompiler {
        &self.compiler
    }

    /// Uses this description instead of the real machine, to see what happens with other memory, or with
    /// GPUs.
    pub fn with_machine(mut self, machine: Arc<dyn Machine>) -> Config {
        self.machine = machine;
        self
    }

    /// Treats these layers of the sandbox (`namespaces`, `landlock`, `seccomp`) as unavailable on this
    /// machine, to see what happens then. Pods do not start without them, unless the recipe's operator
    /// allowed that.
    pub fn without_layers(mut self, layers: impl IntoIterator<Item = String>) -> Config {
        self.without = layers.into_iter().collect();
        self
    }

    /// Starts every pod and forks none: for a host of one call, which ends before a zygote has imported
    /// anything.
    pub fn without_zygotes(mut self) -> Config {
        self.forks = false;
        self
    }

    fn with_variables(mut self) -> Result<Config, Fault> {
        self.tools = self.tools.with_variables();
        self.sources = Sources::from_variables(|name| std::env::var_os(name));
        if let Ok(layers) = std::env::var("HOB_SANDBOX_WITHOUT") {
            let layers: Vec<String> = layers.split(',').map(str::trim).filter(|layer| !layer.is_empty()).map(str::to_owned).collect();
            // With a misspelt name nothing would be taken away, and the user would believe that it was.
            if let Some(unknown) = layers.iter().find(|layer| !LAYERS.contains(&layer.as_str())) {
                let text = format!("HOB_SANDBOX_WITHOUT names `{unknown}`, which is no layer (there are: {})", LAYERS.join(", "));
                return Err(Fault::new(Code::InvalidConfig, text).hint("correct it, or unset it"));
            }
            self.without = layers.into();
        }
        Ok(self)
    }
}

/// The home as every process of this user finds it. A home that is not writable may still have the socket of
/// a server that can write to it.
///
/// Errors: `invalid_config` if a file is in the place of a folder.
fn findable(home: Home) -> Result<Home, Fault> {
    shelf::home::are_folders(&home)?;
    Ok(if matches!(look::is_there(&home.socket()), Ok(true)) { home } else { shelf::home::placed(home) })
}

/// The names that HOB_SANDBOX_WITHOUT may have: layers, and parts of them (see `hob_pod/lockdown.py`).
/// `landlock=N` takes away the features that came after Landlock version N.
const LAYERS: [&str; 11] = [
    "namespaces",
    "landlock",
    "seccomp",
    "processes",
    "users",
    "proc",
    "landlock=1",
    "landlock=2",
    "landlock=3",
    "landlock=4",
    "landlock=5",
];
