//! The shelf: its two files, the install transaction, and the faults when its files differ from the installed
//! ones.
//!
//! Nothing here runs another program or opens a connection.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use hob::{
    model::{Code, Digest, Edition, Fault, Grants, Home, Origin, Progress, RecipeName, Silent, Step, Verified, progress},
    shelf::{
        bundle::{
            Packed,
            contents::{self, Rules},
            index::Index,
            pack_files_of,
            unpack::unpack,
        },
        config::{self, Config, Wish, edit::Edit},
        models::{self, Claim},
        store::{
            Shelf, Staged,
            lockfile::{LockEntry, LockFile},
        },
    },
};
use serde_json::json;

fn quiet() -> progress::Shared {
    Arc::new(Silent)
}

fn name(text: &str) -> RecipeName {
    text.parse().unwrap()
}

/// A recipe folder of the given version; `extra` follows the manifest's other lines.
fn recipe_folder(at: &Path, version: &str, extra: &str) -> PathBuf {
    let folder = at.join(format!("recipe-{version}"));
    fs::create_dir_all(folder.join("pod")).unwrap();
    let manifest = format!(
        "name = \"hob/echo\"\nversion = \"{version}\"\nlicense = \"Apache-2.0\"\nsummary = \"Echo\"\nhob = \"0.1\"\n\n[pod]\nruntime = \"python\"\n\
         entry = \"echo:Echo\"\npython = \">=3.9\"\n{extra}\n\n[operations.echo]\nsummary = \"Echo\"\ninput = {{ type = \"object\" }}\noutput = {{ type = \"object\" }}\n"
    );
    fs::write(folder.join("recipe.toml"), manifest).unwrap();
    fs::write(folder.join("pod/echo.py"), format!("VERSION = '{version}'\n")).unwrap();
    folder
}

/// A signed bundle, as the repository client returns it.
struct Bundle {
    bytes: Vec<u8>,
    index: Index,
    entry: LockEntry,
}

fn bundle(folder: &Path, version: &str) -> Bundle {
    let contents = contents::of(folder, &Rules { glue: false, files: &[], schemas: Vec::new(), wider: false }).unwrap();
    let Packed { bytes, index, .. } = pack_files_of(&contents).unwrap();
    let entry = json!({
        "name": "hob/echo", "version": version, "remote": "main", "publisher": "hob", "key_ids": ["b", "a"],
        "sha256": Digest::of(&bytes), "index_sha256": index.digest(),
    });
    let mut entry: LockEntry = serde_json::from_value(entry).unwrap();
    entry.edition = Edition::Current;
    Bundle { bytes, index, entry }
}

fn staged(shelf: &Shelf, bundle: &Bundle) -> Result<Staged, Fault> {
    let staged = shelf.stage()?;
    unpack(&bundle.bytes, &bundle.index, &staged.folder(), "hob/echo")?;
    Ok(staged)
}

async fn install(shelf: &Shelf, bundle: &Bundle) -> Result<(), Fault> {
    let (staged, entry, index) = (staged(shelf, bundle)?, bundle.entry.clone(), bundle.index.clone());
    let quiet = quiet();
    let published = shelf.write(&quiet, move |guard| {
        let range = "^0.1".parse().unwrap();
        staged.publish(guard, entry, &index, Some(Wish { range: Some(&range), given: &Grants::default() })).map(drop)
    });
    published.await
}

fn source(verified: &Verified) -> String {
    fs::read_to_string(verified.folder().join("pod/echo.py")).unwrap()
}

const CONFIG: &str = r#"# my hob
[[remote]]   # the public one
name = "main"
url = "https://recipes.example/repo"

[recipes]
# pinned on purpose
"hob/ocr" = "=1.2.3"   # until the next one is tested

[uv]
path = "/opt/uv"
"#;

/// A change of `hob.toml` under its lock.
async fn edit<T: Send + 'static>(home: &Home, change: impl FnOnce(&mut Edit) -> T + Send + 'static) -> T {
    config::edit::change(home, |edit, _| Ok(change(edit))).await.unwrap()
}

