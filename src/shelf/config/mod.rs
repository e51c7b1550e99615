//! `hob.toml`: which repositories and recipes the operator wants, and which tools to use.
//!
//! Written by people, so it is read with line numbers and edited in place: comments, order and spacing stay. What
//! this Hob does not know it refuses, because a key that does nothing is a promise not kept.

pub mod grants;
mod machine;
mod serve;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use crate::{
    disk::{make, owner},
    model::{
        Address, Code, Fault, Grants, Home, RecipeName, ServeRules, VersionRange, act, hint, id::is_name, limits, manifest::findings,
        nearest, shown, stand_in, status::machine::MachineRules,
    },
};

use crate::shelf::{
    blocking, durable,
    environment::{Tools, indexes::Indexes},
    files::{
        self,
        locks::{self, Held},
    },
};

/// A repository that recipes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteEntry {
    pub name: String,
    pub url: Address,
}

/// `hob.toml`, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// In the order of the file: the first one that has a publisher owns its names.
    pub remotes: Vec<RemoteEntry>,
    pub recipes: BTreeMap<RecipeName, VersionRange>,
    pub tools: Tools,
    /// What the operator gave, by recipe name or by the absolute path of a recipe folder.
    pub grants: BTreeMap<String, Grants>,
    /// What pods may have of the machine.
    pub machine: MachineRules,
    /// The number of a group whose members may write to this home's data, cache and state.
    pub group: Option<u32>,
    /// What a server's operator wants of it.
    pub serve: ServeRules,
}

/// What `hob.toml` says of a recipe that is being installed.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// `None`: as it is there already, or any version.
    pub range: Option<&'a VersionRange>,
    pub given: &'a Grants,
}

impl Config {
    /// The file of this home; no file is an empty configuration.
    ///
    /// Errors: `invalid_config` with line and key.
    pub fn read(home: &Home) -> Result<Config, Fault> {
        Config::of_home(home, &read_text(home)?)
    }

    fn of_home(home: &Home, text: &str) -> Result<Config, Fault> {
        let what = home.config_file().display().to_string();
        let config = Config::parse(text, &what)?;
        grants::beside(home, &config.grants, &what)?;
        Ok(config)
    }

    /// Reads a configuration. `what` names the file in faults.
    pub fn parse(text: &str, what: &str) -> Result<Config, Fault> {
        let reader = Reader { text, what };
        let parsed = findings::parse(text, |offset, why| {
            reader
                .fault(offset, "", why)
                .hint("correct that line, or take it out: Hob reads the file as a whole, and does not guess what was meant")
        })?;
        let needed = [("remote.name", "\"a\""), ("remote.url", "\"https://a.example\"")];
        findings::all(parsed, text, &needed, |root, _, _| Config::of(root, &reader))
    }

    fn of(root: &DeTable, reader: &Reader) -> Result<Config, Fault> {
        reader.only(root, "", &["remote", "recipes", "grants", "python", "uv", "environments", "machine", "home", "serve"])?;
        let mut config = Config { remotes: reader.remotes(root)?, ..Config::default() };
        if let Some(recipes) = reader.table(root, "recipes")? {
            for (name, wanted) in recipes.iter() {
                let key = format!("recipes.{}", name.get_ref());
                let at = name.span().start;
                let name: RecipeName = name.get_ref().parse().map_err(|fault: Fault| reader.fault(at, &key, fault.message))?;
                let text = reader.text(wanted, &key)?;
                let range = text.parse().map_err(|fault: Fault| reader.fault(wanted.span().start, &key, fault.message))?;
                config.recipes.insert(name, range);
            }
        }
        config.grants = grants::read(reader, root)?;
        config.tools.python = reader.tool(root, "python")?;
        config.tools.uv = reader.tool(root, "uv")?;
        config.machine = machine::read(reader, root)?;
        if let Some(home) = reader.table(root, "home")? {
            reader.only(home, "home", &["group"])?;
            if let Some((name, at)) = reader.optional(home, "home", "group")? {
                let unknown = || {
                    let fault = reader.fault(at, "home.group", format!("this machine has no group `{name}`"));
                    fault.hint("name a group that /etc/group has, or give its number")
                };
                config.group = Some(owner::group_of(name).ok_or_else(unknown)?);
            }
        }
        config.serve = serve::read(reader, root)?;
        config.tools.indexes = Indexes::read(reader, root)?;
        Ok(config)
    }

