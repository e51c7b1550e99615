//! `[serve]` of `hob.toml`: what clients over TCP are told, and which proxies stand in front of the server.

use std::net::IpAddr;

use toml::de::DeTable;

use crate::model::{Fault, ServeRules, limits::SERVE_PROXIES_MAX, toml_file::TomlFile};

/// Reads the table.
///
/// Errors: `invalid_config` with line and key.
pub(in crate::shelf) fn read(reader: &TomlFile, root: &DeTable) -> Result<ServeRules, Fault> {
    let mut rules = ServeRules::default();
    let Some((table, _)) = reader.table(root, "", "serve", "a table")? else { return Ok(rules) };
    reader.only(table, "serve", &["details", "proxies"])?;
    rules.details = reader.boolean(table, "serve", "details")?.unwrap_or(rules.details);
    if let Some((items, at)) = reader.list(table, "serve", "proxies", "a list of addresses")? {
        if items.len() > SERVE_PROXIES_MAX {
            return Err(reader.fault(at, "serve.proxies", format!("more than {SERVE_PROXIES_MAX} addresses")));
        }
        for item in items.iter() {
            let text = reader.text(item, "serve.proxies")?;
            let wrong = |_| reader.fault(item.span().start, "serve.proxies", format!("`{text}` is not an IP address, e.g. `10.0.0.1`"));
            rules.proxies.push(text.parse::<IpAddr>().map_err(wrong)?.to_canonical());
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use crate::{
        model::{Code, ServeRules},
        shelf::config::Config,
    };

    #[test]
    fn a_server_s_keys_are_read_and_others_are_refused() {
        let read = |text: &str| Config::parse(text, "hob.toml").map(|config| config.serve);
        assert_eq!(read("").unwrap(), ServeRules::default());
        let rules = read("[serve]\ndetails = true\nproxies = [\"10.0.0.1\", \"::ffff:10.0.0.2\", \"::1\"]").unwrap();
        let proxies: Vec<String> = rules.proxies.iter().map(ToString::to_string).collect();
        assert!(rules.details && proxies == ["10.0.0.1", "10.0.0.2", "::1"], "{proxies:?}");
        for (text, part) in [
            ("[serve]\ndetail = true", "nearest known key: `details`"),
            ("[serve]\ndetails = \"yes\"", "wanted true or false"),
            ("[serve]\nproxies = \"10.0.0.1\"", "wanted a list of addresses"),
            ("[serve]\nproxies = [\"10.0.0.0/8\"]", "is not an IP address"),
            ("serve = 1", "wanted a table"),
        ] {
            let fault = read(text).unwrap_err();
            assert!(fault.code == Code::InvalidConfig && fault.message.contains(part), "{text}: {fault}");
        }
    }
}