#[tokio::test]
async fn hob_toml_is_edited_and_everything_else_stays() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path());
    fs::write(home.config_file(), CONFIG).unwrap();
    edit(&home, |edit| {
        edit.set_recipe(&name("hob/echo"), Some(&"^0.1".parse().unwrap()));
        edit.set_recipe(&name("hob/ocr"), Some(&"=1.2.4".parse().unwrap()));
        edit.set_remote("second", "file:///srv/repo");
        edit.set_remote("main", "https://other.example/repo");
    })
    .await;

    let text = fs::read_to_string(home.config_file()).unwrap();
    let wanted = CONFIG
        .replace("recipes.example", "other.example")
        .replace("=1.2.3", "=1.2.4")
        .replace("tested\n", "tested\n\"hob/echo\" = \"^0.1\"\n")
        .replace("repo\"\n", "repo\"\n\n[[remote]]\nname = \"second\"\nurl = \"file:///srv/repo\"\n");
    assert_eq!(text, wanted);
    let config = Config::read(&home).unwrap();
    assert_eq!(config.remote("second").unwrap().url.revealed(), "file:///srv/repo");
    assert_eq!(config.tools.uv.as_deref(), Some(Path::new("/opt/uv")));
    let fault = config.remote("third").unwrap_err();
    assert_eq!(fault.code, Code::RemoteNotFound);
    assert!(fault.message.contains("`main`, `second`"), "{}", fault.message);

    assert_eq!(edit(&home, |edit| (edit.remove_recipe(&name("hob/echo")), edit.remove_remote("second"))).await, (true, true));
    assert_eq!(edit(&home, |edit| (edit.remove_recipe(&name("hob/echo")), edit.remove_remote("second"))).await, (false, false));
    assert_eq!(
        fs::read_to_string(home.config_file()).unwrap(),
        CONFIG.replace("recipes.example", "other.example").replace("=1.2.3", "=1.2.4")
    );
}

#[tokio::test]
async fn hob_toml_begins_from_nothing_and_inline_remotes_are_edited_too() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path().join("not/yet"));
    assert_eq!(Config::read(&home).unwrap(), Config::default());
    edit(&home, |edit| edit.set_remote("main", "file:///srv/repo")).await;
    assert_eq!(Config::read(&home).unwrap().remotes.len(), 1);

    fs::write(home.config_file(), "remote = [{ name = \"a\", url = \"file:///a\" }]\n").unwrap();
    edit(&home, |edit| edit.set_remote("a", "file:///other")).await;
    edit(&home, |edit| edit.set_remote("b", "file:///b")).await;
    let urls: Vec<_> = Config::read(&home).unwrap().remotes.into_iter().map(|remote| remote.url.revealed().to_owned()).collect();
    assert_eq!(urls, ["file:///other", "file:///b"]);
}

#[test]
fn each_mistake_in_hob_toml_names_line_and_key() {
    let table = [
        ("[[remote]]", "[[remotes]]", 2, "remotes: this Hob knows no such key; nearest known key: `remote`"),
        ("url = ", "ulr = ", 4, "remote.ulr: this Hob knows no such key; nearest known key: `url`"),
        ("name = \"main\"", "", 2, "remote.name: missing"),
        ("\"main\"", "\"Main\"", 3, "`Main` is not a name"),
        ("https://", "ftp://", 4, "`ftp://recipes.example/repo` is not a URL"),
        ("hob/ocr", "ocr", 8, "`ocr` is not a recipe name"),
        ("=1.2.3", "newest", 8, "`newest` is not a version range"),
        ("\"=1.2.3\"", "3", 8, "recipes.hob/ocr: found 3, wanted a string"),
        ("path = ", "file = ", 11, "uv.file: this Hob knows no such key; known here: `path`"),
        ("/opt/uv", "uv", 11, "uv.path: `uv` is not an absolute path"),
        ("[uv]", "[environments]", 11, "environments.path"),
        ("[recipes]", "[recipes", 6, "not TOML"),
    ];
    for (from, to, line, says) in table {
        let fault = Config::parse(&CONFIG.replacen(from, to, 1), "hob.toml").expect_err(to);
        assert_eq!(fault.code, Code::InvalidConfig);
        assert!(fault.message.starts_with(&format!("hob.toml:{line}: ")) && fault.message.contains(says), "{to}: {}", fault.message);
    }
    // All mistakes at once.
    let several = CONFIG.replacen("url = ", "ulr = ", 1).replacen("hob/ocr", "ocr", 1).replacen("path = ", "file = ", 1);
    let fault = Config::parse(&several, "hob.toml").unwrap_err();
    let found: Vec<_> = fault.detail["findings"].as_array().unwrap().iter().map(|one| one["line"].as_u64().unwrap()).collect();
    assert_eq!(found, [4, 8, 11], "{fault:?}");
}