    /// The remote of that name.
    ///
    /// Errors: `remote_not_found`, which says what there is.
    pub fn remote(&self, name: &str) -> Result<&RemoteEntry, Fault> {
        self.remotes.iter().find(|remote| remote.name == name).ok_or_else(|| {
            let names: Vec<_> = self.remotes.iter().map(|remote| format!("`{}`", remote.name)).collect();
            let there = if names.is_empty() { "there is none".to_owned() } else { format!("there is: {}", names.join(", ")) };
            Fault::new(Code::RemoteNotFound, format!("no remote `{name}` in hob.toml ({there})"))
                .hint(hint![act::remote_add(name), " adds it"])
        })
    }
}

fn read_text(home: &Home) -> Result<String, Fault> {
    let path = home.config_file();
    // The one file that people write themselves, some of them by way of a link.
    let real = path.canonicalize().unwrap_or_else(|_| path.clone());
    let unread = |fault: Fault| match fault.code {
        // Its code says what becomes of calls meanwhile, whatever keeps it from being read.
        // What the machine has run out of is named already.
        Code::Io if !fault.is_exhaustion() => {
            Fault::new(Code::InvalidConfig, fault.message).hint("it has to be a plain file that this user can read")
        }
        _ => fault,
    };
    let bytes = durable::read(&real, limits::CONFIG_BYTES_MAX).map_err(unread)?.unwrap_or_default();
    stand_in::text(bytes).map_err(|wrong| wrong.fault(Code::InvalidConfig, &path.display().to_string()))
}

/// The right to change `hob.toml`: one holder among all processes. It is given to functions that do not wait, by [`change`] and
/// [`super::store::Shelf::write`], so nobody holds it while a server answers.
#[derive(Debug)]
pub struct ConfigGuard(#[expect(dead_code, reason = "held, not read")] Held);

/// Changes `hob.toml` in one step. The file's lock is held for the change alone, which does not wait for anybody.
///
/// Errors: those of `edit`, of [`Edit::begin`] and of [`Edit::write`]; the file is then as it was.
pub async fn change<T: Send + 'static>(
    home: &Home,
    edit: impl FnOnce(&mut Edit, &ConfigGuard) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let guard = lock(home).await?;
    let home = home.clone();
    blocking(move || {
        let mut begun = Edit::begin(&home, &guard)?;
        let changed = edit(&mut begun, &guard)?;
        if begun.is_changed() {
            begun.write()?;
        }
        Ok(changed)
    })
    .await
}

pub(super) async fn lock(home: &Home) -> Result<ConfigGuard, Fault> {
    let held = locks::acquire_briefly(&home.locks().join("config.lock"), "changing hob.toml").await?;
    sweep(home.config())?;
    Ok(ConfigGuard(held))
}

/// Deletes the temporary files that a killed writer left beside `hob.toml`. Only a holder of its lock writes there.
fn sweep(folder: &Path) -> Result<(), Fault> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b".half-")) {
        files::remove_tree(&entry.path())?;
    }
    Ok(())
}

/// Changes to `hob.toml` that keep everything else as its author wrote it.
pub struct Edit {
    home: Home,
    before: String,
    pub(super) document: DocumentMut,
}

impl Edit {
    /// Begins from the file as it is, which must be a valid one.
    pub fn begin(home: &Home, _guard: &ConfigGuard) -> Result<Edit, Fault> {
        let before = read_text(home)?;
        Config::of_home(home, &before)?;
        let document = before.parse().map_err(|error: toml_edit::TomlError| {
            Fault::new(Code::InvalidConfig, format!("{}: not TOML: {}", home.config_file().display(), error.message()))
        })?;
        Ok(Edit { home: home.clone(), before, document })
    }

    fn is_changed(&self) -> bool {
        self.document.to_string() != self.before
    }

    /// Adds the remote, or changes its URL.
    pub fn set_remote(&mut self, name: &str, url: impl Into<Address>) {
        let url = url.into();
        let url = url.revealed();
        let remotes = self.document.entry("remote").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        if let Some(tables) = remotes.as_array_of_tables_mut() {
            if let Some(table) = tables.iter_mut().find(|table| is_named(table, name)) {
                table["url"] = value(url);
                return;
            }
            let mut table = Table::new();
            table["name"] = value(name);
            table["url"] = value(url);
            tables.push(table);
        } else if let Some(array) = remotes.as_array_mut() {
            // `remote = [{ ... }]`, which means the same.
            array.retain(|table| table.as_inline_table().and_then(|table| table.get("name")?.as_str()) != Some(name));
            array.push(toml_edit::InlineTable::from_iter([("name", name), ("url", url)]));
        }
    }

