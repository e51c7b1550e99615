//! `[machine]` of `hob.toml`: what pods may have of the machine, and whose models stay.
//!
//! Apart from `mod.rs`, whose keys are about what is installed: these are about what runs.

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    model::{Fault, RecipeName, id::is_name, limits::EXCLUSIVE_GROUPS_MAX, shown, status::machine::MachineRules},
    shelf::config::reader::Reader,
};

/// Reads the table.
///
/// Errors: `invalid_config` with line and key.
pub(in crate::shelf) fn read(reader: &Reader, root: &DeTable) -> Result<MachineRules, Fault> {
    let mut rules = MachineRules::default();
    let Some(table) = reader.table(root, "machine")? else { return Ok(rules) };
    reader.only(table, "machine", &["memory_bytes", "gpu_bytes", "exclusive_gpus", "exclusive", "pinned"])?;
    rules.memory_bytes = bytes(reader, table, "memory_bytes")?;
    rules.gpu_bytes = bytes(reader, table, "gpu_bytes")?;
    if let Some(word) = reader.get(table, "exclusive_gpus") {
        let DeValue::Boolean(word) = word.get_ref() else {
            let found = format!("found {}, wanted true or false", shown::found_toml("", word.get_ref()));
            return Err(reader.fault(word.span().start, "machine.exclusive_gpus", found));
        };
        rules.exclusive_gpus = *word;
    }
    if let Some(pinned) = reader.get(table, "pinned") {
        rules.pinned = recipes(reader, pinned, "machine.pinned")?;
    }
    if let Some(groups) = reader.get(table, "exclusive") {
        let DeValue::Table(groups) = groups.get_ref() else {
            let found = format!("found {}, wanted a table of groups, each a list of recipes", shown::found_toml("", groups.get_ref()));
            return Err(reader.fault(groups.span().start, "machine.exclusive", found));
        };
        rules.exclusive = exclusive(reader, groups)?;
    }
    Ok(rules)
}

fn exclusive(reader: &Reader, groups: &DeTable) -> Result<BTreeMap<String, Vec<String>>, Fault> {
    let mut read = BTreeMap::new();
    for (name, members) in groups.iter() {
        let (word, at) = (name.get_ref().as_ref(), name.span().start);
        let key = format!("machine.exclusive.{word}");
        if !is_name(word) {
            return Err(reader.fault(at, &key, format!("`{word}` is not a group's name: wanted a-z, 0-9 and `-`")));
        }
        if read.len() == EXCLUSIVE_GROUPS_MAX {
            return Err(reader.fault(at, &key, format!("more than {EXCLUSIVE_GROUPS_MAX} groups")));
        }
        read.insert(word.to_owned(), recipes(reader, members, &key)?);
    }
    Ok(read)
}

fn bytes(reader: &Reader, table: &DeTable, key: &str) -> Result<Option<u64>, Fault> {
    let Some(value) = reader.get(table, key) else { return Ok(None) };
    let (at, key) = (value.span().start, format!("machine.{key}"));
    let DeValue::Integer(number) = value.get_ref() else {
        return Err(reader.fault(at, &key, format!("found {}, wanted a number of bytes", shown::found_toml("", value.get_ref()))));
    };
    let text = number.as_str().replace('_', "");
    match text.parse::<u64>() {
        Ok(bytes) if number.radix() == 10 && bytes > 0 => Ok(Some(bytes)),
        _ => Err(reader.fault(at, &key, format!("found {text}, wanted a number of bytes above 0"))),
    }
}

fn recipes(reader: &Reader, value: &Spanned<DeValue>, key: &str) -> Result<Vec<String>, Fault> {
    let DeValue::Array(items) = value.get_ref() else {
        let found = format!("found {}, wanted a list of recipes", shown::found_toml("", value.get_ref()));
        return Err(reader.fault(value.span().start, key, found));
    };
    let mut recipes = Vec::new();
    for item in items.iter() {
        let name: RecipeName =
            reader.text(item, key)?.parse().map_err(|fault: Fault| reader.fault(item.span().start, key, fault.message))?;
        let name = name.to_string();
        if recipes.contains(&name) {
            return Err(reader.fault(item.span().start, key, format!("`{name}` twice")));
        }
        if recipes.len() == EXCLUSIVE_GROUPS_MAX {
            return Err(reader.fault(item.span().start, key, format!("more than {EXCLUSIVE_GROUPS_MAX} recipes")));
        }
        recipes.push(name);
    }
    Ok(recipes)
}

#[cfg(test)]
mod tests {
    use crate::{model::Code, shelf::config::Config};

    #[test]
    fn what_pods_may_have_is_read_and_what_makes_no_sense_is_said_with_its_line() {
        let config = Config::parse(
            "[machine]\nmemory_bytes = 8_000_000_000\ngpu_bytes = 1\nexclusive_gpus = true\npinned = [\"lab/a\"]\n\
             exclusive = { npu = [\"lab/a\", \"lab/b\"] }\n",
            "hob.toml",
        );
        let rules = config.unwrap().machine;
        assert_eq!((rules.memory_bytes, rules.gpu_bytes, rules.exclusive_gpus), (Some(8_000_000_000), Some(1), true));
        assert_eq!((rules.pinned, &rules.exclusive["npu"][..]), (vec!["lab/a".to_owned()], &["lab/a".to_owned(), "lab/b".to_owned()][..]));
        for (line, says) in [
            ("memory = 3", "nearest known key: `memory_bytes`"),
            ("memory_bytes = \"3\"", "machine.memory_bytes: found the text \"3\", wanted a number of bytes"),
            ("memory_bytes = 0", "found 0, wanted a number of bytes above 0"),
            ("gpu_bytes = -1", "found -1, wanted a number of bytes above 0"),
            ("exclusive_gpus = 1", "found 1, wanted true or false"),
            ("pinned = \"lab/a\"", "found the text \"lab/a\", wanted a list of recipes"),
            ("pinned = [\"a\"]", "machine.pinned: "),
            ("pinned = [\"lab/a\", \"lab/a\"]", "`lab/a` twice"),
            ("exclusive = [\"lab/a\"]", "found a list of 1, wanted a table of groups"),
            ("exclusive = { \"a b\" = [] }", "`a b` is not a group's name"),
        ] {
            let fault = Config::parse(&format!("[machine]\n{line}\n"), "hob.toml").unwrap_err();
            assert_eq!(fault.code, Code::InvalidConfig);
            assert!(fault.message.starts_with("hob.toml:2: ") && fault.message.contains(says), "{line}: {}", fault.message);
        }
    }
}