#[test]
fn hob_lock_round_trips_sorted_and_refuses_what_it_does_not_know() {
    let root = tempfile::tempdir().unwrap();
    let mut entry = bundle(&recipe_folder(root.path(), "0.1.0", ""), "0.1.0").entry;
    entry.models = serde_json::from_value(json!([{ "name": "weights", "sha256": Digest::of(b"w"), "bytes": 1 }])).unwrap();
    let mut other = entry.clone();
    other.name = name("a/first");
    let mut lock = LockFile::default();
    lock.set(entry.clone());
    lock.set(other);
    lock.set(entry);
    let text = lock.text().unwrap();
    let read = LockFile::parse(&text, "hob.lock").unwrap();
    assert_eq!(read, lock);
    assert_eq!(read.text().unwrap(), text);
    let names: Vec<_> = read.entries().iter().map(|entry| entry.name.to_string()).collect();
    assert_eq!(names, ["a/first", "hob/echo"]);
    assert_eq!(read.entries()[0].key_ids, ["a", "b"]);

    for (from, to, says) in [
        ("remote = ", "remotes = ", "unknown field `remotes`"),
        ("version = 1\n", "version = 2\n", "format 2; this Hob reads and writes format 1"),
        ("a/first", "hob/echo", "`hob/echo` is there twice"),
        ("sha256 = \"", "sha256 = \"x", "is not a SHA-256"),
        ("a/first", "../first", "is not a recipe name"),
    ] {
        assert!(text.contains(from));
        // A mistake in one entry leaves the other entries readable.
        let fault = match LockFile::parse(&text.replacen(from, to, 1), "hob.lock") {
            Ok(read) => {
                assert_eq!((read.entries().len(), read.damaged().len()), (1, 1), "{to}");
                read.damaged()[0].fault.clone()
            }
            Err(fault) => fault,
        };
        assert_eq!(fault.code, Code::InvalidConfig);
        assert!(fault.message.starts_with("hob.lock:") && fault.message.contains(says), "{}", fault.message);
    }
}

#[tokio::test]
async fn a_recipe_is_installed_replaced_and_removed() {
    let root = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(Home::at(root.path().join("home"))).unwrap();
    let first = bundle(&recipe_folder(root.path(), "0.1.0", ""), "0.1.0");
    let second = bundle(&recipe_folder(root.path(), "0.1.1", ""), "0.1.1");

    let stage = staged(&shelf, &first).unwrap();
    let before = shelf.load_staged(&stage, &first.entry, &first.index).unwrap();
    assert_eq!(before.folder(), stage.folder());
    drop(stage);
    let fault = shelf.load(&name("hob/echo")).unwrap_err();
    assert_eq!(fault.code, Code::RecipeNotFound);
    assert_eq!(fault.message, "recipe `hob/echo` is not on the shelf (installed: nothing)");
    assert_eq!(fault.hint.as_deref(), Some("`Host::add` of `hob/echo` installs it"));

    install(&shelf, &first).await.unwrap();
    let loaded = shelf.load(&name("hob/echo")).unwrap();
    assert_eq!((loaded.manifest().version.to_string(), loaded.digest()), ("0.1.0".into(), first.entry.sha256));
    assert!(matches!(loaded.origin(), Origin::Signed { remote, publisher, .. } if remote == "main" && publisher == "hob"));
    for path in [loaded.folder().to_owned(), loaded.folder().join("pod"), loaded.folder().join("recipe.toml")] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o222, 0, "{} can be written", path.display());
    }
    install(&shelf, &second).await.unwrap();
    assert_eq!(source(&shelf.load(&name("hob/echo")).unwrap()), "VERSION = '0.1.1'\n");
    assert_eq!(source(&loaded), "VERSION = '0.1.0'\n", "the version before was taken from under its users");
    assert_eq!(Config::read(shelf.home()).unwrap().recipes.len(), 1);
    assert!(shelf.verify(None).unwrap().iter().all(|report| report.fault.is_none()));

    let removed = shelf.remove(&name("hob/echo"), &quiet()).await.unwrap();
    assert_eq!(removed.version, second.entry.version);
    assert_eq!(shelf.remove(&name("hob/echo"), &quiet()).await.unwrap_err().code, Code::RecipeNotFound);
    assert!(shelf.installed().unwrap().is_empty() && Config::read(shelf.home()).unwrap().recipes.is_empty());
    assert!(!shelf.place(&removed).exists());
    assert_eq!(fs::read_dir(shelf.home().staging()).unwrap().count(), 0);
}

