//! Permissions: what a recipe asks for, what its operator granted, and the one function that decides what a
//! pod has.
//!
//! Every place that gives access asks [`effective`] and nothing else. A recipe can never have a permission
//! that is not defined here.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    path::{Component, Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::{
    fault::{Code, Fault},
    limits::{ENDPOINT_NAME_BYTES_MAX, PERMISSIONS_MAX},
};

/// The kinds of permissions, in the order in which they are shown.
pub const KINDS: [&str; 5] = ["network", "read", "write", "env", "devices"];

/// A set of permissions: requested in `recipe.toml`, granted in `hob.toml`, or what results from both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Permissions {
    /// Endpoints to which its pods may connect through the host: TCP, by name.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub network: BTreeSet<Endpoint>,
    /// Files and folders that its pods may read, with everything below.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub read: BTreeSet<PlainPath>,
    /// Files and folders that its pods may also change.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub write: BTreeSet<PlainPath>,
    /// Variables of the host's environment that its pods are given.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub env: BTreeSet<Variable>,
    /// Devices that its pods may use. A pod with one has the weaker class `gpu`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub devices: BTreeSet<Device>,
}

/// What an operator granted a recipe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Grants {
    #[serde(flatten)]
    pub permissions: Permissions,
    /// Its pods may run even if this machine cannot confine them fully: confined as far as it can, and shown
    /// as such.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reduced: bool,
}

/// The permissions of a recipe's pods: those that the recipe asks for *and* its operator granted.
///
/// A grant of a path covers everything below it; what may be written may be read. A granted IP address counts
/// as soon as any requested host name is granted too: addresses of a name that are not on the public internet
/// are reachable only this way, and no recipe can know them.
pub fn effective(asked: &Permissions, given: &Permissions) -> Permissions {
    let below = |path: &PlainPath, given: &BTreeSet<PlainPath>| given.iter().any(|given| path.0.starts_with(&given.0));
    let mut network: BTreeSet<Endpoint> = asked.network.intersection(&given.network).cloned().collect();
    if !network.is_empty() {
        network.extend(given.network.iter().filter(|endpoint| endpoint.host.parse::<IpAddr>().is_ok()).cloned());
    }
    Permissions {
        network,
        read: asked.read.iter().filter(|path| below(path, &given.read) || below(path, &given.write)).cloned().collect(),
        write: asked.write.iter().filter(|path| below(path, &given.write)).cloned().collect(),
        env: asked.env.intersection(&given.env).cloned().collect(),
        devices: asked.devices.intersection(&given.devices).copied().collect(),
    }
}

/// The fault of a text that names no permission.
fn wrong(what: String) -> Fault {
    Fault::new(Code::Usage, what)
        .hint("e.g. `network=api.example.com:443`, `read=/data`, `write=/data/out`, `env=API_TOKEN`, `devices=gpu`")
}

impl Permissions {
    pub fn is_empty(&self) -> bool {
        *self == Permissions::default()
    }

    /// The permissions of `self` that are not in `effective`: what an operator would still have to grant.
    pub fn without(&self, effective: &Permissions) -> Permissions {
        Permissions {
            network: self.network.difference(&effective.network).cloned().collect(),
            read: self.read.difference(&effective.read).cloned().collect(),
            write: self.write.difference(&effective.write).cloned().collect(),
            env: self.env.difference(&effective.env).cloned().collect(),
            devices: self.devices.difference(&effective.devices).copied().collect(),
        }
    }

    /// The union of `self` and `other`.
    pub fn with(mut self, other: Permissions) -> Permissions {
        self.network.extend(other.network);
        self.read.extend(other.read);
        self.write.extend(other.write);
        self.env.extend(other.env);
        self.devices.extend(other.devices);
        self
    }

    /// The values of one kind of [`KINDS`].
    pub fn of_kind(&self, kind: &str) -> Vec<String> {
        match kind {
            "network" => self.network.iter().map(ToString::to_string).collect(),
            "read" => self.read.iter().map(ToString::to_string).collect(),
            "write" => self.write.iter().map(ToString::to_string).collect(),
            "env" => self.env.iter().map(ToString::to_string).collect(),
            "devices" => self.devices.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        }
    }

    /// Each permission as `KEY=VALUE`, in the form that `hob grant` takes.
    pub fn words(&self) -> Vec<String> {
        KINDS.iter().flat_map(|kind| self.of_kind(kind).into_iter().map(move |value| format!("{kind}={value}"))).collect()
    }

