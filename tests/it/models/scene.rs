//! A home, a signed repository and the server for the model of its recipes.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Child,
    sync::mpsc,
    time::{Duration, Instant},
};

use hob::model::Digest;

use super::server::{Server, honest};
use crate::cli::rig::{Ran, Rig, Signed, write_recipe};

/// Large enough to arrive in many pieces, and to break off midway.
pub const BYTES: usize = 3 << 20;

pub const ETAG: &str = "\"the-model\"";

/// Reports the content of its model, and whether it could write to it.
const POD: &str = r#"import hashlib, os
class Subject:
    def load(self, models):
        self.path = models["weights.bin"]
    def run(self, input):
        with open(self.path, "rb") as file:
            data = file.read()
        try:
            os.close(os.open(self.path, os.O_WRONLY))
            writable = True
        except OSError:
            writable = False
        return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "writable": writable}
"#;

/// Bytes that repeat nowhere nearby.
pub fn model() -> Vec<u8> {
    let mut state: u32 = 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(BYTES).collect()
}

pub struct Scene {
    pub rig: Rig,
    pub signed: Signed,
    pub server: Server,
    pub model: Vec<u8>,
}

impl Scene {
    /// Publishes `lab/one`, with a model on an honest server.
    pub fn new() -> Scene {
        let (rig, signed, model) = (Rig::new(), Signed::new(), model());
        let served = model.clone();
        let server = Server::new(move |seen, _| honest(seen, &served, ETAG));
        rig.trust(&signed.url(), &signed.repository);
        let scene = Scene { rig, signed, server, model };
        scene.publish("lab/one", &format!("{}/model.bin", scene.server.url));
        scene
    }

    /// A recipe folder whose model has the source `from`.
    pub fn recipe(&self, name: &str, from: &str) -> PathBuf {
        let folder = self.rig.folder.path().join(name.replace('/', "-"));
        let sha256 = Digest::of(&self.model);
        let more = format!(
            "python = \">=3.9\"\n\n[[model]]\nname = \"weights.bin\"\nsha256 = \"{sha256}\"\nbytes = {}\nfrom = \"{from}\"\n",
            self.model.len()
        );
        write_recipe(&folder, name, "0.1.0", POD, &more);
        folder
    }

    pub fn publish(&self, name: &str, from: &str) {
        self.signed.publish(&self.recipe(name, from));
    }

    pub fn add(&self) -> Ran {
        self.rig.hob(&["add", "lab/one"])
    }

    /// Asserts that the model is on the shelf and reaches the pod, which can only read it, and that nothing
    /// else of the fetch is left.
    #[track_caller]
    pub fn assert_works(&self, recipe: &str) {
        let answer = self.rig.hob(&["call", recipe, "run", "{}"]);
        answer.well();
        let wanted = serde_json::json!({ "bytes": BYTES, "sha256": Digest::of(&self.model).hex(), "writable": false });
        assert_eq!(answer.json(), wanted);
        assert_eq!(fs::read(self.kept()).unwrap(), self.model);
        assert_eq!(self.partial_files(), [""; 0]);
    }

    /// The path of the whole model.
    pub fn kept(&self) -> PathBuf {
        self.rig.home.join("data/models").join(Digest::of(&self.model).hex())
    }

    /// The path of the model while it arrives.
    pub fn part(&self) -> PathBuf {
        self.rig.home.join("data/downloads").join(format!("{}.part", Digest::of(&self.model).hex()))
    }

    pub fn part_bytes(&self) -> u64 {
        fs::metadata(self.part()).map_or(0, |metadata| metadata.len())
    }

    pub fn partial_files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.rig.home.join("data/downloads")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Asserts that nothing is installed and nothing of the model is kept.
    #[track_caller]
    pub fn assert_nothing(&self) {
        self.rig.assert_empty();
        assert_eq!(self.partial_files(), [""; 0]);
    }
}

/// The lines that a process prints on stderr, as they come.
pub fn listen(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

/// Waits for a line that contains `part`; returns all lines up to it.
#[track_caller]
pub fn until_said(lines: &mpsc::Receiver<String>, part: &str) -> Vec<String> {
    let mut said = Vec::new();
    loop {
        match lines.recv_timeout(Duration::from_secs(60)) {
            Ok(line) => said.push(line),
            Err(error) => panic!("`{part}` was not said ({error}): {said:#?}"),
        }
        if said.last().unwrap().contains(part) {
            return said;
        }
    }
}

#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether any file below the folder holds that text.
pub fn holds(folder: &Path, text: &str) -> bool {
    let needle = text.as_bytes();
    fs::read_dir(folder).unwrap().any(|entry| {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        match (kind.is_dir(), kind.is_file()) {
            (true, _) => holds(&entry.path(), text),
            (_, true) => fs::read(entry.path()).unwrap().windows(needle.len()).any(|window| window == needle),
            _ => false,
        }
    })
}
