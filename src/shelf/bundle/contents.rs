//! Decides which files of a recipe folder go into its bundle.
//!
//! The author who packs the folder and the pod that runs from it get the same answer. `mod.rs` says how files
//! are encoded. Each file that stays behind is reported by name with a reason, so that nothing that works in
//! the folder silently disappears once the recipe is installed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use semver::{Version, VersionReq};

use crate::{
    model::{
        Code, Fault, Manifest, act,
        distinct::{self, Distinct},
        hint,
        limits::{
            BUNDLE_FILES_MAX, BUNDLE_PATH_BYTES_FIRST, BUNDLE_PATH_BYTES_MAX, IGNORE_FILE_BYTES_MAX, IGNORE_PATTERNS_MAX, PACK_ENTRIES_MAX,
            PACK_NAMED_MAX, PATTERN_STEPS_MAX,
        },
        manifest,
        path_pattern::{PathPattern, Reached, Steps, TooManySteps, is_inner_path, is_part},
        stand_in,
    },
    shelf::{
        bundle::{
            index::Index,
            places::{folded, is_first_place, is_never, is_wider_place},
        },
        durable,
    },
};

/// Which files a manifest asks for.
#[derive(Debug, Clone)]
pub struct Rules<'a> {
    /// Whether the manifest has `[glue]`; without it, a stray `glue.wasm` is left out.
    pub glue: bool,
    pub files: &'a [PathPattern],
    /// The JSON files that hold schemas.
    pub schemas: Vec<&'a str>,
    /// Whether every version of Hob that the manifest allows takes the wider places.
    pub wider: bool,
}

/// A file or folder of a recipe, with the parts of the packing decision that its path alone determines.
#[derive(Debug, Clone)]
struct Spot {
    /// What the key `files` says about it.
    named: Reached,
    /// Whether its name, or the name of a folder above it, begins with a dot.
    hidden: bool,
}