    /// Takes the remote out; whether it was there.
    pub fn remove_remote(&mut self, name: &str) -> bool {
        let Some(remotes) = self.document.get_mut("remote") else { return false };
        if let Some(tables) = remotes.as_array_of_tables_mut() {
            let before = tables.len();
            tables.retain(|table| !is_named(table, name));
            return tables.len() < before;
        }
        remotes.as_array_mut().is_some_and(|array| {
            let before = array.len();
            array.retain(|table| table.as_inline_table().and_then(|table| table.get("name")?.as_str()) != Some(name));
            array.len() < before
        })
    }

    /// Wants the recipe in this range; without one as it is wanted already, or in any version.
    pub fn set_recipe(&mut self, name: &RecipeName, range: Option<&VersionRange>) {
        let recipes = self.document.entry("recipes").or_insert(Item::Table(Table::new()));
        if let Some(recipes) = recipes.as_table_like_mut() {
            let name = name.to_string();
            let there = recipes.get_mut(&name).and_then(Item::as_value_mut);
            let range = match (range, &there) {
                (None, Some(_)) => return,
                (None, None) => &VersionRange::ANY,
                (Some(range), _) => range,
            };
            match there {
                // The value alone: a comment behind it is its author's.
                Some(old) => {
                    let decor = old.decor().clone();
                    *old = range.to_string().into();
                    *old.decor_mut() = decor;
                }
                None => {
                    recipes.insert(&name, value(range.to_string()));
                }
            }
        }
    }

    /// Wants the recipe no more; whether it was wanted.
    pub fn remove_recipe(&mut self, name: &RecipeName) -> bool {
        let recipes = self.document.get_mut("recipes").and_then(Item::as_table_like_mut);
        recipes.is_some_and(|recipes| recipes.remove(&name.to_string()).is_some())
    }

    /// Replaces the file in one step.
    ///
    /// Errors: `invalid_config` when the outcome would not read (nothing is written then), `disk_full`, `io`.
    pub fn write(self) -> Result<(), Fault> {
        self.prepare()?.put()
    }

    /// Writes the outcome beside the file: what can fail for want of space fails here.
    pub(super) fn prepare(self) -> Result<Prepared, Fault> {
        let (text, path) = (self.document.to_string(), self.home.config_file());
        let config = Config::of_home(&self.home, &text)?;
        files::can_be_read(&path, text.len(), limits::CONFIG_BYTES_MAX)?;
        let mode = mode(&path, &config);
        durable::make_folder(self.home.config())?;
        let write = || -> io::Result<NamedTempFile> {
            let mut file = make::temporary(self.home.config(), ".half-", mode)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        let file = write().map_err(|error| Fault::io(format!("writing {}", path.display()), &error))?;
        Ok(Prepared { file, path })
    }
}

/// The mode of a new `hob.toml`: no more than the old one's, which its operator may have closed to others; without an old one closed where an
/// address in it has a secret.
fn mode(path: &Path, config: &Config) -> u32 {
    match std::fs::metadata(path) {
        Ok(old) => old.mode() & make::FILE,
        Err(_) if config.remotes.iter().any(|remote| remote.url.revealed() != remote.url.shown()) => make::PRIVATE_FILE,
        Err(_) => make::FILE,
    }
}

/// A new `hob.toml` that lies beside the old one.
pub(super) struct Prepared {
    file: NamedTempFile,
    path: PathBuf,
}

impl Prepared {
    /// Puts it in place of the old one.
    pub fn put(self) -> Result<(), Fault> {
        let folder = self.path.parent().map(Path::to_owned).unwrap_or_default();
        let renamed = self.file.persist(&self.path).map_err(|error| error.error).and_then(|_| durable::sync_folder(&folder));
        renamed.map_err(|error| Fault::io(format!("writing {}", self.path.display()), &error))
    }
}

fn is_named(table: &Table, name: &str) -> bool {
    table.get("name").and_then(Item::as_str) == Some(name)
}

/// The file's text, for line numbers.
pub(super) struct Reader<'a> {
    text: &'a str,
    what: &'a str,
}

type Found<'t> = Option<(&'t str, usize)>;

