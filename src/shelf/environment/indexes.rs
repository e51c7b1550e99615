//! The package indexes that serve the files whose hashes a lock, or Hob itself, names. `[environments]` of
//! `hob.toml` lists them.
//!
//! An index is only a transport: a file is installed if its bytes have the hash, whichever index sent it. So
//! each index may be asked for every package, and a stranger's package of the same name on one of them is
//! skipped.

use std::collections::BTreeMap;

use tokio::process::Command;
use toml::de::DeTable;

use crate::model::{Address, Fault, RecipeName, address::Unfit, limits::PACKAGE_INDEXES_MAX, toml_file::TomlFile};

/// Which package indexes to ask, in which order. If empty, only the public one (PyPI), which `uv` knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexes {
    general: Vec<Address>,
    recipes: BTreeMap<RecipeName, Vec<Address>>,
}

impl Indexes {
    /// These indexes for everything.
    ///
    /// Errors: `invalid_config` for an entry that is no `https:`, `http:` or `file:` URL, or for too many.
    pub fn new<A: Into<Address>>(urls: impl IntoIterator<Item = A>) -> Result<Indexes, Fault> {
        let general: Vec<Address> = urls.into_iter().map(Into::into).collect();
        let refused = |why: String| Fault::new(crate::model::Code::InvalidConfig, format!("package indexes: {why}"));
        if general.len() > PACKAGE_INDEXES_MAX {
            return Err(refused(too_many()));
        }
        for address in &general {
            address.fit_for_an_index().map_err(|why| refused(unfit(address, why)))?;
        }
        Ok(Indexes { general, recipes: BTreeMap::new() })
    }

    /// The indexes to ask for the packages of a recipe.
    pub fn for_recipe(&self, name: &RecipeName) -> &[Address] {
        self.recipes.get(name).unwrap_or(&self.general)
    }

    /// The recipes that have indexes of their own.
    #[doc(hidden)]
    pub fn recipes(&self) -> impl Iterator<Item = &RecipeName> {
        self.recipes.keys()
    }

    /// The indexes to ask for the tools that Hob fetches.
    pub fn for_tools(&self) -> &[Address] {
        &self.general
    }

    /// Whether no index is named.
    pub fn is_empty(&self) -> bool {
        self.general.is_empty() && self.recipes.is_empty()
    }

    /// Reads `[environments]`.
    ///
    /// Errors: `invalid_config` with line and key.
    pub(in crate::shelf) fn read(reader: &TomlFile, root: &DeTable) -> Result<Indexes, Fault> {
        let mut indexes = Indexes::default();
        let Some((table, _)) = reader.table(root, "", "environments", "a table")? else { return Ok(indexes) };
        reader.only(table, "environments", &["index_urls", "index_url", "recipes"])?;
        // The key from before there could be several indexes. Its index goes first.
        if let Some((url, at)) = reader.optional_text(table, "environments", "index_url")? {
            indexes.general.push(checked(reader, url, at, "environments.index_url")?);
        }
        indexes.general.extend(list(reader, table, "environments")?.unwrap_or_default());
        let Some((recipes, _)) = reader.table(table, "environments", "recipes", "a table for each recipe")? else { return Ok(indexes) };
        for (name, said) in recipes.iter() {
            let (key, at) = (format!("environments.recipes.{}", name.get_ref()), name.span().start);
            let word = name.get_ref().as_ref();
            let name: RecipeName = word.parse().map_err(|fault: Fault| reader.fault(at, &key, fault.message))?;
            let said = reader.as_table(said, "environments.recipes", word, "a table")?;
            reader.only(said, &key, &["index_urls"])?;
            let urls = list(reader, said, &key)?.ok_or_else(|| reader.fault(at, &format!("{key}.index_urls"), "missing"))?;
            indexes.recipes.insert(name, urls);
        }
        Ok(indexes)
    }
}