impl<'a> Rules<'a> {
    pub fn of(manifest: &'a Manifest) -> Rules<'a> {
        let schemas = manifest.schema_files().map(|(_, file)| file).collect();
        Rules { glue: manifest.glue.is_some(), files: &manifest.files, schemas, wider: manifest::names_wider(&manifest.hob) }
    }

    fn has_schema_below(&self, folder: &str) -> bool {
        self.schemas.iter().any(|path| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
    }

    fn top(&self) -> Spot {
        Spot { named: Reached::start(self.files), hidden: false }
    }

    /// The file or folder `name` within the folder `above`.
    fn within(&self, above: &Spot, name: &str, steps: &mut Steps) -> Result<Spot, TooManySteps> {
        Ok(Spot { named: above.named.step(self.files, name, steps)?, hidden: above.hidden || name.starts_with('.') })
    }

    /// `Ok` if files below this folder may be packed; otherwise the reason why not.
    fn enters(&self, path: &str, spot: &Spot) -> Result<(), Left> {
        let first = path.split('/').next();
        match first {
            _ if is_never(path) => Err(Left::Elsewhere),
            _ if spot.named.is_live() || self.has_schema_below(path) => Ok(()),
            _ if spot.hidden => Err(Left::Hidden),
            Some("pod" | "cases") => Ok(()),
            Some("LICENSES") => {
                if self.wider {
                    Ok(())
                } else {
                    Err(Left::Newer)
                }
            }
            _ => Err(Left::Elsewhere),
        }
    }

    /// `Ok` if the file at this path is packed; otherwise the reason why not.
    fn takes(&self, path: &str, spot: &Spot) -> Result<(), Left> {
        match () {
            () if is_never(path) => Err(Left::Elsewhere),
            () if spot.named.is_taken(self.files) => Ok(()),
            () if self.schemas.contains(&path) && (self.wider || is_first_place(path)) => Ok(()),
            () if self.schemas.contains(&path) => Err(Left::Newer),
            () if spot.hidden => Err(Left::Hidden),
            () if path == "glue.wasm" && !self.glue => Err(Left::Stray),
            () if !is_wider_place(path) => Err(Left::Elsewhere),
            () if !self.wider && !is_first_place(path) => Err(Left::Newer),
            () => Ok(()),
        }
    }

    /// Why the path is not packed, as far as the path alone determines it.
    pub(in crate::shelf) fn left_of(&self, path: &str) -> Option<Left> {
        self.left(path, &mut Steps::default()).ok().flatten()
    }

    /// Why a file at this path is not packed, as far as the path alone determines it.
    ///
    /// Errors: the check takes more steps than allowed.
    fn left(&self, path: &str, steps: &mut Steps) -> Result<Option<Left>, TooManySteps> {
        let mut spot = self.top();
        for part in path.split('/') {
            spot = self.within(&spot, part, steps)?;
        }
        Ok(self.takes(path, &spot).err())
    }
}

/// Checks the signed content of a bundle against the bundle's own manifest. A file that `hob pack` would not
/// have added was added in the hope that nobody finds it. A file that `pack` refuses only by its name, as a
/// possible secret, is accepted: its author may publish it.
///
/// Errors: `bundle_invalid`, which names the path.
pub fn check_index(index: &Index, manifest: &Manifest) -> Result<(), Fault> {
    let refused = |text: String| {
        let text = format!("the bundle of `{}` {}: {text}", manifest.name, manifest.version);
        Err(Fault::new(Code::BundleInvalid, text)
            .hint(hint!["nothing was installed; its publisher has to publish it again, with ", act::publish()]))
    };
    let (rules, mut steps) = (Rules::of(manifest), Steps::default());
    for (path, _) in index.files() {
        match rules.left(path, &mut steps) {
            Ok(None) => {}
            Ok(Some(left)) => return refused(format!("`{path}` would not be packed: {}", left.why())),
            Err(TooManySteps) => return refused(format!("holding its files against `files` takes more than {PATTERN_STEPS_MAX} steps")),
        }
    }
    Ok(())
}

/// The files of a recipe folder, sorted into those that are packed and those that stay behind.
#[derive(Debug, Default)]
pub struct Contents {
    /// Path in the bundle, and the file on disk.
    pub taken: BTreeMap<String, PathBuf>,
    /// Files that stay behind: the first [`PACK_NAMED_MAX`] by path; a folder ends with `/`.
    pub left: BTreeMap<String, Left>,
    /// How many more files stay behind.
    pub left_more: usize,
    /// Files in a packed place that look like rubbish or like a secret. They are not packed either.
    pub suspect: BTreeMap<String, &'static str>,
    /// Patterns of `files` that match no packed file: misspelled, or their files are missing from this copy
    /// of the folder.
    pub idle: Vec<String>,
}

/// Why something stays behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Left {
    /// It lies in a place from which nothing is packed.
    Elsewhere,
    /// Its name begins with a dot.
    Hidden,
    /// Some version of Hob that the manifest allows does not take it.
    Newer,
    /// It is compiled glue in a recipe without `[glue]`.
    Stray,
}

impl Left {
    /// The reason, for people.
    pub fn why(self) -> &'static str {
        match self {
            Left::Elsewhere => "not in `pod/` or `cases/`, and not in `files` of recipe.toml",
            Left::Hidden => "its name or its folder's begins with a dot, and `files` in recipe.toml does not spell it",
            Left::Stray => "recipe.toml has no `[glue]`",
            Left::Newer => "Hob 0.1.0 does not take it: write `hob = \">=0.1.1, <0.2\"` in recipe.toml",
        }
    }
}

