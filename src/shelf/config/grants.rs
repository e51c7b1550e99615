//! `[grants]` of `hob.toml`: the permissions that the operator gave each recipe.
//!
//! These keys open access, so they are read strictly: pods can never get more than what is read here.

use std::{collections::BTreeMap, path::Path};

use toml::de::{DeTable, DeValue};

use crate::model::{
    Code, Fault, Grants, Home, Permissions, RecipeName,
    grant::{KINDS, PlainPath},
    toml_file::{self, TomlFile},
};

/// Reads the table.
///
/// Errors: `invalid_config` with line and key.
pub(in crate::shelf) fn read(reader: &TomlFile, root: &DeTable) -> Result<BTreeMap<String, Grants>, Fault> {
    let mut grants = BTreeMap::new();
    let Some((all, _)) = reader.table(root, "", "grants", "a table")? else { return Ok(grants) };
    for (name, given) in all.iter() {
        let (word, at) = (name.get_ref().as_ref(), name.span().start);
        let key = format!("grants.\"{word}\"");
        let recipe = match word.starts_with('/') {
            true => word.parse::<PlainPath>().map(|path| path.to_string()).map_err(|_| "wanted the folder's absolute path, without `..`"),
            false => word.parse::<RecipeName>().map(|name| name.to_string()).map_err(|_| "wanted `publisher/name` or an absolute path"),
        };
        let recipe = recipe.map_err(|why| reader.fault(at, &key, format!("neither a recipe nor a folder: {why}")))?;
        let DeValue::Table(given) = given.get_ref() else {
            return Err(reader.wrong(given, "grants", &format!("\"{word}\""), "a table"));
        };
        if grants.insert(recipe, one(reader, given, &key)?).is_some() {
            return Err(reader.fault(at, &key, "a second table of the same folder"));
        }
    }
    Ok(grants)
}

fn one(reader: &TomlFile, table: &DeTable, key: &str) -> Result<Grants, Fault> {
    reader.only(table, key, &["network", "read", "write", "env", "devices", "reduced"])?;
    let mut given = Grants::default();
    for kind in KINDS {
        let Some((items, _)) = reader.list(table, key, kind, "a list of strings")? else { continue };
        let key = toml_file::join(key, kind);
        for item in items.iter() {
            let text = reader.text(item, &key)?;
            given.permissions.add(kind, text).map_err(|why| reader.fault(item.span().start, &key, why.message))?;
        }
    }
    given.reduced = reader.boolean(table, key, "reduced")?.unwrap_or(given.reduced);
    Ok(given)
}

/// The first path of `permissions` that reaches Hob's own files, and the folder of those files.
pub fn within_reach<'h>(home: &'h Home, permissions: &Permissions) -> Option<(PlainPath, &'h Path)> {
    let paths = permissions.read.iter().chain(&permissions.write);
    paths.flat_map(|path| home.folders().map(|folder| (path, folder))).find_map(|(path, folder)| {
        let meets = folder.starts_with(path.as_path()) || path.as_path().starts_with(folder);
        meets.then(|| (path.clone(), folder))
    })
}

/// The same check on resolved paths: a path that an operator is about to grant may be a link.
pub fn leads_within_reach<'h>(home: &'h Home, permissions: &Permissions) -> Option<(PlainPath, &'h Path)> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let paths = permissions.read.iter().chain(&permissions.write);
    paths.flat_map(|path| home.folders().map(|folder| (path, folder))).find_map(|(path, folder)| {
        let (there, own) = (real(path.as_path()), real(folder));
        (own.starts_with(&there) || there.starts_with(&own)).then(|| (path.clone(), folder))
    })
}

/// Refuses grants that reach Hob's own files. A pod that could write `hob.toml` would give itself everything
/// else, and a pod that could read the server's token could call the server.
pub(in crate::shelf) fn beside(home: &Home, grants: &BTreeMap<String, Grants>, what: &str) -> Result<(), Fault> {
    for (recipe, given) in grants {
        if let Some((path, folder)) = within_reach(home, &given.permissions) {
            let text = format!("{what}: grants.\"{recipe}\": `{path}` reaches Hob's own files in {}", folder.display());
            return Err(Fault::new(Code::InvalidConfig, text).hint("take the path out, or name folders beside Hob's own"));
        }
    }
    Ok(())
}