/// `index_urls` of a table.
fn list(reader: &TomlFile, table: &DeTable, path: &str) -> Result<Option<Vec<Address>>, Fault> {
    let key = format!("{path}.index_urls");
    let Some((items, at)) = reader.list(table, path, "index_urls", "a list of URLs")? else { return Ok(None) };
    if items.is_empty() {
        let fault = reader.fault(at, &key, "the list is empty: then nothing could be fetched");
        return Err(fault.hint("name an index, or remove the key: packages then come from the public index (PyPI)"));
    }
    if items.len() > PACKAGE_INDEXES_MAX {
        return Err(reader.fault(at, &key, too_many()));
    }
    let urls = items.iter().map(|item| checked(reader, reader.text(item, &key)?, item.span().start, &key));
    urls.collect::<Result<_, _>>().map(Some)
}

fn checked(reader: &TomlFile, url: &str, at: usize, key: &str) -> Result<Address, Fault> {
    let address = Address::new(url);
    match address.fit_for_an_index() {
        Ok(()) => Ok(address),
        Err(why) => {
            let fault = reader.fault(at, key, unfit(&address, why));
            Err(fault.hint(
                "wanted the folder of an index that has a page for each package, e.g. \"https://mirror.example.com/simple\" or \"file:///srv/index\"",
            ))
        }
    }
}

fn unfit(address: &Address, why: Unfit) -> String {
    format!("`{}` {why}", address.shown())
}

fn too_many() -> String {
    format!("more than {PACKAGE_INDEXES_MAX} URLs")
}

/// Tells `uv` which indexes to ask. It uses variables: addresses contain passwords, and everybody on the
/// machine can read arguments.
pub(in crate::shelf) fn tell_uv(command: &mut Command, indexes: &[Address]) {
    // `uv` asks the default index after all others.
    let Some((last, others)) = indexes.split_last() else { return };
    command.env("UV_DEFAULT_INDEX", last.revealed());
    if !others.is_empty() {
        command.env("UV_INDEX", joined(others));
        // The default strategy of `uv` stops at the first index that has the name, so that no package takes
        // the place of another. Here the hash ensures that.
        command.args(["--index-strategy", "unsafe-best-match"]);
    }
}

/// Tells `pip` which indexes to ask; without any, `pip`'s own configuration applies.
pub(in crate::shelf) fn tell_pip(command: &mut Command, indexes: &[Address]) {
    let Some((first, others)) = indexes.split_first() else { return };
    command.env("PIP_INDEX_URL", first.revealed());
    // Without further indexes, the variable of the caller's shell is cleared too: `pip` treats an empty
    // variable as none.
    match others {
        [] => command.env_remove("PIP_EXTRA_INDEX_URL"),
        _ => command.env("PIP_EXTRA_INDEX_URL", joined(others)),
    };
}

fn joined(indexes: &[Address]) -> String {
    indexes.iter().map(Address::revealed).collect::<Vec<_>>().join(" ")
}

