//! The paths of Hob's files. Only paths: the code that makes or reads the files does the IO.

use std::path::{Path, PathBuf};

/// The four roots under which every file of Hob lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    config: PathBuf,
    data: PathBuf,
    cache: PathBuf,
    state: PathBuf,
    /// The number of the group whose members may write to data, cache and state.
    group: Option<u32>,
    /// Whether state or cache lie outside this home, because it is not writable.
    elsewhere: bool,
}

impl Home {
    /// A home with everything below one folder, as `HOB_HOME` asks for.
    pub fn at(root: impl Into<PathBuf>) -> Home {
        let root = root.into();
        Home { data: root.join("data"), cache: root.join("cache"), state: root.join("state"), config: root, group: None, elsewhere: false }
    }

    /// A home of a user's XDG folders, each already ending in `hob`.
    pub fn xdg(config: PathBuf, data: PathBuf, cache: PathBuf, state: PathBuf) -> Home {
        Home { config, data, cache, state, group: None, elsewhere: false }
    }

    /// The same home, with data, cache and state writable by the members of that group.
    #[doc(hidden)]
    pub fn shared_with(self, group: Option<u32>) -> Home {
        Home { group, ..self }
    }
    /// The same home, which is not writable, with its state elsewhere.
    #[doc(hidden)]
    pub fn with_state(self, state: PathBuf) -> Home {
        Home { state, elsewhere: true, ..self }
    }
    /// The same home, which is not writable, with its cache elsewhere.
    #[doc(hidden)]
    pub fn with_cache(self, cache: PathBuf) -> Home {
        Home { cache, elsewhere: true, ..self }
    }
    /// Whether state or cache lie outside this home.
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

    /// `hob.toml`: the remotes and the wanted recipes.
    pub fn config_file(&self) -> PathBuf {
        self.config.join("hob.toml")
    }
    /// `hob.lock`: the installed recipes, by digest and signer.
    #[doc(hidden)]
    pub fn lock_file(&self) -> PathBuf {
        self.config.join("hob.lock")
    }
    /// `<publisher>/<name>/<version>-<digest>/`: unpacked bundles; beside each bundle, its folder of models,
    /// as `<version>-<digest>.models/`.
    #[doc(hidden)]
    pub fn recipes(&self) -> PathBuf {
        self.data.join("recipes")
    }
    /// `<sha256>`: model files, which recipes share.
    #[doc(hidden)]
    pub fn models(&self) -> PathBuf {
        self.data.join("models")
    }
    /// `<sha256>.part`: partly fetched model files. On the file system of `data`, so that publishing is a
    /// rename.
    #[doc(hidden)]
    pub fn downloads(&self) -> PathBuf {
        self.data.join("downloads")
    }
    /// `<digest>/`: Python environments.
    #[doc(hidden)]
    pub fn environments(&self) -> PathBuf {
        self.data.join("environments")
    }
    /// `<digest>/`: programs that Hob unpacked for its own use (`uv`, the pod runner).
    #[doc(hidden)]
    pub fn tools(&self) -> PathBuf {
        self.data.join("tools")
    }
    /// Unfinished installs; an entry whose lock is not held may be deleted. On the file system of `data`, so
    /// that publishing is a rename.
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
    /// `<time>-<incarnation>.json`: crash dossiers of pods.
    #[doc(hidden)]
    pub fn dossiers(&self) -> PathBuf {
        self.state.join("dossiers")
    }
    /// `<publisher>+<name>.jsonl`: lines that pods printed.
    #[doc(hidden)]
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }
    /// The measured footprints of recipes.
    #[doc(hidden)]
    pub fn footprints(&self) -> PathBuf {
        self.state.join("footprints.json")
    }
    /// `<random>/`: the files of sessions; only the owner may enter.
    #[doc(hidden)]
    pub fn sessions(&self) -> PathBuf {
        self.state.join("sessions")
    }
    /// The files by which clients reach a running `hob serve`; only the owner may enter.
    #[doc(hidden)]
    pub fn serve(&self) -> PathBuf {
        self.state.join("serve")
    }
    /// The socket of a running `hob serve`.
    pub fn socket(&self) -> PathBuf {
        self.serve().join("socket")
    }
    /// The lock that a running `hob serve` holds, so that a home has only one.
    #[doc(hidden)]
    pub fn serve_lock(&self) -> PathBuf {
        self.serve().join("lock")
    }
    /// The token that a caller over TCP must show.
    #[doc(hidden)]
    pub fn token(&self) -> PathBuf {
        self.serve().join("token")
    }
    /// Folders of models for users who cannot write to `data`; an entry whose lock is not held may be
    /// deleted.
    #[doc(hidden)]
    pub fn lent_models(&self) -> PathBuf {
        self.cache.join("models")
    }
    /// The pod runner for users who cannot write to `data`.
    #[doc(hidden)]
    pub fn own_tools(&self) -> PathBuf {
        self.cache.join("tools")
    }
    /// wasmtime's compile cache. It is private, because a flipped bit in it would be executed.
    #[doc(hidden)]
    pub fn compile_cache(&self) -> PathBuf {
        self.cache.join("wasmtime")
    }
    /// `<publisher>/<name>/<key>/`: files that libraries in a recipe's pods keep for its later pods.
    #[doc(hidden)]
    pub fn pod_caches(&self) -> PathBuf {
        self.cache.join("pods")
    }
    /// `uv`'s package cache.
    #[doc(hidden)]
    pub fn uv_cache(&self) -> PathBuf {
        self.cache.join("uv")
    }
    /// The folders that hold every file of Hob. A process that can change them could grant itself any
    /// permission.
    #[doc(hidden)]
    pub fn folders(&self) -> [&Path; 4] {
        [&self.config, &self.data, &self.cache, &self.state]
    }
    /// Records that hosts keep of their work.
    pub fn state(&self) -> &Path {
        &self.state
    }
    /// Files that can be made again.
    pub fn cache(&self) -> &Path {
        &self.cache
    }
    /// The folder of `hob.toml`.
    pub fn config(&self) -> &Path {
        &self.config
    }
}