    /// Parses what [`Permissions::words`] returns.
    ///
    /// Errors: `usage`.
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Permissions, Fault> {
        let mut permissions = Permissions::default();
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| wrong(format!("`{word}` is not a permission: wanted KEY=VALUE")))?;
            permissions.add(key, value)?;
        }
        Ok(permissions)
    }

    /// Each permission as a word, with what it lets a pod do.
    pub fn explained(&self) -> Vec<(String, String)> {
        let network = self.network.iter().map(|at| (format!("network={at}"), format!("connect to {}, port {}", at.host, at.port)));
        // A pod cannot reach sockets that exist when it starts.
        let later = "and, before Linux 7.1, speak to programs that open sockets there while it runs";
        let read = self.read.iter().map(|path| (format!("read={path}"), format!("read {path} and all that is below it, {later}")));
        let write = self
            .write
            .iter()
            .map(|path| (format!("write={path}"), format!("read, change and delete {path} and all that is below it, {later}")));
        let env = self.env.iter().map(|name| (format!("env={name}"), format!("know the value of the variable {name} of this machine")));
        let devices = self.devices.iter().map(|device| match device {
            Device::Gpu => ("devices=gpu".to_owned(), "use the GPUs of this machine, which confines it less".to_owned()),
        });
        network.chain(read).chain(write).chain(env).chain(devices).collect()
    }

    /// Adds the permission `KEY=VALUE`.
    ///
    /// Errors: `usage`; also above [`PERMISSIONS_MAX`] of one kind.
    pub fn add(&mut self, key: &str, value: &str) -> Result<(), Fault> {
        fn insert<T: Ord + FromStr<Err = Fault>>(values: &mut BTreeSet<T>, value: &str) -> Result<(), Fault> {
            values.insert(value.parse()?);
            match values.len() > PERMISSIONS_MAX {
                true => Err(wrong(format!("more than {PERMISSIONS_MAX} of one kind"))),
                false => Ok(()),
            }
        }
        match key {
            "network" => insert(&mut self.network, value),
            "read" => insert(&mut self.read, value),
            "write" => insert(&mut self.write, value),
            "env" => insert(&mut self.env, value),
            "devices" => insert(&mut self.devices, value),
            _ => Err(wrong(format!("there is no permission `{key}` (there are: {})", KINDS.join(", ")))),
        }
    }
}

/// A host name (or address) and a TCP port, e.g. `api.example.com:443`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub struct Endpoint {
    /// Lower case, without a final dot; an address in its canonical form, IPv6 without brackets.
    pub host: String,
    pub port: u16,
}

impl FromStr for Endpoint {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Endpoint, Fault> {
        let wrong = || wrong(format!("`{text}` is not a network name: wanted `HOST:PORT`, e.g. `api.example.com:443`"));
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        // Digits only: the number parser also accepts a plus sign.
        let port = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit())).and_then(|port| port.parse().ok());
        let port = port.filter(|port| *port != 0).ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>()
            && address.is_ipv6() == bare.is_some()
        {
            return Ok(Endpoint { host: address.to_string(), port });
        }
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // A name whose last label is a number is an address in an old notation (`127.1`, `0x7f.1`), which
        // resolvers accept and people do not recognize.
        let last = host.rsplit('.').next().unwrap_or_default();
        let numeric = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
        match host.len() <= ENDPOINT_NAME_BYTES_MAX && host.split('.').all(label) && !numeric {
            true => Ok(Endpoint { host, port }),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(out, "[{}]:{}", self.host, self.port),
            false => write!(out, "{}:{}", self.host, self.port),
        }
    }
}

/// An absolute path without `.`, `..` and doubled slashes; not `/` itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PlainPath(PathBuf);

impl PlainPath {
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl FromStr for PlainPath {
    type Err = Fault;
    fn from_str(text: &str) -> Result<PlainPath, Fault> {
        let path = PathBuf::from(text.strip_suffix('/').unwrap_or(text));
        let plain = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
        // Joining the components must give the same text: `components` hides `.` and doubled slashes.
        let again: PathBuf = path.components().collect();
        // A character that moves the terminal's cursor or turns the writing direction would show an operator
        // another path than the granted one.
        let is_legible =
            |c: char| !c.is_control() && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let plain = plain && path.is_absolute() && path.components().count() > 1 && again.as_os_str() == path.as_os_str();
        match plain && text.chars().all(is_legible) {
            true => Ok(PlainPath(path)),
            false => Err(wrong(format!(
                "`{}` is not a path to grant: wanted an absolute one below `/`, without `.`, `..` and unprintable characters",
                text.escape_debug()
            ))),
        }
    }
}

impl fmt::Display for PlainPath {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        self.0.display().fmt(out)
    }
}

/// The name of a variable of the host's environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Variable(String);