impl Contents {
    /// Errors: `invalid_recipe` if a file that would be packed looks like rubbish or like a secret, or if a
    /// pattern of `files` matches nothing; the fault names each and the ways out.
    pub fn check(&self, folder: &Path) -> Result<(), Fault> {
        if let Some(pattern) = self.idle.first() {
            let text = format!("`files` in recipe.toml names `{pattern}`, and nothing in {} goes along by it", folder.display());
            return Err(Fault::new(Code::InvalidRecipe, text).hint(
                "correct it or leave it out; what `.hobignore` names, `__pycache__`, `.git` and the recipe's own `models/` are never taken",
            ));
        }
        if self.suspect.is_empty() {
            return Ok(());
        }
        let named: Vec<_> = self.suspect.iter().take(PACK_NAMED_MAX).map(|(path, what)| format!("`{path}` ({what})")).collect();
        let more = self.suspect.len().saturating_sub(PACK_NAMED_MAX);
        let more = if more == 0 { String::new() } else { format!(", and {more} more") };
        Err(Fault::new(
            Code::InvalidRecipe,
            format!("{} has what is hardly meant to be published: {}{more}", folder.display(), named.join(", ")),
        )
        .hint("delete it or name it in `.hobignore`; what is meant to go along is spelled out in `files` of recipe.toml, e.g. `files = [\"pod/ca.pem\"]`"))
    }
}

/// Names of files and folders, in any case, that tools generate or that hold secrets, and what each is.
const SUSPECT: &[(&str, &str)] = &[
    ("venv", "a virtual environment: lock what it has"),
    (".venv", "a virtual environment: lock what it has"),
    ("node_modules", "installed packages"),
    ("*.egg-info", "made by setuptools"),
    ("*.pyc", "compiled Python"),
    ("*.pyo", "compiled Python"),
    ("*.hob", "a bundle, as packing writes it"),
    ("*~", "an editor's copy"),
    ("#*#", "an editor's copy"),
    ("*.swp", "an editor's copy"),
    ("*.orig", "left by a merge"),
    ("*.rej", "left by a merge"),
    ("thumbs.db", "made by a file manager"),
    ("desktop.ini", "made by a file manager"),
    ("id_rsa", "a private key"),
    ("id_dsa", "a private key"),
    ("id_ecdsa", "a private key"),
    ("id_ed25519", "a private key"),
    ("*.pem", "perhaps a private key"),
    ("*.key", "perhaps a private key"),
    ("*.key.json", "a key of a repository"),
    ("*.p12", "perhaps a private key"),
    ("*.pfx", "perhaps a private key"),
    ("credentials.json", "credentials"),
    ("credentials", "credentials"),
    (".netrc", "credentials"),
    (".npmrc", "credentials"),
    (".pypirc", "credentials"),
    (".env", "variables, often secret ones"),
];

/// Files that every project has beside its sources; they stay behind without a message.
const UNSAID: &[&str] = &[".git", ".gitignore", ".gitattributes", ".hobignore", "__pycache__", "models", "glue.wasm"];

/// Sorts the files of a recipe folder.
///
/// Errors: `invalid_recipe` for links and names that a bundle cannot carry, and for a malformed `.hobignore`;
/// `too_large`, `io`.
pub fn of(folder: &Path, rules: &Rules) -> Result<Contents, Fault> {
    let ignored = ignored(folder)?;
    let mut walk = Walk {
        folder,
        rules,
        idle: vec![true; rules.files.len()],
        contents: Contents::default(),
        distinct: Distinct::default(),
        seen: 0,
        steps: Steps::default(),
        ignored: &ignored,
    };
    walk.below("", &rules.top(), &Reached::start(&ignored))?;
    let Walk { idle, mut contents, .. } = walk;
    contents.idle = rules.files.iter().zip(idle).filter(|(_, idle)| *idle).map(|(pattern, _)| pattern.to_string()).collect();
    Ok(contents)
}

