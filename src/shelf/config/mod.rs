//! `hob.toml`: which repositories and recipes the operator wants, and which tools to use.
//!
//! People write this file. So it is read with line numbers and edited in place: comments, order and spacing
//! stay. An unknown key is refused, because a key without effect is a broken promise.

pub mod edit;
pub mod grants;
mod machine;
mod serve;

use std::{collections::BTreeMap, path::PathBuf};

use toml::de::DeTable;

use crate::{
    disk::owner,
    model::{
        Address, Code, Fault, Grants, Home, RecipeName, ServeRules, VersionRange, act, hint,
        id::is_name,
        limits, stand_in,
        status::machine::MachineRules,
        toml_file::{TomlFile, findings},
    },
};

use crate::shelf::{
    blocking, durable,
    environment::{indexes::Indexes, tools::Tools},
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
    /// In the order of the file: the first remote that has a publisher owns that publisher's names.
    pub remotes: Vec<RemoteEntry>,
    pub recipes: BTreeMap<RecipeName, VersionRange>,
    pub tools: Tools,
    /// The operator's grants, by recipe name or by the absolute path of a recipe folder.
    pub grants: BTreeMap<String, Grants>,
    /// How much of the machine pods may use.
    pub machine: MachineRules,
    /// The number of a group whose members may write to this home's data, cache and state.
    pub group: Option<u32>,
    /// The operator's settings for a server.
    pub serve: ServeRules,
}

/// The entry of `hob.toml` for a recipe that is being installed.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// `None`: the range that is already there, or any version.
    pub range: Option<&'a VersionRange>,
    pub given: &'a Grants,
}

impl Config {
    /// Reads this home's file; a missing file is an empty configuration.
    ///
    /// Errors: `invalid_config` with line and key.
    pub fn read(home: &Home) -> Result<Config, Fault> {
        Config::of_home(home, &read_text(home)?)
    }

    /// [`Config::read`] on a thread where nothing else waits for the disk.
    pub async fn load(home: &Home) -> Result<Config, Fault> {
        let home = home.clone();
        blocking(move || Config::read(&home)).await
    }

    fn of_home(home: &Home, text: &str) -> Result<Config, Fault> {
        let what = home.config_file().display().to_string();
        let config = Config::parse(text, &what)?;
        grants::beside(home, &config.grants, &what)?;
        Ok(config)
    }

    /// Reads a configuration. `what` names the file in faults.
    pub fn parse(text: &str, what: &str) -> Result<Config, Fault> {
        let reader = TomlFile { text, what, code: Code::InvalidConfig };
        let parsed = findings::parse(text, |offset, why| {
            reader
                .fault(offset, "", why)
                .hint("correct that line, or take it out: Hob reads the file as a whole, and does not guess what was meant")
        })?;
        let needed = [("remote.name", "\"a\""), ("remote.url", "\"https://a.example\"")];
        findings::all(parsed, text, &needed, |root, _, _| Config::of(root, &reader))
    }

    fn of(root: &DeTable, reader: &TomlFile) -> Result<Config, Fault> {
        reader.only(root, "", &["remote", "recipes", "grants", "python", "uv", "environments", "machine", "home", "serve"])?;
        let mut config = Config { remotes: remotes(reader, root)?, ..Config::default() };
        if let Some((recipes, _)) = reader.table(root, "", "recipes", "a table")? {
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
        config.tools.python = tool(reader, root, "python")?;
        config.tools.uv = tool(reader, root, "uv")?;
        config.machine = machine::read(reader, root)?;
        if let Some((home, _)) = reader.table(root, "", "home", "a table")? {
            reader.only(home, "home", &["group"])?;
            if let Some((name, at)) = reader.optional_text(home, "home", "group")? {
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
    /// Errors: `remote_not_found`, which lists the remotes that exist.
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
    // People write this file themselves, sometimes through a link.
    let real = path.canonicalize().unwrap_or_else(|_| path.clone());
    let unread = |fault: Fault| match fault.code {
        // The code is `invalid_config` whatever prevents reading the file, because the code decides what
        // happens to calls meanwhile. The fault of an exhausted machine already says what ran out.
        Code::Io if !fault.is_exhaustion() => {
            Fault::new(Code::InvalidConfig, fault.message).hint("it has to be a plain file that this user can read")
        }
        _ => fault,
    };
    let bytes = durable::read(&real, limits::CONFIG_BYTES_MAX).map_err(unread)?.unwrap_or_default();
    stand_in::text(bytes).map_err(|wrong| wrong.fault(Code::InvalidConfig, &path.display().to_string()))
}

/// Reads `[python]` or `[uv]`: one absolute path.
fn tool(reader: &TomlFile, root: &DeTable, key: &str) -> Result<Option<PathBuf>, Fault> {
    let Some((table, _)) = reader.table(root, "", key, "a table")? else { return Ok(None) };
    reader.only(table, key, &["path"])?;
    match reader.optional_text(table, key, "path")? {
        None => Ok(None),
        Some((path, _)) if path.starts_with('/') => Ok(Some(path.into())),
        Some((path, at)) => Err(reader.fault(at, &format!("{key}.path"), format!("`{path}` is not an absolute path"))),
    }
}

fn remotes(reader: &TomlFile, root: &DeTable) -> Result<Vec<RemoteEntry>, Fault> {
    let Some((items, _)) = reader.list(root, "", "remote", "`[[remote]]` tables")? else { return Ok(Vec::new()) };
    let mut remotes: Vec<RemoteEntry> = Vec::new();
    for item in items.iter() {
        let start = item.span().start;
        let table = reader.as_table(item, "", "remote", "a table")?;
        reader.only(table, "remote", &["name", "url"])?;
        let wanted =
            |key: &str| reader.optional_text(table, "remote", key)?.ok_or_else(|| reader.fault(start, &format!("remote.{key}"), "missing"));
        let ((name, name_at), (url, url_at)) = (wanted("name")?, wanted("url")?);
        if !is_name(name) {
            return Err(reader.fault(name_at, "remote.name", format!("`{name}` is not a name: wanted a-z, 0-9 and `-`")));
        }
        if remotes.iter().any(|remote| remote.name == name) {
            return Err(reader.fault(name_at, "remote.name", format!("a second remote `{name}`")));
        }
        if !is_url(url) {
            return Err(reader
                .fault(url_at, "remote.url", format!("`{}` is not a URL: wanted https://, http:// or file:", Address::new(url).shown()))
                .hint("correct it: the address is the folder that holds `metadata` and `targets`"));
        }
        remotes.push(RemoteEntry { name: name.to_owned(), url: Address::new(url) });
    }
    Ok(remotes)
}

/// Whether a repository may have this address: https, http or a folder of this machine.
fn is_url(text: &str) -> bool {
    ["https://", "http://", "file:"].iter().any(|scheme| text.starts_with(scheme))
}
