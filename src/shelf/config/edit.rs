//! Edits `hob.toml`, one writer at a time; everything else stays as its operator wrote it.

use std::{
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, RawString, Table, Value, value};

use crate::{
    disk::make,
    model::{Address, Code, Fault, Grants, Home, Permissions, RecipeName, VersionRange, grant::KINDS, limits},
    shelf::{
        blocking,
        config::{Config, read_text},
        durable,
        files::{
            self,
            locks::{self, Held},
        },
    },
};

/// The right to change `hob.toml`, held by one process at a time. [`change`] and
/// [`Shelf::write`](crate::shelf::store::Shelf::write) give it only to functions that do not wait, so nobody
/// holds it while a server answers.
#[derive(Debug)]
pub struct ConfigGuard(#[expect(dead_code, reason = "held, not read")] Held);

/// Changes `hob.toml` in one step. The file's lock is held only for the change, which does not wait for
/// anything.
///
/// Errors: those of `edit`, of [`Edit::begin`] and of [`Edit::write`]; the file is then unchanged.
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

pub(in crate::shelf) async fn lock(home: &Home) -> Result<ConfigGuard, Fault> {
    let held = locks::acquire_briefly(&home.locks().join("config.lock"), "changing hob.toml").await?;
    sweep(home.config())?;
    Ok(ConfigGuard(held))
}

/// Deletes the temporary files that a killed writer left beside `hob.toml`. Only a holder of its lock writes
/// there.
pub fn sweep(folder: &Path) -> Result<(), Fault> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b".half-")) {
        files::remove_tree(&entry.path())?;
    }
    Ok(())
}

/// A set of changes to `hob.toml` that keeps everything else as its author wrote it.
pub struct Edit {
    home: Home,
    before: String,
    document: DocumentMut,
}

impl Edit {
    /// Starts from the current file, which must be valid.
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
            array.push(InlineTable::from_iter([("name", name), ("url", url)]));
        }
    }

    /// Removes the remote; returns whether it was there.
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

    /// Adds the recipe with this range. Without a range, an entry that exists keeps its range, and a new one
    /// takes any version.
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
                // Only the value changes: a comment behind it is its author's.
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

    /// Removes the recipe; returns whether it was there.
    pub fn remove_recipe(&mut self, name: &RecipeName) -> bool {
        let recipes = self.document.get_mut("recipes").and_then(Item::as_table_like_mut);
        recipes.is_some_and(|recipes| recipes.remove(&name.to_string()).is_some())
    }

    /// Sets the complete grants of a recipe. Values that stay keep their place and their comments.
    pub fn set_grants(&mut self, recipe: &str, given: &Grants) {
        if *given == Grants::default() {
            self.remove_grants(recipe);
            return;
        }
        let all = self.document.entry("grants").or_insert_with(|| {
            let mut table = Table::new();
            // Only the tables below it are written.
            table.set_implicit(true);
            Item::Table(table)
        });
        let empty = match all.is_inline_table() {
            true => Item::Value(Value::InlineTable(InlineTable::new())),
            false => Item::Table(Table::new()),
        };
        let Some(all) = all.as_table_like_mut() else { return };
        // The name as the file has it: a folder may have been written with a slash at its end.
        let name = all.iter().map(|(name, _)| name.to_owned()).find(|name| is_same(name, recipe)).unwrap_or_else(|| recipe.to_owned());
        let Some(table) = all.entry(&name).or_insert(empty).as_table_like_mut() else { return };
        for kind in KINDS {
            let mut missing = given.permissions.of_kind(kind);
            if missing.is_empty() {
                table.remove(kind);
                continue;
            }
            match table.get_mut(kind).and_then(Item::as_array_mut) {
                Some(array) => {
                    for at in (0..array.len()).rev() {
                        let text = array.get(at).and_then(Value::as_str).unwrap_or_default();
                        let plain = Permissions::from_words([format!("{kind}={text}").as_str()]).unwrap_or_default().of_kind(kind);
                        match missing.iter().position(|value| plain.contains(value)) {
                            Some(found) => drop(missing.remove(found)),
                            None => take(array, at),
                        }
                    }
                    missing.iter().for_each(|value| put(array, value));
                }
                None => drop(table.insert(kind, value(Array::from_iter(missing)))),
            }
        }
        match given.reduced {
            true => drop(table.insert("reduced", value(true))),
            false => drop(table.remove("reduced")),
        }
    }

    /// Removes all grants of a recipe; returns whether it had any.
    pub fn remove_grants(&mut self, recipe: &str) -> bool {
        let Some(all) = self.document.get_mut("grants").and_then(Item::as_table_like_mut) else { return false };
        let name = all.iter().map(|(name, _)| name.to_owned()).find(|name| is_same(name, recipe));
        let removed = name.is_some_and(|name| all.remove(&name).is_some());
        if all.is_empty() {
            self.document.remove("grants");
        }
        removed
    }

    /// Replaces the file in one step.
    ///
    /// Errors: `invalid_config` if the result could not be read again (nothing is written then), `disk_full`,
    /// `io`.
    pub fn write(self) -> Result<(), Fault> {
        self.prepare()?.put()
    }

    /// Writes the result beside the file; if space is missing, this step fails.
    pub(in crate::shelf) fn prepare(self) -> Result<Prepared, Fault> {
        let (text, path) = (self.document.to_string(), self.home.config_file());
        let config = Config::of_home(&self.home, &text)?;
        files::can_be_read(&path, text.len(), limits::CONFIG_BYTES_MAX)?;
        let mode = mode(&path, &config);
        durable::make_folder(self.home.config())?;
        let path = behind_link(path)?;
        let write = || -> io::Result<NamedTempFile> {
            let mut file = make::temporary(path.parent().unwrap_or(self.home.config()), ".half-", mode)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        let file = write().map_err(|error| Fault::io(format!("writing {}", path.display()), &error))?;
        Ok(Prepared { file, path })
    }
}