#[tokio::test]
async fn every_altered_file_of_an_installed_recipe_is_named() {
    let root = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(Home::at(root.path().join("home"))).unwrap();
    let first = bundle(&recipe_folder(root.path(), "0.1.0", ""), "0.1.0");
    install(&shelf, &first).await.unwrap();
    let place = shelf.place(&first.entry);
    let index = PathBuf::from(format!("{}.index.json", place.display()));
    for folder in [&place, &place.join("pod")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let refused = |what: &str| {
        let fault = shelf.load(&name("hob/echo")).unwrap_err();
        assert_eq!(fault.code, Code::ShelfAltered, "{}", fault.message);
        assert!(fault.message.contains(what), "{}", fault.message);
        let reports = shelf.verify(None).unwrap();
        assert_eq!(reports[0].fault.as_ref(), Some(&fault));
    };
    for file in ["recipe.toml", "pod/echo.py"] {
        let path = place.join(file);
        let before = fs::read(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let mut flipped = before.clone();
        flipped[3] ^= 1;
        fs::write(&path, flipped).unwrap();
        refused(file);
        fs::remove_file(&path).unwrap();
        refused(file);
        fs::write(&path, before).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        shelf.load(&name("hob/echo")).unwrap();
    }
    fs::write(place.join("pod/extra.py"), "").unwrap();
    refused("pod/extra.py");
    fs::remove_file(place.join("pod/extra.py")).unwrap();
    let before = fs::read(&index).unwrap();
    fs::write(&index, b"{}").unwrap();
    refused("was altered");
    fs::remove_file(&index).unwrap();
    refused("is missing");
    fs::write(&index, before).unwrap();
    shelf.load(&name("hob/echo")).unwrap();
    // Follows the hint, now for a folder that is missing.
    fs::remove_dir_all(&place).unwrap();
    refused("is missing");
    install(&shelf, &first).await.unwrap();
    shelf.load(&name("hob/echo")).unwrap();
}

#[tokio::test]
async fn what_a_crash_between_two_steps_leaves_is_old_or_new_and_the_next_install_succeeds() {
    let root = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(Home::at(root.path().join("home"))).unwrap();
    let first = bundle(&recipe_folder(root.path(), "0.1.0", ""), "0.1.0");
    let place = shelf.place(&first.entry);

    // Moved, not committed: half a folder, and one with a wrong byte, in the recipe's place.
    fs::create_dir_all(place.join("pod")).unwrap();
    fs::write(place.join("pod/echo.py"), "other").unwrap();
    assert_eq!(shelf.load(&name("hob/echo")).unwrap_err().code, Code::RecipeNotFound);
    install(&shelf, &first).await.unwrap();
    assert_eq!(source(&shelf.load(&name("hob/echo")).unwrap()), "VERSION = '0.1.0'\n");

    // Moved completely, not committed.
    fs::remove_file(shelf.home().lock_file()).unwrap();
    assert_eq!(shelf.load(&name("hob/echo")).unwrap_err().code, Code::RecipeNotFound);
    install(&shelf, &first).await.unwrap();

    // Committed, hob.toml not yet written.
    fs::remove_file(shelf.home().config_file()).unwrap();
    shelf.load(&name("hob/echo")).unwrap();
    install(&shelf, &first).await.unwrap();
    assert_eq!(Config::read(shelf.home()).unwrap().recipes.len(), 1);
    assert_eq!(fs::read_dir(shelf.home().staging()).unwrap().count(), 0);
}

/// A process that the test below starts; run by itself, it does nothing.
#[test]
fn a_process_of_its_own_installs_and_removes_for_ever() {
    let Some(root) = std::env::var_os("HOB_TEST_INSTALL").map(PathBuf::from) else { return };
    let shelf = Shelf::open(Home::at(root.join("home"))).unwrap();
    let bundles = ["0.1.0", "0.1.1"].map(|version| bundle(&root.join(format!("recipe-{version}")), version));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        loop {
            for bundle in &bundles {
                install(&shelf, bundle).await.unwrap();
                fs::write(root.join("busy"), "").unwrap();
            }
            shelf.remove(&name("hob/echo"), &quiet()).await.unwrap();
        }
    });
}

