//! Servers under measurement, each as its users start it: Hob's own, model servers for Python, and a floor.
//!
//! Apart from the benchmarks because three of them (HTTP, embeddings, recovery) hold the same servers against
//! each other.

// Each benchmark is a program of its own and uses the part that it needs.
#![allow(dead_code)]

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::{Client, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{processes, support};

/// The longest that a server may take until it answers.
const START: Duration = Duration::from_secs(60);
/// The longest that it may take to end by itself once it was told to.
const STOP: Duration = Duration::from_secs(8);

/// How a server is started.
#[derive(Clone)]
pub struct Plan {
    pub name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
    path: String,
    /// The file that its bearer token lies in, once it runs.
    token: Option<PathBuf>,
}

impl Plan {
    /// `hob serve` on a home, asked for one operation of a recipe. None where this Hob has no such command.
    pub fn hob(name: &'static str, home: &Path, recipe: &str, operation: &str) -> Option<Plan> {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_hob"));
        let known = Command::new(&program).args(["serve", "--help"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !known.is_ok_and(|status| status.success()) {
            println!("\nSkipped {name}: this Hob has no `hob serve`.");
            return None;
        }
        Some(Plan {
            name,
            program,
            arguments: ["serve", "--listen", "127.0.0.1:{port}"].map(str::to_owned).to_vec(),
            variables: vec![("HOB_HOME", home.display().to_string())],
            path: format!("/v1/recipes/{recipe}/{operation}"),
            token: Some(home.join("state/serve/token")),
        })
    }

    /// mosec with an application of `peers/`; `None` where it is not installed.
    pub fn mosec(name: &'static str, application: &str, variables: &[(&'static str, &str)]) -> Option<Plan> {
        let words = ["--address", "127.0.0.1", "--port", "{port}", "--log-level", "warning", "--timeout", "60000"];
        Plan::python(name, application, &words, "/inference", variables)
    }

    /// LitServe with an application of `peers/`; `None` where it is not installed.
    pub fn litserve(name: &'static str, application: &str, variables: &[(&'static str, &str)]) -> Option<Plan> {
        Plan::python(name, application, &["{port}"], "/predict", variables)
    }

    fn python(name: &'static str, application: &str, words: &[&str], path: &str, variables: &[(&'static str, &str)]) -> Option<Plan> {
        let program = support::peers_python()?;
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        // The recipe's own class runs in them, which imports what the runner gives it.
        let python_path = [own.join("python/src"), own.join("recipes/sentence-embeddings/pod")].map(|path| path.display().to_string());
        let mut all = vec![
            ("PYTHONPATH", python_path.join(":")),
            ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
            ("OMP_NUM_THREADS", "1".to_owned()),
            ("BENCH_MODELS", own.join("recipes/sentence-embeddings/models").display().to_string()),
        ];
        all.extend(variables.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let mut arguments = vec![support::source("peers").join(application).display().to_string()];
        arguments.extend(words.iter().map(|word| (*word).to_owned()));
        Some(Plan { name, program, arguments, variables: all, path: path.to_owned(), token: None })
    }

    /// This benchmark's own program, which listens when it is told to.
    pub fn own(name: &'static str, word: &str, path: &str) -> Plan {
        let program = std::env::current_exe().expect("this program has a path");
        Plan {
            name,
            program,
            arguments: vec![word.to_owned(), "{port}".to_owned()],
            variables: Vec::new(),
            path: path.to_owned(),
            token: None,
        }
    }

    /// Starts it; it may not listen yet.
    pub fn start(&self) -> Server {
        // Free a moment ago: servers that take a socket of ours are rare.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
        let logs = support::folder().join("logs");
        std::fs::create_dir_all(&logs).expect("target/bench can be written");
        let workers = logs.join(format!("{}.workers", self.name));
        let _ = std::fs::remove_file(&workers);
        if let Some(token) = &self.token {
            // So that an old one is not taken for the new one's.
            let _ = std::fs::remove_file(token);
        }
        let log = File::create(logs.join(format!("{}.log", self.name))).expect("target/bench can be written");
        let mut command = Command::new(&self.program);
        command.args(self.arguments.iter().map(|word| word.replace("{port}", &port.to_string())));
        command.envs(self.variables.iter().map(|(key, value)| (*key, value))).env("BENCH_WORKERS", &workers);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let started = Instant::now();
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.name));
        Server { name: self.name, child, port, path: self.path.clone(), token: self.token.clone(), workers, started }
    }
}

/// A running server. Dropping it ends it and all that it started.
pub struct Server {
    pub name: &'static str,
    child: Child,
    port: u16,
    path: String,
    token: Option<PathBuf>,
    /// Where an application of ours writes the processes that do its work.
    workers: PathBuf,
    started: Instant,
}

impl Server {
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}{}", self.port, self.path)
    }

    /// The same server, another operation of the same recipe.
    pub fn url_of(&self, operation: &str) -> String {
        let path = self.path.rsplit_once('/').map_or("", |(before, _)| before);
        format!("http://127.0.0.1:{}{path}/{operation}", self.port)
    }

    pub fn token(&self) -> Option<String> {
        Some(std::fs::read_to_string(self.token.as_ref()?).ok()?.trim().to_owned())
    }

    /// Waits for the first right answer; gives the time from the start of the process and the answer.
    pub async fn ready(&mut self, body: &str) -> (Duration, Value) {
        let client = client();
        loop {
            if let Ok((StatusCode::OK, text)) = post(&client, &self.url(), self.token().as_deref(), body).await {
                return (self.started.elapsed(), serde_json::from_str(&text).unwrap_or_default());
            }
            let ended = self.child.try_wait().expect("its own child").is_some();
            assert!(!ended && self.started.elapsed() < START, "{} does not answer; see target/bench/logs", self.name);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All processes of it.
    pub fn processes(&self) -> Vec<u32> {
        processes::tree(self.child.id())
    }

    /// The processes that said that they run an application of ours.
    pub fn workers(&self) -> Vec<u32> {
        let text = std::fs::read_to_string(&self.workers).unwrap_or_default();
        let alive = self.processes();
        text.lines().filter_map(|line| line.parse().ok()).filter(|pid| alive.contains(pid)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let known: Vec<(u32, Option<u64>)> = self.processes().into_iter().map(|pid| (pid, processes::started(pid))).collect();
        signal(self.child.id(), Signal::TERM);
        let end = Instant::now() + STOP;
        while Instant::now() < end && !self.child.try_wait().is_ok_and(|status| status.is_some()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        // What outlived it, if it is still the same process.
        for (pid, started) in known {
            if started.is_some() && processes::started(pid) == started {
                signal(pid, Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that may be gone.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = kill_process(pid, signal);
    }
}

/// A client whose connections stay open.
pub fn client() -> Client {
    Client::builder().no_proxy().build().expect("a client needs nothing")
}

/// One request to its end.
pub async fn post(client: &Client, url: &str, token: Option<&str>, body: &str) -> reqwest::Result<(StatusCode, String)> {
    let mut request = client.post(url).header("content-type", "application/json").body(body.to_owned());
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await?;
    Ok((response.status(), response.text().await?))
}