fn ignored(folder: &Path) -> Result<Vec<PathPattern>, Fault> {
    let path = folder.join(".hobignore");
    let Some(bytes) = durable::read(&path, IGNORE_FILE_BYTES_MAX).map_err(|fault| match fault.code {
        Code::TooLarge => fault.hint("name folders as a whole, e.g. `notes/`, or have patterns such as `*.tmp`"),
        _ if path.symlink_metadata().is_ok_and(|found| !found.is_file()) => {
            Fault::new(Code::InvalidRecipe, fault.message).hint("it is a plain file with one pattern a line, e.g. `*.tmp` or `notes/`")
        }
        _ => fault,
    })?
    else {
        return Ok(Vec::new());
    };
    let wrong = |line: usize, why: String| {
        Fault::new(Code::InvalidRecipe, format!("{}:{line}: {why}", path.display())).hint("one pattern a line, e.g. `*.tmp` or `notes/`")
    };
    let text = stand_in::text(bytes).map_err(|wrong| wrong.fault(Code::InvalidRecipe, &path.display().to_string()))?;
    let mut patterns = Vec::new();
    for (at, line) in text.lines().enumerate() {
        patterns.extend(PathPattern::parse_ignored(line).map_err(|why| wrong(at + 1, why))?);
        if patterns.len() > IGNORE_PATTERNS_MAX {
            return Err(wrong(at + 1, format!("more than {IGNORE_PATTERNS_MAX} patterns")));
        }
    }
    Ok(patterns)
}

struct Walk<'a> {
    folder: &'a Path,
    rules: &'a Rules<'a>,
    ignored: &'a [PathPattern],
    contents: Contents,
    /// For each pattern of `files`, whether it has matched no packed file so far.
    idle: Vec<bool>,
    distinct: Distinct,
    seen: usize,
    steps: Steps,
}

