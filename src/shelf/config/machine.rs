//! `[machine]` of `hob.toml`: how much of the machine pods may use, and whose models stay loaded.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use crate::model::{
    Fault, RecipeName,
    id::is_name,
    limits::EXCLUSIVE_GROUPS_MAX,
    status::machine::MachineRules,
    toml_file::{self, TomlFile},
};

/// Reads the table.
///
/// Errors: `invalid_config` with line and key.
pub(in crate::shelf) fn read(reader: &TomlFile, root: &DeTable) -> Result<MachineRules, Fault> {
    let mut rules = MachineRules::default();
    let Some((table, _)) = reader.table(root, "", "machine", "a table")? else { return Ok(rules) };
    reader.only(table, "machine", &["memory_bytes", "gpu_bytes", "exclusive_gpus", "exclusive", "pinned"])?;
    rules.memory_bytes = bytes(reader, table, "memory_bytes")?;
    rules.gpu_bytes = bytes(reader, table, "gpu_bytes")?;
    rules.exclusive_gpus = reader.boolean(table, "machine", "exclusive_gpus")?.unwrap_or(rules.exclusive_gpus);
    rules.pinned = recipes(reader, table, "machine", "pinned")?;
    if let Some((groups, _)) = reader.table(table, "machine", "exclusive", "a table of groups, each a list of recipes")? {
        rules.exclusive = exclusive(reader, groups)?;
    }
    Ok(rules)
}

fn exclusive(reader: &TomlFile, groups: &DeTable) -> Result<BTreeMap<String, Vec<String>>, Fault> {
    let mut read = BTreeMap::new();
    for name in groups.keys() {
        let (word, at) = (name.get_ref().as_ref(), name.span().start);
        let key = format!("machine.exclusive.{word}");
        if !is_name(word) {
            return Err(reader.fault(at, &key, format!("`{word}` is not a group's name: wanted a-z, 0-9 and `-`")));
        }
        if read.len() == EXCLUSIVE_GROUPS_MAX {
            return Err(reader.fault(at, &key, format!("more than {EXCLUSIVE_GROUPS_MAX} groups")));
        }
        read.insert(word.to_owned(), recipes(reader, groups, "machine.exclusive", word)?);
    }
    Ok(read)
}

fn bytes(reader: &TomlFile, table: &DeTable, key: &str) -> Result<Option<u64>, Fault> {
    let Some(value) = toml_file::get(table, key) else { return Ok(None) };
    let DeValue::Integer(number) = value.get_ref() else {
        return Err(reader.wrong(value, "machine", key, "a number of bytes"));
    };
    let text = number.as_str().replace('_', "");
    match text.parse::<u64>() {
        Ok(bytes) if number.radix() == 10 && bytes > 0 => Ok(Some(bytes)),
        _ => Err(reader.fault(value.span().start, &format!("machine.{key}"), format!("found {text}, wanted a number of bytes above 0"))),
    }
}

fn recipes(reader: &TomlFile, table: &DeTable, path: &str, key: &str) -> Result<Vec<String>, Fault> {
    let Some((items, _)) = reader.list(table, path, key, "a list of recipes")? else { return Ok(Vec::new()) };
    let key = &toml_file::join(path, key);
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
