//! The machine settings that a pod may read: one list, each entry with its reason, and made-up files that
//! replace the machine's.
//!
//! Programs read a setting to draw, to sort, to find a library or a name; without it, many silently behave
//! differently. The list holds only files that are the same for all users of the machine and that name no
//! user, no other machine and no password. Of a folder, only files that the machine's other users may read
//! are given: a host that runs as root could read more. `plan.rs` mounts them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::model::limits::SETTINGS_ENTRIES_MAX;

/// A path of a file or folder, and who reads it. A `*` at the end stands for any rest of the name.
pub(in crate::pod) type Setting = (&'static str, &'static str);

/// The settings that every pod gets, if the machine has them.
#[rustfmt::skip] // a table
pub(in crate::pod) const SETTINGS: &[Setting] = &[
    ("/etc/ld.so.cache", "the loader: where libraries lie"),
    ("/etc/localtime", "the C library: the time zone"),
    ("/etc/timezone", "programs that want the time zone's name, as `tzlocal` does"),
    ("/etc/os-release", "`platform`, `distro`: which system this is"),
    ("/etc/alternatives", "links below `/usr/bin` and `/usr/lib` that lead through it (BLAS, Java, editors)"),
    ("/etc/mime.types", "`mimetypes`: what an ending means"),
    ("/etc/magic", "libmagic: what it knows beside its own"),
    ("/etc/magic.mime", "libmagic: the same as media types"),
    ("/etc/services", "`socket.getservbyname`"),
    ("/etc/protocols", "`socket.getprotobyname`"),
    ("/etc/fonts", "fontconfig: which fonts there are and which stands for which"),
    ("/var/cache/fontconfig", "fontconfig: what it found in them, so that not every pod looks again"),
    ("/etc/ghostscript", "Ghostscript: fonts and their names"),
    ("/var/lib/ghostscript", "Ghostscript: the same, as packages left it"),
    ("/etc/ImageMagick-*", "ImageMagick: its policy, without which nothing is forbidden, and its helpers"),
    ("/etc/texmf", "TeX: where its files lie"),
    ("/var/lib/texmf", "TeX: formats and maps of fonts"),
    ("/etc/dictionaries-common", "links below `/usr/share` that lead through it (word lists, Hunspell)"),
    ("/etc/terminfo", "curses: terminals that the machine has beside the usual ones"),
    ("/etc/java-*", "Java, which does not start without it"),
    ("/etc/OpenCL", "OpenCL: which drivers there are, those for processors too"),
    ("/etc/vulkan", "Vulkan: the same"),
    ("/etc/glvnd", "OpenGL and EGL: the same"),
];

/// The authorities to trust on the network, which a pod with a network gets in addition.
#[rustfmt::skip]
pub(in crate::pod) const CERTIFICATES: &[Setting] = &[
    ("/etc/ssl", "OpenSSL: certificates and settings"),
    ("/etc/pki", "the same where Fedora keeps it"),
    ("/etc/ca-certificates", "the same where Arch keeps it"),
    ("/var/lib/ca-certificates", "the same where openSUSE keeps it"),
    ("/etc/crypto-policies", "settings that those of OpenSSL lead to on Fedora"),
];

/// The made-up files of a pod's root. They are the same on every machine, apart from the numbers of its user.
/// `home`: the pod's scratch folder.
///
/// Never given: `resolv.conf` (the host looks up names), `machine-id`, and files with users or passwords.
pub(in crate::pod) fn made(home: &str) -> BTreeMap<&'static str, String> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // Files of the system belong to root, or to nobody if the pod is in a user namespace. The first line with
    // a number counts.
    let accounts = |own: String, root: &str, nobody: &str| format!("{own}\n{root}\n{nobody}\n");
    BTreeMap::from([
        (
            "/etc/passwd",
            accounts(
                format!("pod:x:{user}:{group}::{home}:/bin/sh"),
                "root:x:0:0::/:/bin/false",
                "nobody:x:65534:65534::/nonexistent:/bin/false",
            ),
        ),
        ("/etc/group", accounts(format!("pod:x:{group}:"), "root:x:0:", "nogroup:x:65534:")),
        // The machine's own file may send every lookup of a user or a name to services that no pod reaches.
        (
            "/etc/nsswitch.conf",
            ["passwd", "group", "shadow", "services", "protocols", "networks", "ethers", "rpc"]
                .map(|base| format!("{base}: files\n"))
                .concat()
                + "hosts: files dns\n",
        ),
        ("/etc/hosts", "127.0.0.1 localhost pod\n::1 localhost ip6-localhost ip6-loopback\n".to_owned()),
    ])
}

/// The part of a list that this machine has, as it is mounted and linked.
#[derive(Debug, Default, PartialEq)]
pub(in crate::pod) struct Found {
    /// Mounted under the same name.
    pub paths: Vec<PathBuf>,
    /// Recreated as links: {path: target}.
    pub links: BTreeMap<PathBuf, PathBuf>,
}