/// The file that is to be replaced: where a link leads, so that the link stays.
///
/// Errors: `io`, also for a link that leads nowhere.
fn behind_link(path: PathBuf) -> Result<PathBuf, Fault> {
    match std::fs::symlink_metadata(&path) {
        Ok(found) if found.is_symlink() => std::fs::canonicalize(&path).map_err(|error| {
            Fault::io(format!("following the link {}", path.display()), &error).hint("let it lead to a file, or delete it")
        }),
        _ => Ok(path),
    }
}

/// The mode of a new `hob.toml`. It allows no more than the old file's mode, which its operator may have
/// closed to others. Without an old file, the new one is closed to others if an address in it has a secret.
pub fn mode(path: &Path, config: &Config) -> u32 {
    match std::fs::metadata(path) {
        Ok(old) => old.mode() & make::FILE,
        Err(_) if config.remotes.iter().any(|remote| remote.url.revealed() != remote.url.shown()) => make::PRIVATE_FILE,
        Err(_) => make::FILE,
    }
}

/// A new `hob.toml` that lies beside the old one.
pub(in crate::shelf) struct Prepared {
    file: NamedTempFile,
    path: PathBuf,
}

impl Prepared {
    /// Moves it to the place of the old one.
    pub fn put(self) -> Result<(), Fault> {
        let folder = self.path.parent().map(Path::to_owned).unwrap_or_default();
        let renamed = self.file.persist(&self.path).map_err(|error| error.error).and_then(|_| durable::sync_folder(&folder));
        renamed.map_err(|error| Fault::io(format!("writing {}", self.path.display()), &error))
    }
}

pub fn is_named(table: &Table, name: &str) -> bool {
    table.get("name").and_then(Item::as_str) == Some(name)
}

/// Removes an item from a list, with the comment on its line. TOML attaches a comment behind a comma to the
/// next item.
fn take(array: &mut Array, at: usize) {
    let removed = array.remove(at);
    let before = removed.decor().prefix().and_then(RawString::as_str).unwrap_or_default();
    let after = match array.get(at) {
        Some(next) => next.decor().prefix().and_then(RawString::as_str),
        None => array.trailing().as_str(),
    };
    let after = after.unwrap_or_default().to_owned();
    // Joins the end of the line before, which is another item's, and the text behind the line that is
    // removed.
    let joined = match after.find('\n') {
        Some(newline) => format!("{}{}", before.lines().next().unwrap_or_default().trim_end(), &after[newline..]),
        None if at < array.len() => before.to_owned(),
        None => after,
    };
    match array.get_mut(at) {
        Some(next) => next.decor_mut().set_prefix(joined),
        None => array.set_trailing(joined),
    }
}

/// Appends an item to a list, on a line of its own if the other items have one.
fn put(array: &mut Array, item: &str) {
    let mut item = Value::from(item);
    let trailing = array.trailing().as_str().unwrap_or_default().to_owned();
    let last = array.iter().last().and_then(|last| last.decor().prefix()?.as_str()?.rsplit_once('\n'));
    if let (Some((_, indent)), Some(newline)) = (last, trailing.find('\n')) {
        item.decor_mut().set_prefix(format!("{}\n{indent}", &trailing[..newline]));
        array.push_formatted(item);
        array.set_trailing(&trailing[newline..]);
    } else {
        array.push(item);
    }
}

fn is_same(written: &str, recipe: &str) -> bool {
    written == recipe || written.strip_suffix('/') == Some(recipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_its_lines_and_the_comments_of_what_stays() {
        let one = "[\n  \"a\", # of a\n  # above b\n  \"b\", # of b\n  \"c\", # of c\n]";
        for (text, gone, new, wanted) in [
            (one, "a", None, "[\n  # above b\n  \"b\", # of b\n  \"c\", # of c\n]"),
            (one, "b", None, "[\n  \"a\", # of a\n  \"c\", # of c\n]"),
            (one, "c", None, "[\n  \"a\", # of a\n  # above b\n  \"b\", # of b\n]"),
            (one, "c", Some("d"), "[\n  \"a\", # of a\n  # above b\n  \"b\", # of b\n  \"d\",\n]"),
            (one, "none", Some("d"), "[\n  \"a\", # of a\n  # above b\n  \"b\", # of b\n  \"c\", # of c\n  \"d\",\n]"),
            ("[\"a\", \"b\"]", "a", None, "[\"b\"]"),
            ("[\"a\", \"b\"]", "b", None, "[\"a\"]"),
            ("[\"a\", \"b\"]", "b", Some("c"), "[\"a\", \"c\"]"),
        ] {
            let mut array = text.parse::<Value>().unwrap().as_array().unwrap().clone();
            let at = array.iter().position(|item| item.as_str() == Some(gone));
            at.into_iter().for_each(|at| take(&mut array, at));
            new.into_iter().for_each(|item| put(&mut array, item));
            assert_eq!(array.to_string(), wanted, "{text} without {gone}, with {new:?}");
        }
    }
}