/// The output of a tool, without the secrets of the addresses that it was given.
pub(in crate::shelf) fn scrub(indexes: &[Address], said: &str) -> String {
    indexes.iter().fold(said.to_owned(), |said, address| address.scrub(&said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Code, shelf::config::Config};

    fn read(text: &str) -> Result<Indexes, Fault> {
        Config::parse(text, "hob.toml").map(|config| config.tools.indexes)
    }

    fn shown(indexes: &[Address]) -> Vec<&str> {
        indexes.iter().map(Address::revealed).collect()
    }

    #[test]
    fn indexes_are_asked_in_the_order_of_the_list_and_a_recipe_may_have_its_own() {
        let indexes = read(
            "[environments]\nindex_urls = [\"https://a/simple\", \"file:///srv/b\"]\n\
             [environments.recipes.\"lab/torch\"]\nindex_urls = [\"https://me:pass@c/whl?key=a=b\"]\n",
        )
        .unwrap();
        assert_eq!(shown(indexes.for_tools()), ["https://a/simple", "file:///srv/b"]);
        assert_eq!(shown(indexes.for_recipe(&"lab/other".parse().unwrap())), ["https://a/simple", "file:///srv/b"]);
        assert_eq!(shown(indexes.for_recipe(&"lab/torch".parse().unwrap())), ["https://me:pass@c/whl?key=a=b"]);
        assert!(!indexes.is_empty() && read("").unwrap().is_empty() && read("[environments]").unwrap().is_empty());
    }

    #[test]
    fn the_key_of_before_means_a_list_of_one_and_goes_before_the_list() {
        let old = read("[environments]\nindex_url = \"https://a/simple\"\n").unwrap();
        assert_eq!(old, read("[environments]\nindex_urls = [\"https://a/simple\"]\n").unwrap());
        assert_eq!(old, Indexes::new(["https://a/simple"]).unwrap());
        let both = read("[environments]\nindex_urls = [\"https://b/simple\"]\nindex_url = \"https://a/simple\"\n").unwrap();
        assert_eq!(shown(both.for_tools()), ["https://a/simple", "https://b/simple"]);
    }

    #[test]
    fn what_is_no_list_of_addresses_is_refused_by_line_without_its_password() {
        let many = format!("[environments]\nindex_urls = [{}]", "\"https://a/x\",".repeat(PACKAGE_INDEXES_MAX + 1));
        for (text, parts) in [
            ("[environments]\nindex_urls = \"https://a/x\"", ["hob.toml:2: environments.index_urls", "wanted a list"]),
            ("[environments]\nindex_urls = []", ["hob.toml:2", "the list is empty"]),
            ("[environments]\nindex_urls = [1]", ["hob.toml:2", "wanted a string"]),
            ("[environments]\nindex_url = \"ftp://me:sekret@a/x\"", ["`ftp://***@a/x`", "is not a URL"]),
            ("[environments]\nindex_urls = [\n\"https://a/x\",\n\"/srv/sekret x\"]", ["hob.toml:4", "is not a URL"]),
            ("[environments]\nindex_urls = [\"https://me:sekret@a/x y\"]", ["hob.toml:2", "has white space"]),
            ("[environments]\nindex_urls = [\"torch=https://a/x\"]", ["hob.toml:2", "is not a URL"]),
            ("[environments]\nextra_index_urls = [\"https://a/x\"]", ["environments.extra_index_urls", "nearest known key: `index_url"]),
            ("[environments]\nrecipes = 1", ["environments.recipes", "wanted a table for each recipe"]),
            ("[environments.recipes.torch]\nindex_urls = [\"https://a/x\"]", ["environments.recipes.torch", "torch"]),
            ("[environments.recipes.\"lab/x\"]\nindex_url = \"https://a/x\"", ["environments.recipes.lab/x.index_url", "`index_urls`"]),
            ("[environments.recipes.\"lab/x\"]", ["environments.recipes.lab/x.index_urls", "missing"]),
            ("[environments.recipes]\n\"lab/x\" = 1", ["environments.recipes.lab/x", "wanted a table"]),
            (&many, ["hob.toml:2", "more than 16 URLs"]),
        ] {
            let fault = read(text).expect_err(text);
            assert_eq!(fault.code, Code::InvalidConfig, "{text}: {fault:?}");
            assert!(parts.iter().all(|part| fault.message.contains(part)), "{text}: {}", fault.message);
            assert!(!format!("{fault:?}").contains("me:sekret"), "{fault:?}");
        }
        let fault = Indexes::new(["gopher://me:sekret@a/x"]).unwrap_err();
        assert!(fault.code == Code::InvalidConfig && !format!("{fault:?}").contains("sekret"), "{fault:?}");
        assert!(Indexes::new(vec!["https://a/x"; PACKAGE_INDEXES_MAX + 1]).is_err());
    }

    /// The arguments and variables of a command.
    fn told(tell: impl Fn(&mut Command, &[Address]), urls: &[&str]) -> (Vec<String>, BTreeMap<String, String>) {
        let addresses: Vec<Address> = urls.iter().map(|url| Address::new(*url)).collect();
        let mut command = Command::new("tool");
        tell(&mut command, &addresses);
        let text = |word: &std::ffi::OsStr| word.to_string_lossy().into_owned();
        let variables = command.as_std().get_envs().map(|(name, value)| (text(name), value.map(text).unwrap_or_default()));
        (command.as_std().get_args().map(text).collect(), variables.collect())
    }

    #[test]
    fn tools_are_told_by_variables_and_never_by_arguments() {
        let urls = ["https://me:sekret@a/x", "https://b/y?key=sekret", "https://c/z"];
        let (words, variables) = told(tell_uv, &urls);
        assert_eq!(words, ["--index-strategy", "unsafe-best-match"]);
        assert!(variables["UV_INDEX"] == "https://me:sekret@a/x https://b/y?key=sekret" && variables["UV_DEFAULT_INDEX"] == "https://c/z");
        let (words, variables) = told(tell_pip, &urls);
        assert!(words.is_empty() && variables["PIP_INDEX_URL"] == urls[0] && variables["PIP_EXTRA_INDEX_URL"] == urls[1..].join(" "));
        let (words, variables) = told(tell_uv, &urls[..1]);
        assert!(words.is_empty() && variables.len() == 1 && variables["UV_DEFAULT_INDEX"] == urls[0]);
        // If the operator names no index, nothing of a tool's own configuration is overridden.
        assert!(told(tell_uv, &[]).1.is_empty() && told(tell_pip, &[]).1.is_empty());
        assert_eq!(told(tell_pip, &urls[..1]).1["PIP_EXTRA_INDEX_URL"], "");
    }

    /// People write an address where a name is wanted. Whatever key or value it becomes, no message contains
    /// its password.
    #[test]
    fn an_address_in_the_wrong_place_is_told_without_its_password() {
        const ADDRESS: &str = "https://me:planted@host.example/x";
        for text in [
            "\"ADDRESS\" = 1",
            "[\"ADDRESS\"]",
            "[environments]\n\"ADDRESS\" = 1",
            "[environments.recipes]\n\"ADDRESS\" = 1",
            "[environments.recipes.\"ADDRESS\"]\nindex_urls = []",
            "[environments.recipes.\"a/b\"]\n\"ADDRESS\" = 1",
            "[recipes]\n\"ADDRESS\" = \"1\"",
            "[recipes]\n\"a/b\" = \"ADDRESS\"",
            "[grants.\"ADDRESS\"]\nread = [\"/x\"]",
            "[grants.\"a/b\"]\n\"ADDRESS\" = 1",
            "[grants.\"a/b\"]\nnetwork = [\"ADDRESS\"]",
            "[grants.\"a/b\"]\nread = [\"ADDRESS\"]",
            "[machine]\nmemory_bytes = \"ADDRESS\"",
            "[machine]\npinned = [\"ADDRESS\"]",
            "[machine.exclusive]\n\"ADDRESS\" = 1",
            "[serve]\nproxies = [\"ADDRESS\"]",
            "[serve]\ndetails = \"ADDRESS\"",
            "[home]\ngroup = \"ADDRESS\"",
            "[python]\npath = \"ADDRESS\"",
            "[[remote]]\nname = \"ADDRESS\"\nurl = \"https://host.example\"",
            "[[remote]]\nname = \"a\"\nurls = \"ADDRESS\"",
            "remote = \"ADDRESS\"",
        ] {
            let text = text.replace("ADDRESS", ADDRESS);
            let fault = Config::parse(&text, "hob.toml").expect_err(&text);
            assert!(!serde_json::to_string(&fault).unwrap().contains("planted"), "{text}: {fault:?}");
        }
    }
}