/// Finds the entries of `settings` that exist. `visible`: folders that every pod has; a link into one stays a
/// link.
pub(in crate::pod) fn find(settings: &[Setting], visible: &[PathBuf]) -> Found {
    let mut found = Found::default();
    let mut left = SETTINGS_ENTRIES_MAX;
    for path in settings.iter().flat_map(|(pattern, _)| named(pattern)) {
        let Ok(real) = path.canonicalize() else { continue };
        let leads_into_what_is_there = visible.iter().any(|folder| real.starts_with(folder));
        match fs::read_link(&path) {
            Ok(target) if leads_into_what_is_there => drop(found.links.insert(path, target)),
            // The target of a link to elsewhere is mounted in the link's place, if nothing within needs
            // another name.
            Ok(_) => {
                if is_open(&real, &mut left).is_some_and(|parts| parts == Found { paths: vec![real], ..Found::default() }) {
                    found.paths.push(path);
                }
            }
            Err(_) => {
                if let Some(parts) = is_open(&path, &mut left) {
                    found.paths.extend(parts.paths);
                    found.links.extend(parts.links);
                }
            }
        }
    }
    found
}

/// The paths that match a pattern.
fn named(pattern: &str) -> Vec<PathBuf> {
    let Some(start) = pattern.strip_suffix('*') else { return vec![pattern.into()] };
    let (folder, start) = start.rsplit_once('/').unwrap_or(("", start));
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(start)).map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// The parts of `path` that everybody may read: the path itself if all of it may be read, else its parts.
/// `None` if `left` entries are not enough to decide.
fn is_open(path: &Path, left: &mut usize) -> Option<Found> {
    let only = |path: &Path| Found { paths: vec![path.to_owned()], ..Found::default() };
    *left = left.checked_sub(1)?;
    let Ok(about) = fs::symlink_metadata(path) else { return Some(Found::default()) };
    if about.is_file() && about.mode() & 0o004 != 0 {
        return Some(only(path));
    }
    if !about.is_dir() || about.mode() & 0o005 != 0o005 {
        return Some(Found::default());
    }
    let mut parts = Found::default();
    let mut all = true;
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let inner = entry.path();
        if let Ok(target) = fs::read_link(&inner) {
            *left = left.checked_sub(1)?;
            parts.links.insert(inner, target);
            continue;
        }
        let found = is_open(&inner, left)?;
        all &= found == only(&inner);
        parts.paths.extend(found.paths);
        parts.links.extend(found.links);
    }
    Some(if all { only(path) } else { parts })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn write(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "a setting").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_page_on_the_sandbox_has_each_entry_with_its_reason_and_no_other() {
        let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sandbox.md")).unwrap();
        let told: Vec<&str> = page.lines().filter(|line| line.starts_with("| `/")).collect();
        let listed: Vec<String> = SETTINGS.iter().chain(CERTIFICATES).map(|(path, why)| format!("| `{path}` | {why} |")).collect();
        assert_eq!(told, listed);
    }

    #[test]
    fn what_is_closed_to_others_is_not_given_and_what_lies_beside_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for (path, mode) in [("ssl/openssl.cnf", 0o644), ("ssl/certs/one.pem", 0o644), ("ssl/private/host.key", 0o640), ("alone", 0o600)] {
            write(&at(path), mode);
        }
        fs::set_permissions(at("ssl/private"), fs::Permissions::from_mode(0o710)).unwrap();
        symlink("certs/one.pem", at("ssl/cert.pem")).unwrap();
        let mut left = 100;
        let mut found = is_open(&at("ssl"), &mut left).unwrap();
        found.paths.sort();
        assert_eq!(found.paths, [at("ssl/certs"), at("ssl/openssl.cnf")]);
        assert_eq!(found.links, BTreeMap::from([(at("ssl/cert.pem"), "certs/one.pem".into())]));
        assert_eq!(is_open(&at("ssl/certs"), &mut left).unwrap().paths, [at("ssl/certs")]);
        assert_eq!(is_open(&at("alone"), &mut left), Some(Found::default()));
        assert_eq!(is_open(&at("ssl"), &mut 3), None, "more than is looked at is not given");
    }

    #[test]
    fn a_link_is_one_again_where_it_leads_into_what_every_pod_has() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        write(&at("usr/zones/utc"), 0o644);
        write(&at("static/fonts/fonts.conf"), 0o644);
        fs::create_dir_all(at("etc")).unwrap();
        symlink("../usr/zones/utc", at("etc/localtime")).unwrap();
        symlink(at("static/fonts"), at("etc/fonts")).unwrap();
        symlink(at("nowhere"), at("etc/magic")).unwrap();
        let leak = |path: &str| -> Setting { (Box::leak(at(path).display().to_string().into_boxed_str()), "a test") };
        let settings = [leak("etc/localtime"), leak("etc/fonts"), leak("etc/magic"), leak("etc/absent"), leak("static/fo*")];
        let found = find(&settings, &[at("usr").canonicalize().unwrap()]);
        assert_eq!(found.links, BTreeMap::from([(at("etc/localtime"), "../usr/zones/utc".into())]));
        assert_eq!(found.paths, [at("etc/fonts"), at("static/fonts")]);
    }
}