impl Walk<'_> {
    fn below(&mut self, inner: &str, spot: &Spot, ignored: &Reached) -> Result<(), Fault> {
        let place = self.folder.join(inner);
        let failed = |error: std::io::Error| Fault::io(format!("reading the folder {}", place.display()), &error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&place).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            self.seen += 1;
            if self.seen > PACK_ENTRIES_MAX {
                let text = format!("{} has more than {PACK_ENTRIES_MAX} files and folders to look at", self.folder.display());
                return Err(Fault::new(Code::TooLarge, text).hint("name folders that are no part of the recipe in `.hobignore`"));
            }
            match name.into_string() {
                Ok(name) => names.push(name),
                // At the top of the folder such a file would not be packed, so it needs no report.
                Err(_) if inner.is_empty() => {}
                Err(name) => {
                    let text = format!("{}: the file name {name:?} is not UTF-8 and cannot be packed", place.display());
                    return Err(Fault::new(Code::InvalidRecipe, text).hint("rename it, or name its folder in `.hobignore`"));
                }
            }
        }
        names.sort();
        for name in names {
            self.one(inner, &name, spot, ignored)?;
        }
        Ok(())
    }

    fn too_many_steps(&self) -> Fault {
        let text = format!(
            "holding what is in {} against `files` and `.hobignore` takes more than {PATTERN_STEPS_MAX} steps",
            self.folder.display()
        );
        Fault::new(Code::TooLarge, text)
            .hint("have fewer patterns with `*`, and name large folders that are no part of the recipe, e.g. `/notes/`")
    }

    fn one(&mut self, above: &str, name: &str, spot: &Spot, ignored: &Reached) -> Result<(), Fault> {
        let path = if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") };
        let ignored = ignored.step(self.ignored, name, &mut self.steps).map_err(|TooManySteps| self.too_many_steps())?;
        if path != "recipe.toml" && (name == "__pycache__" || ignored.is_taken(self.ignored)) {
            return Ok(());
        }
        let spot = self.rules.within(spot, name, &mut self.steps).map_err(|TooManySteps| self.too_many_steps())?;
        let place = self.folder.join(&path);
        let kind = fs::symlink_metadata(&place).map_err(|error| Fault::io(place.display(), &error))?.file_type();
        let goes = if kind.is_dir() { self.rules.enters(&path, &spot) } else { self.rules.takes(&path, &spot) };
        let shown = if kind.is_dir() { format!("{path}/") } else { path.clone() };
        if let Err(why) = goes {
            if why == Left::Newer && kind.is_file() {
                // A file that no Hob can pack is refused: naming a newer Hob would not help.
                self.carries(&path, kind)?;
            }
            self.leave(shown, why);
            return Ok(());
        }
        if let Some(what) = suspicion(name).filter(|_| !(spot.named.spelled && (kind.is_dir() || spot.named.is_taken(self.rules.files)))) {
            self.uses(&spot);
            self.contents.suspect.insert(shown, what);
            return Ok(());
        }
        match kind.is_dir() {
            // Nothing below could be packed; and a stranger must not decide how deep the walk goes.
            true if path.len() > BUNDLE_PATH_BYTES_MAX => {
                let text = format!(
                    "the folder `{}...` in {} cannot be packed: its path has more than {BUNDLE_PATH_BYTES_MAX} bytes",
                    &path[..path.floor_char_boundary(BUNDLE_PATH_BYTES_MAX)],
                    self.folder.display()
                );
                Err(Fault::new(Code::InvalidRecipe, text).hint("put it higher up or delete it, or name it in `.hobignore`"))
            }
            true => self.below(&path, &spot, &ignored),
            false => {
                self.uses(&spot);
                self.carries(&path, kind)?;
                self.take(path, place)
            }
        }
    }

    /// Refuses files that no bundle can hold.
    fn carries(&self, path: &str, kind: fs::FileType) -> Result<(), Fault> {
        if !kind.is_file() {
            let what = if kind.is_symlink() { "a link" } else { "not a plain file" };
            let text = format!("`{path}` in {} is {what}: a bundle holds plain files only", self.folder.display());
            return Err(Fault::new(Code::InvalidRecipe, text).hint("replace it with a copy of the file, or remove it"));
        }
        if !is_inner_path(path) || tar::Header::new_ustar().set_path(path).is_err() {
            let text = format!(
                "`{path}` in {} cannot be packed: wanted at most {BUNDLE_PATH_BYTES_MAX} bytes of path and {BUNDLE_PATH_BYTES_FIRST} of name, \
                 without `\\` and control characters",
                self.folder.display(),
            );
            return Err(Fault::new(Code::InvalidRecipe, text).hint("give it a shorter, plainer name"));
        }
        Ok(())
    }

    fn take(&mut self, path: String, place: PathBuf) -> Result<(), Fault> {
        if let Err(clash) = self.distinct.take(&path) {
            let text = format!("{} in {}", folded(&path, &clash), self.folder.display());
            return Err(Fault::new(Code::InvalidRecipe, text).hint("rename one of the two, or name it in `.hobignore`"));
        }
        if self.contents.taken.len() >= BUNDLE_FILES_MAX {
            let text = format!("{} holds more than {BUNDLE_FILES_MAX} files to pack", self.folder.display());
            return Err(Fault::new(Code::TooLarge, text).hint(hint!["large sets of files belong into one archive, or into ", act::model()]));
        }
        self.contents.taken.insert(path, place);
        Ok(())
    }

    fn uses(&mut self, spot: &Spot) {
        for number in spot.named.takes(self.rules.files) {
            self.idle[number] = false;
        }
    }

    fn leave(&mut self, path: String, why: Left) {
        match path.trim_end_matches('/') {
            name if UNSAID.contains(&name) => {}
            _ if self.contents.left.len() >= PACK_NAMED_MAX => self.contents.left_more += 1,
            _ => drop(self.contents.left.insert(path, why)),
        }
    }
}

/// The reason why a file or folder of this name is probably not meant to be published.
fn suspicion(name: &str) -> Option<&'static str> {
    let name = distinct::fold(name);
    SUSPECT.iter().find(|(pattern, _)| is_part(pattern, &name, &mut 0)).map(|(_, what)| *what)
}

/// The version of Hob that first took the wider places.
pub fn wider_since() -> Version {
    manifest::WIDER_SINCE
}

/// Errors: `bundle_invalid` if a bundle has a file in a wider place and its manifest allows a version of Hob
/// that does not take it.
pub fn check_wider(path: Option<&str>, hob: &VersionReq) -> Result<(), Fault> {
    match path {
        Some(path) if !manifest::names_wider(hob) => Err(Fault::new(
            Code::BundleInvalid,
            format!("`{path}` has no place in a bundle for Hob `{hob}`: only Hob {} and newer take it", wider_since()),
        )
        .hint("nothing was installed; its publisher has to publish it again with `hob = \">=0.1.1, <0.2\"`")),
        _ => Ok(()),
    }
}