#[tokio::test]
async fn kill_9_at_any_instant_leaves_the_old_or_the_new() {
    let root = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(Home::at(root.path().join("home"))).unwrap();
    let bundles = ["0.1.0", "0.1.1"].map(|version| bundle(&recipe_folder(root.path(), version, ""), version));
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..24 {
        let mut installer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "shelf::a_process_of_its_own_installs_and_removes_for_ever"])
            .env("HOB_TEST_INSTALL", root.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while fs::remove_file(root.path().join("busy")).is_err() {
            assert!(installer.try_wait().unwrap().is_none(), "the installer failed by itself");
            assert!(began.elapsed() < Duration::from_secs(60), "the installer does not begin");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(Duration::from_micros(1300 * round)).await;
        installer.kill().unwrap();
        installer.wait().unwrap();
        let _ = fs::remove_file(root.path().join("busy"));
        let state = match shelf.load(&name("hob/echo")) {
            Ok(loaded) => {
                let version = loaded.manifest().version.to_string();
                assert_eq!(source(&loaded), format!("VERSION = '{version}'\n"));
                version
            }
            Err(fault) => {
                assert_eq!(fault.code, Code::RecipeNotFound, "{fault}");
                "none".to_owned()
            }
        };
        Config::read(shelf.home()).unwrap();
        seen.insert(state);
    }
    assert!(seen.len() > 1, "only {seen:?} was ever seen: the kills all came at the same step");
    install(&shelf, &bundles[0]).await.unwrap();
    assert_eq!(fs::read_dir(shelf.home().staging()).unwrap().count(), 0);
    assert_eq!(shelf.load(&name("hob/echo")).unwrap().manifest().version, bundles[0].entry.version);
    let half =
        fs::read_dir(shelf.home().config()).unwrap().filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
    assert_eq!(half.count(), 0, "half-written files stay beside hob.toml");
}