impl Reader<'_> {
    pub(super) fn fault(&self, offset: usize, key: &str, message: String) -> Fault {
        let line = self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
        let key = shown::dotted(key);
        let place = if key.is_empty() { String::new() } else { format!("{key}: ") };
        Fault::new(Code::InvalidConfig, format!("{}:{line}: {place}{message}", self.what)).with("line", line).with("key", key)
    }

    /// Refuses keys that are not among `known`.
    pub(super) fn only(&self, table: &DeTable, path: &str, known: &[&str]) -> Result<(), Fault> {
        let Some((name, _)) = table.iter().find(|(name, _)| !known.contains(&name.get_ref().as_ref())) else { return Ok(()) };
        let word = name.get_ref().as_ref();
        let key = if path.is_empty() { word.to_owned() } else { format!("{path}.{word}") };
        Err(self
            .fault(name.span().start, &key, format!("this Hob knows no such key{}", nearest::instead(word, known)))
            .with("nearest", nearest::among(word, known.iter().copied()))
            .hint("correct the key, or remove it; a newer Hob may know it"))
    }

    pub(super) fn get<'t>(&self, table: &'t DeTable<'t>, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    pub(super) fn table<'t>(&self, root: &'t DeTable<'t>, key: &str) -> Result<Option<&'t DeTable<'t>>, Fault> {
        match self.get(root, key).map(|value| (value.get_ref(), value.span().start)) {
            None => Ok(None),
            Some((DeValue::Table(table), _)) => Ok(Some(table)),
            Some((other, at)) => Err(self.fault(at, key, format!("found {}, wanted a table", shown::found_toml(key, other)))),
        }
    }

    pub(super) fn text<'t>(&self, value: &'t Spanned<DeValue<'t>>, key: &str) -> Result<&'t str, Fault> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text),
            other => Err(self.fault(value.span().start, key, format!("found {}, wanted a string", shown::found_toml(key, other)))),
        }
    }

    pub(super) fn optional<'t>(&self, table: &'t DeTable<'t>, path: &str, key: &str) -> Result<Found<'t>, Fault> {
        match self.get(table, key) {
            None => Ok(None),
            Some(value) => Ok(Some((self.text(value, &format!("{path}.{key}"))?, value.span().start))),
        }
    }

    /// `[python]` or `[uv]`: one absolute path.
    fn tool(&self, root: &DeTable, key: &str) -> Result<Option<PathBuf>, Fault> {
        let Some(table) = self.table(root, key)? else { return Ok(None) };
        self.only(table, key, &["path"])?;
        match self.optional(table, key, "path")? {
            None => Ok(None),
            Some((path, _)) if path.starts_with('/') => Ok(Some(path.into())),
            Some((path, at)) => Err(self.fault(at, &format!("{key}.path"), format!("`{path}` is not an absolute path"))),
        }
    }

    fn remotes(&self, root: &DeTable) -> Result<Vec<RemoteEntry>, Fault> {
        let Some(value) = self.get(root, "remote") else { return Ok(Vec::new()) };
        let DeValue::Array(items) = value.get_ref() else {
            return Err(self.fault(
                value.span().start,
                "remote",
                format!("found {}, wanted `[[remote]]` tables", shown::found_toml("remote", value.get_ref())),
            ));
        };
        let mut remotes: Vec<RemoteEntry> = Vec::new();
        for item in items.iter() {
            let start = item.span().start;
            let DeValue::Table(table) = item.get_ref() else {
                return Err(self.fault(start, "remote", format!("found {}, wanted a table", shown::found_toml("remote", item.get_ref()))));
            };
            self.only(table, "remote", &["name", "url"])?;
            let wanted = |key: &str| {
                self.optional(table, "remote", key)?.ok_or_else(|| self.fault(start, &format!("remote.{key}"), "missing".to_owned()))
            };
            let ((name, name_at), (url, url_at)) = (wanted("name")?, wanted("url")?);
            if !is_name(name) {
                return Err(self.fault(name_at, "remote.name", format!("`{name}` is not a name: wanted a-z, 0-9 and `-`")));
            }
            if remotes.iter().any(|remote| remote.name == name) {
                return Err(self.fault(name_at, "remote.name", format!("a second remote `{name}`")));
            }
            if !is_url(url) {
                return Err(self
                    .fault(url_at, "remote.url", format!("`{}` is not a URL: wanted https://, http:// or file:", Address::new(url).shown()))
                    .hint("correct it: the address is the folder that holds `metadata` and `targets`"));
            }
            remotes.push(RemoteEntry { name: name.to_owned(), url: Address::new(url) });
        }
        Ok(remotes)
    }
}

/// Whether a repository may be there: https, http or a folder of this machine.
fn is_url(text: &str) -> bool {
    ["https://", "http://", "file:"].iter().any(|scheme| text.starts_with(scheme))
}
