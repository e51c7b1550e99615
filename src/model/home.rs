//! The paths of Hob's files. Only paths: the code that makes or reads the files does the IO.

use std::path::{Path, PathBuf};

/// The four roots under which every file of Hob lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    config: PathBuf,
    data: PathBuf,
    cache: PathBuf,
    state: PathBuf,
    /// The number of a group whose members may write to data, cache and state.
    group: Option<u32>,
    /// Whether state or cache lie outside of it, because it cannot be written to.
    elsewhere: bool,
}

impl Home {
    /// Everything below one folder: what `HOB_HOME` asks for.
    pub fn at(root: impl Into<PathBuf>) -> Home {
        let root = root.into();
        Home { data: root.join("data"), cache: root.join("cache"), state: root.join("state"), config: root, group: None, elsewhere: false }
    }

    /// The XDG folders of a user, each already ending in `hob`.
    pub fn xdg(config: PathBuf, data: PathBuf, cache: PathBuf, state: PathBuf) -> Home {
        Home { config, data, cache, state, group: None, elsewhere: false }
    }

    /// The same home, to whose data, cache and state the members of that group may write.
    #[doc(hidden)]
    pub fn shared_with(self, group: Option<u32>) -> Home {
        Home { group, ..self }
    }
    /// The same home, which cannot be written to, with its state elsewhere.
    #[doc(hidden)]
    pub fn with_state(self, state: PathBuf) -> Home {
        Home { state, elsewhere: true, ..self }
    }
    /// The same home, which cannot be written to, with its cache elsewhere.
    #[doc(hidden)]
    pub fn with_cache(self, cache: PathBuf) -> Home {
        Home { cache, elsewhere: true, ..self }
    }
    /// Whether state or cache lie outside of it.
    #[doc(hidden)]
    pub fn is_elsewhere(&self) -> bool {
        self.elsewhere
    }
    /// The number of the group whose members may write to data, cache and state.
    #[doc(hidden)]
    pub fn group(&self) -> Option<u32> {
        self.group
    }
    /// The folders of data, cache and state.
    #[doc(hidden)]
    pub fn roots(&self) -> [&Path; 3] {
        [&self.data, &self.cache, &self.state]
    }

    /// `hob.toml`: remotes and recipes wanted.
    pub fn config_file(&self) -> PathBuf {
        self.config.join("hob.toml")
    }
    /// `hob.lock`: what is installed, by digest and signer.
    #[doc(hidden)]
    pub fn lock_file(&self) -> PathBuf {
        self.config.join("hob.lock")
    }
    /// `<publisher>/<name>/<version>-<digest>/`: unpacked bundles; beside each, as
    /// `<version>-<digest>.models/`, the folder of its models.
    #[doc(hidden)]
    pub fn recipes(&self) -> PathBuf {
        self.data.join("recipes")
    }
    /// `<sha256>`: model files, as they are shared by recipes.
    #[doc(hidden)]
    pub fn models(&self) -> PathBuf {
        self.data.join("models")
    }
    /// `<sha256>.part`: model files that were fetched in part. On the file system of `data`, so that
    /// publishing is a rename.
    #[doc(hidden)]
    pub fn downloads(&self) -> PathBuf {
        self.data.join("downloads")
    }
    /// `<digest>/`: Python environments.
    #[doc(hidden)]
    pub fn environments(&self) -> PathBuf {
        self.data.join("environments")
    }
    /// `<digest>/`: programs that Hob unpacked for itself (`uv`, the pod runner).
    #[doc(hidden)]
    pub fn tools(&self) -> PathBuf {
        self.data.join("tools")
    }
    /// Half-done installs; whatever lies here without its lock held may be deleted. On the file system of
    /// `data`, so that publishing is a rename.
    #[doc(hidden)]
    pub fn staging(&self) -> PathBuf {
        self.data.join("staging")
    }
    /// `<remote>/`: pinned root and last trusted metadata of each repository.
    #[doc(hidden)]
    pub fn remotes(&self) -> PathBuf {
        self.data.join("remotes")
    }
    /// Lock files.
    #[doc(hidden)]
    pub fn locks(&self) -> PathBuf {
        self.state.join("locks")
    }
    /// `<instance>/`: scratch folders of running pods.
    #[doc(hidden)]
    pub fn scratch(&self) -> PathBuf {
        self.state.join("scratch")
    }
    /// `<time>-<incarnation>.json`: what pods left that crashed.
    #[doc(hidden)]
    pub fn dossiers(&self) -> PathBuf {
        self.state.join("dossiers")
    }
    /// `<publisher>+<name>.jsonl`: what pods printed.
    #[doc(hidden)]
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }
    /// What recipes were measured to take of the machine.
    #[doc(hidden)]
    pub fn footprints(&self) -> PathBuf {
        self.state.join("footprints.json")
    }
    /// `<random>/`: what sessions keep; only its owner may enter.
    #[doc(hidden)]
    pub fn sessions(&self) -> PathBuf {
        self.state.join("sessions")
    }
    /// What a running `hob serve` is reached by; only its owner may enter.
    #[doc(hidden)]
    pub fn serve(&self) -> PathBuf {
        self.state.join("serve")
    }
    /// The socket of a running `hob serve`.
    pub fn socket(&self) -> PathBuf {
        self.serve().join("socket")
    }
    /// Held by a running `hob serve`, so that there is one for a home.
    #[doc(hidden)]
    pub fn serve_lock(&self) -> PathBuf {
        self.serve().join("lock")
    }
    /// What a caller over TCP must show.
    #[doc(hidden)]
    pub fn token(&self) -> PathBuf {
        self.serve().join("token")
    }
    /// Folders of models for those who cannot write to `data`; whatever lies here without its lock held may
    /// be deleted.
    #[doc(hidden)]
    pub fn lent_models(&self) -> PathBuf {
        self.cache.join("models")
    }
    /// The pod runner for those who cannot write to `data`.
    #[doc(hidden)]
    pub fn own_tools(&self) -> PathBuf {
        self.cache.join("tools")
    }
    /// wasmtime's compile cache (kept private: a flipped bit in it would run).
    #[doc(hidden)]
    pub fn compile_cache(&self) -> PathBuf {
        self.cache.join("wasmtime")
    }
    /// `<publisher>/<name>/<key>/`: what libraries in a recipe's pods keep for its next pods.
    #[doc(hidden)]
    pub fn pod_caches(&self) -> PathBuf {
        self.cache.join("pods")
    }
    /// `uv`'s package cache.
    #[doc(hidden)]
    pub fn uv_cache(&self) -> PathBuf {
        self.cache.join("uv")
    }
    /// The folders in which every file of Hob lies. What could change them could give itself any permission.
    #[doc(hidden)]
    pub fn folders(&self) -> [&Path; 4] {
        [&self.config, &self.data, &self.cache, &self.state]
    }
    /// What hosts keep of what they did.
    pub fn state(&self) -> &Path {
        &self.state
    }
    /// What can be made again.
    pub fn cache(&self) -> &Path {
        &self.cache
    }
    /// The folder of `hob.toml`.
    pub fn config(&self) -> &Path {
        &self.config
    }
}