/// A file system of `bytes`, removed on drop; `None`, with the reason printed, if none can be mounted.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn mount(at: &Path, bytes: u64) -> Option<SmallDisk> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "hob-test"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(at.to_owned())),
            Ok(output) => {
                eprintln!("skipped: no small file system can be mounted: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                eprintln!("skipped: `mount` cannot be run: {error}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_the_shelf_stays_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(&root.path().join("home"), 512 << 10) else { return };
    let shelf = Shelf::open(Home::at(root.path().join("home"))).unwrap();
    let first = bundle(&recipe_folder(root.path(), "0.1.0", ""), "0.1.0");
    let second = bundle(&recipe_folder(root.path(), "0.1.1", ""), "0.1.1");
    install(&shelf, &first).await.unwrap();
    // Freed page by page, so that each step of the transaction once finds the disk full.
    let pages: Vec<_> = (0..200).map(|number| root.path().join(format!("home/filler-{number}"))).collect();
    for page in &pages {
        if fs::write(page, [1; 4096]).is_err() {
            break;
        }
    }
    let mut refused = 0;
    for page in &pages {
        match install(&shelf, &second).await {
            Ok(()) => break,
            Err(fault) => {
                assert_eq!(fault.code, Code::DiskFull, "{fault}");
                assert!(fault.hint.is_some());
                assert!(!shelf.place(&second.entry).exists(), "what was not installed takes space on a full disk");
                refused += 1;
            }
        }
        assert_eq!(shelf.entry(&name("hob/echo")).unwrap().version, first.entry.version);
        shelf.load(&name("hob/echo")).unwrap();
        fs::remove_file(page).unwrap();
    }
    assert!(refused > 2, "the disk was full for {refused} steps only");
    assert_eq!(source(&shelf.load(&name("hob/echo")).unwrap()), "VERSION = '0.1.1'\n");
    assert_eq!(fs::read_dir(shelf.home().staging()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_writer_at_a_time_and_the_other_says_that_it_waits() {
    #[derive(Default)]
    struct Heard(Mutex<Vec<Step>>);
    impl Progress for Heard {
        fn step(&self, step: Step) {
            self.0.lock().unwrap().push(step);
        }
    }
    let root = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Shelf::open(Home::at(root.path())).unwrap());
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (began, begins) = std::sync::mpsc::channel();
    let holding = {
        let shelf = shelf.clone();
        let work = move |_: &_| {
            began.send(()).unwrap();
            released.recv().unwrap();
            Ok(())
        };
        tokio::spawn(async move { shelf.write(&quiet(), work).await })
    };
    tokio::task::spawn_blocking(move || begins.recv().unwrap()).await.unwrap();
    let heard = Arc::new(Heard::default());
    let waiting = {
        let (shelf, heard): (_, progress::Shared) = (shelf.clone(), heard.clone());
        tokio::spawn(async move { shelf.write(&heard, |_| Ok(())).await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    release.send(()).unwrap();
    waiting.await.unwrap().unwrap();
    holding.await.unwrap().unwrap();
    assert_eq!(*heard.0.lock().unwrap(), [Step::Note { text: "another hob is changing the shelf; waiting for it".into() }]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_fetched_by_one_checked_and_shared() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path());
    let (bytes, digest) = (b"weights".as_slice(), Digest::of(b"weights"));
    let Claim::Missing(slot) = models::claim(&home, digest, 7, &quiet()).await.unwrap() else { panic!("there is none yet") };
    let second = {
        let home = home.clone();
        tokio::spawn(async move { models::claim(&home, digest, 7, &quiet()).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!second.is_finished(), "two fetch the same model");
    fs::write(slot.part(), bytes).unwrap();
    let path = slot.keep().unwrap();
    assert_eq!((fs::read(&path).unwrap().as_slice(), fs::metadata(&path).unwrap().permissions().mode() & 0o777), (bytes, 0o444));
    assert!(matches!(second.await.unwrap().unwrap(), Claim::Present(found) if found == path));

    // A file of that name with other bytes counts as missing; fetched bytes that differ are not kept.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, b"wEights").unwrap();
    let Claim::Missing(slot) = models::claim(&home, digest, 7, &quiet()).await.unwrap() else { panic!("other bytes are no model") };
    fs::write(slot.part(), b"weightz").unwrap();
    let fault = slot.keep().unwrap_err();
    assert_eq!(fault.code, Code::Tampered);
    assert_eq!(fs::read_dir(home.staging()).unwrap().count(), 0);
}

#[test]
fn a_recipe_folder_runs_unsigned_and_says_what_it_lacks() {
    let root = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(Home::at(root.path().join("home"))).unwrap();
    let folder = recipe_folder(root.path(), "0.1.0", "");
    let loaded = shelf.load_folder(&folder).unwrap();
    assert!(loaded.is_unsigned());
    fs::write(folder.join("pod/echo.py"), "changed").unwrap();
    assert_ne!(shelf.load_folder(&folder).unwrap().digest(), loaded.digest());

    let lacks = |folder: &Path, code: Code, says: &str, hint: &str| {
        let fault = shelf.load_folder(folder).unwrap_err();
        assert_eq!(fault.code, code, "{}", fault.message);
        assert!(fault.message.contains(says) && fault.hint.as_deref().unwrap_or("").contains(hint), "{fault:?}");
    };
    lacks(&root.path().join("no"), Code::RecipeNotFound, "no folder", "recipe.toml");
    lacks(root.path(), Code::InvalidRecipe, "no recipe.toml", "recipe.toml");
    let folder = recipe_folder(root.path(), "0.2.0", "lock = \"pod/requirements.lock\"");
    lacks(&folder, Code::InvalidRecipe, "no file `pod/requirements.lock`, which `pod.lock` names", "correct the key");
    let folder = recipe_folder(root.path(), "0.3.0", "\n[glue]\nworld = \"0.1\"");
    lacks(&folder, Code::InvalidRecipe, "no glue.wasm", "authoring::build");
    fs::write(folder.join("glue.wasm"), "wasm").unwrap();
    assert_eq!(shelf.load_folder(&folder).unwrap().glue().unwrap().as_ref(), b"wasm");

    let model = format!("\n[[model]]\nname = \"weights\"\nsha256 = \"{}\"\nbytes = 1\n", Digest::of(b"w"));
    let folder = recipe_folder(root.path(), "0.4.0", &model);
    lacks(&folder, Code::ModelMissing, "model `weights` of `hob/echo`: no file", "README");
    fs::create_dir(folder.join("models")).unwrap();
    fs::write(folder.join("models/weights"), "x").unwrap();
    lacks(&folder, Code::InvalidRecipe, "model `weights`", "sha256");
    fs::write(folder.join("models/weights"), "w").unwrap();
    assert_eq!(shelf.load_folder(&folder).unwrap().models()[0].digest, Digest::of(b"w"));
}
