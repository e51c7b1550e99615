//! `[grants]` of `hob.toml`: what the operator gave each recipe.
//!
//! Apart from `mod.rs`, because these keys let something through: what is read here strictly is all that pods can ever have.

use std::{collections::BTreeMap, path::Path};

use toml::de::{DeTable, DeValue};
use toml_edit::{Array, InlineTable, Item, RawString, Table, Value, value};

use crate::{
    model::{
        Code, Fault, Grants, Home, Permissions, RecipeName,
        grant::{KINDS, PlainPath},
        shown,
    },
    shelf::config::{Edit, Reader},
};

/// Reads the table.
///
/// Errors: `invalid_config` with line and key.
pub(in crate::shelf) fn read(reader: &Reader, root: &DeTable) -> Result<BTreeMap<String, Grants>, Fault> {
    let mut grants = BTreeMap::new();
    let Some(all) = reader.table(root, "grants")? else { return Ok(grants) };
    for (name, given) in all.iter() {
        let (word, at) = (name.get_ref().as_ref(), name.span().start);
        let key = format!("grants.\"{word}\"");
        let recipe = match word.starts_with('/') {
            true => word.parse::<PlainPath>().map(|path| path.to_string()).map_err(|_| "wanted the folder's absolute path, without `..`"),
            false => word.parse::<RecipeName>().map(|name| name.to_string()).map_err(|_| "wanted `publisher/name` or an absolute path"),
        };
        let recipe = recipe.map_err(|why| reader.fault(at, &key, format!("neither a recipe nor a folder: {why}")))?;
        let DeValue::Table(given) = given.get_ref() else {
            return Err(reader.fault(
                given.span().start,
                &key,
                format!("found {}, wanted a table", shown::found_toml("", given.get_ref())),
            ));
        };
        if grants.insert(recipe, one(reader, given, &key)?).is_some() {
            return Err(reader.fault(at, &key, "a second table of the same folder".to_owned()));
        }
    }
    Ok(grants)
}

fn one(reader: &Reader, table: &DeTable, key: &str) -> Result<Grants, Fault> {
    reader.only(table, key, &["network", "read", "write", "env", "devices", "reduced"])?;
    let mut given = Grants::default();
    for kind in KINDS {
        let Some(values) = reader.get(table, kind) else { continue };
        let key = format!("{key}.{kind}");
        let DeValue::Array(items) = values.get_ref() else {
            let found = format!("found {}, wanted a list of strings", shown::found_toml("", values.get_ref()));
            return Err(reader.fault(values.span().start, &key, found));
        };
        for item in items.iter() {
            let text = reader.text(item, &key)?;
            given.permissions.add(kind, text).map_err(|why| reader.fault(item.span().start, &key, why.message))?;
        }
    }
    if let Some(reduced) = reader.get(table, "reduced") {
        let DeValue::Boolean(word) = reduced.get_ref() else {
            let found = format!("found {}, wanted true or false", shown::found_toml("", reduced.get_ref()));
            return Err(reader.fault(reduced.span().start, &format!("{key}.reduced"), found));
        };
        given.reduced = *word;
    }
    Ok(given)
}

/// The first path of `permissions` from which Hob's own files could be reached, and the folder of these.
pub fn within_reach<'h>(home: &'h Home, permissions: &Permissions) -> Option<(PlainPath, &'h Path)> {
    let paths = permissions.read.iter().chain(&permissions.write);
    paths.flat_map(|path| home.folders().map(|folder| (path, folder))).find_map(|(path, folder)| {
        let meets = folder.starts_with(path.as_path()) || path.as_path().starts_with(folder);
        meets.then(|| (path.clone(), folder))
    })
}

/// The same, by where the paths lead as the disk is now: what an operator is about to give may be a link.
pub fn leads_within_reach<'h>(home: &'h Home, permissions: &Permissions) -> Option<(PlainPath, &'h Path)> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let paths = permissions.read.iter().chain(&permissions.write);
    paths.flat_map(|path| home.folders().map(|folder| (path, folder))).find_map(|(path, folder)| {
        let (there, own) = (real(path.as_path()), real(folder));
        (own.starts_with(&there) || there.starts_with(&own)).then(|| (path.clone(), folder))
    })
}

/// Refuses grants that reach Hob's own files: a pod that could write `hob.toml` would give itself the rest, and one that could read the
/// server's token would be its caller.
pub(in crate::shelf) fn beside(home: &Home, grants: &BTreeMap<String, Grants>, what: &str) -> Result<(), Fault> {
    for (recipe, given) in grants {
        if let Some((path, folder)) = within_reach(home, &given.permissions) {
            let text = format!("{what}: grants.\"{recipe}\": `{path}` reaches Hob's own files in {}", folder.display());
            return Err(Fault::new(Code::InvalidConfig, text).hint("take the path out, or name folders beside Hob's own"));
        }
    }
    Ok(())
}

impl Edit {
    /// Writes down what a recipe has from now on. Values that stay keep their place and their comments.
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
        // The name as it stands there: a folder may have been written with a slash at its end.
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

    /// Takes all back that a recipe was given; whether it had something.
    pub fn remove_grants(&mut self, recipe: &str) -> bool {
        let Some(all) = self.document.get_mut("grants").and_then(Item::as_table_like_mut) else { return false };
        let name = all.iter().map(|(name, _)| name.to_owned()).find(|name| is_same(name, recipe));
        let removed = name.is_some_and(|name| all.remove(&name).is_some());
        if all.is_empty() {
            self.document.remove("grants");
        }
        removed
    }
}

/// Takes an item out of a list, with the comment on its line. TOML counts what stands behind a comma to the item after it.
fn take(array: &mut Array, at: usize) {
    let removed = array.remove(at);
    let before = removed.decor().prefix().and_then(RawString::as_str).unwrap_or_default();
    let after = match array.get(at) {
        Some(next) => next.decor().prefix().and_then(RawString::as_str),
        None => array.trailing().as_str(),
    };
    let after = after.unwrap_or_default().to_owned();
    // The end of the line before, which is another item's, and what begins behind the line that goes.
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

/// Puts an item at the end of a list, on a line of its own where the others have one.
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