impl Variable {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Variable {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Variable, Fault> {
        match is_free_variable(text) {
            Ok(()) => Ok(Variable(text.to_owned())),
            Err(why) => Err(wrong(format!("`{text}`: {why}"))),
        }
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// Checks whether a pod may be given a variable of that name.
///
/// Errors: the reason, for people.
pub fn is_free_variable(name: &str) -> Result<(), &'static str> {
    let plain = !name.is_empty()
        && name.len() <= 64
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
    if !plain {
        return Err("not a variable's name: wanted letters, digits and `_`");
    }
    // Variables that decide which code runs or where files go, or that the host itself sets for a pod.
    let taken = ["LD_", "DYLD_", "PYTHON", "GLIBC_", "HOB_"].iter().any(|prefix| name.starts_with(prefix))
        || ["PATH", "HOME", "TMPDIR", "IFS", "USER", "LOGNAME"].contains(&name);
    match taken {
        true => Err("this variable is the host's to set, not a recipe's"),
        false => Ok(()),
    }
}

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Device {
    /// The machine's GPUs, with what their drivers need from `/dev`, `/proc` and `/sys`.
    Gpu,
}

impl FromStr for Device {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Device, Fault> {
        match text {
            "gpu" => Ok(Device::Gpu),
            _ => Err(wrong(format!("there is no device `{text}` to ask for (there is: gpu)"))),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Device::Gpu => out.write_str("gpu"),
        }
    }
}

macro_rules! as_text {
    ($($kind:ty),*) => {$(
        impl TryFrom<String> for $kind {
            type Error = Fault;
            fn try_from(text: String) -> Result<$kind, Fault> {
                text.parse()
            }
        }
        impl From<$kind> for String {
            fn from(value: $kind) -> String {
                value.to_string()
            }
        }
    )*};
}
as_text!(Endpoint, PlainPath, Variable);

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(words: &[&str]) -> Permissions {
        let mut permissions = Permissions::default();
        for word in words {
            let (key, value) = word.split_once('=').unwrap();
            permissions.add(key, value).unwrap();
        }
        permissions
    }

    #[test]
    fn a_pod_has_what_was_asked_for_and_given() {
        let asked =
            permissions(&["network=a.example:443", "network=b.example:443", "read=/data/x", "write=/out/y", "env=TOKEN", "devices=gpu"]);
        assert_eq!(effective(&asked, &Permissions::default()), Permissions::default());
        assert_eq!(effective(&Permissions::default(), &asked), Permissions::default());
        assert_eq!(effective(&asked, &asked), asked);
        let given = permissions(&["network=a.example:443", "network=c.example:443", "read=/data", "read=/out", "env=OTHER"]);
        assert_eq!(effective(&asked, &given), permissions(&["network=a.example:443", "read=/data/x"]));
        let (name, address) = ("network=intern.example:443", "network=10.0.0.5:443");
        assert_eq!(effective(&permissions(&[name]), &permissions(&[name, address])), permissions(&[name, address]));
        assert_eq!(effective(&permissions(&[name]), &permissions(&[address])), Permissions::default());
        // What may be written may be read; a name that only begins the same is another folder.
        assert_eq!(effective(&permissions(&["read=/out/y/z"]), &permissions(&["write=/out/y"])), permissions(&["read=/out/y/z"]));
        assert_eq!(effective(&permissions(&["read=/database"]), &permissions(&["read=/data"])), Permissions::default());
        assert_eq!(
            asked.without(&effective(&asked, &given)),
            permissions(&["network=b.example:443", "write=/out/y", "env=TOKEN", "devices=gpu"])
        );
        let words = asked.words();
        assert_eq!(Permissions::from_words(words.iter().map(String::as_str)).unwrap(), asked);
        assert_eq!(asked.explained().into_iter().map(|(word, _)| word).collect::<Vec<_>>(), words);
        assert!(Permissions::from_words(["network"]).unwrap_err().message.contains("KEY=VALUE"));
    }

    #[test]
    fn names_are_read_strictly() {
        for (text, read) in [
            ("API.Example.com.:443", Some("api.example.com:443")),
            ("127.0.0.1:80", Some("127.0.0.1:80")),
            ("[::0001]:80", Some("[::1]:80")),
            ("localhost:65535", Some("localhost:65535")),
            ("::1:80", None),
            ("127.1:80", None),
            ("0x7f.0x1:80", None),
            ("2130706433:80", None),
            ("a:0", None),
            ("a:+80", None),
            ("a:65536", None),
            ("a", None),
            ("*.example.com:443", None),
            ("a b:80", None),
            ("-a.example:80", None),
            ("http://a:80", None),
        ] {
            assert_eq!(text.parse::<Endpoint>().ok().map(|endpoint| endpoint.to_string()).as_deref(), read, "{text}");
        }
        for (text, read) in [
            ("/data/", Some("/data")),
            ("/data/x y", Some("/data/x y")),
            ("/", None),
            ("data", None),
            ("/a/../b", None),
            ("/a/./b", None),
            ("//a", None),
            ("/a//b", None),
            ("/a\u{1b}[2J", None),
            ("/a\nb", None),
            ("/a\u{202e}b", None),
            ("/größe", Some("/größe")),
            ("", None),
        ] {
            assert_eq!(text.parse::<PlainPath>().ok().map(|path| path.to_string()).as_deref(), read, "{text}");
        }
        assert!("LD_PRELOAD".parse::<Variable>().is_err() && "A-B".parse::<Variable>().is_err() && "API_KEY".parse::<Variable>().is_ok());
        assert!("camera".parse::<Device>().is_err());
    }
}
