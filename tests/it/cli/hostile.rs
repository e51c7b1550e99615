//! Archives signed by a hostile publisher: `hob add` refuses each by name, and writes nothing outside the
//! shelf's own state.
//!
//! Every signature, length and digest here is right: the signed content is the attack. (`bundles.rs` has
//! wrong bytes.) The whole program stands between the archive and the disk, and the disk is compared before
//! and after.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    time::{Duration, Instant},
};

use hob::{
    author::{pack::pack, publish::publish},
    model::{Code, Digest, Silent, limits},
};
use serde_json::{Value, json};

use super::rig::{Rig, url, write_recipe};
use crate::repository::world::World;

/// One entry with any content that a tar file can hold.
#[derive(Clone)]
pub(super) struct Raw {
    pub(super) name: Vec<u8>,
    prefix: &'static [u8],
    kind: u8,
    mode: &'static [u8],
    /// The size field, if it differs from the content's size.
    size: Option<[u8; 12]>,
    link: &'static str,
    pub(super) content: Vec<u8>,
}

fn raw(name: impl AsRef<[u8]>, kind: u8, content: &[u8]) -> Raw {
    Raw { name: name.as_ref().to_owned(), prefix: b"", kind, mode: b"0000644\0", size: None, link: "", content: content.to_owned() }
}

pub(super) fn file(name: impl AsRef<[u8]>, content: &[u8]) -> Raw {
    raw(name, b'0', content)
}

impl Raw {
    /// Writes the entry as `hob pack` does, except for what is set.
    fn write(&self, out: &mut Vec<u8>) {
        let mut header = [0u8; 512];
        header[..self.name.len()].copy_from_slice(&self.name);
        header[100..108].copy_from_slice(self.mode);
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        let size: [u8; 12] = self.size.unwrap_or_else(|| format!("{:011o}\0", self.content.len()).into_bytes().try_into().unwrap());
        header[124..136].copy_from_slice(&size);
        header[136..148].copy_from_slice(b"00000000000\0");
        header[148..156].copy_from_slice(b"        ");
        header[156] = self.kind;
        header[157..157 + self.link.len()].copy_from_slice(self.link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[345..345 + self.prefix.len()].copy_from_slice(self.prefix);
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(&self.content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
}

pub(super) fn archive(entries: &[Raw]) -> Vec<u8> {
    let mut bytes = Vec::new();
    entries.iter().for_each(|entry| entry.write(&mut bytes));
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// The signed index of these files.
pub(super) fn indexed(files: &[Raw]) -> BTreeMap<String, Value> {
    let line = |file: &Raw| {
        let name = String::from_utf8(file.name.clone()).unwrap();
        (name, json!({ "sha256": Digest::of(&file.content).hex(), "bytes": file.content.len(), "executable": false }))
    };
    files.iter().map(line).collect()
}

/// Everything below a folder: kind, size, inode of each; no link is followed.
fn everything(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let kind = metadata.file_type();
            let odd = kind.is_fifo() || kind.is_char_device() || kind.is_block_device() || kind.is_symlink();
            let content = if metadata.is_file() { Digest::of(&fs::read(&path).unwrap()).short() } else { String::new() };
            let what = format!(
                "{:o} odd={odd} links={} inode={} {content}",
                metadata.mode(),
                if metadata.is_dir() { 0 } else { metadata.nlink() },
                metadata.ino()
            );
            found.insert(path.strip_prefix(folder).unwrap().display().to_string(), what);
            if metadata.is_dir() {
                left.push(path);
            }
        }
    }
    found
}

/// A repository whose publisher can sign anything as `hob/plain` 0.1.0.
pub(super) struct Den {
    pub(super) world: World,
    pub(super) honest: Vec<Raw>,
}

impl Den {
    pub(super) async fn new() -> Den {
        let world = World::new().await;
        let folder = world.folder.path().join("plain");
        let pod = "class Subject:\n    def run(self, input):\n        return input\n";
        write_recipe(&folder, "hob/plain", "0.1.0", pod, "python = \">=3.9\"");
        let packed = pack(&folder).unwrap();
        publish(&world.repo, &world.keys, &packed, &folder.join("models"), world.now, &Silent).await.unwrap();
        let honest: Vec<_> = packed.index.files().map(|(path, _)| file(path, &fs::read(folder.join(path)).unwrap())).collect();
        assert!(archive(&honest) == packed.bytes, "what follows differs from a bundle in what it says, and in nothing else");
        Den { world, honest }
    }

    /// Signs `bytes` as the bundle, with that index.
    pub(super) fn sign(&self, bytes: &[u8], index: &BTreeMap<String, Value>) {
        let sha256 = Digest::of(bytes);
        fs::write(self.world.repo.join(format!("targets/hob/plain/{sha256}.0.1.0.hob")), bytes).unwrap();
        self.world.forge("hob", "hob", |signed| {
            let target = &mut signed["targets"]["hob/plain/0.1.0.hob"];
            target["length"] = bytes.len().into();
            target["hashes"] = json!({ "sha256": sha256.hex() });
            target["custom"]["files"] = json!(index);
        });
    }

    /// The honest files with further ones, sorted into their places.
    fn with(&self, more: &[Raw]) -> Vec<u8> {
        let mut all = self.honest.clone();
        all.extend_from_slice(more);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        archive(&all)
    }
}

/// A name, the signed content, and the texts that the fault must contain.
struct Attack {
    name: &'static str,
    bytes: Vec<u8>,
    index: BTreeMap<String, Value>,
    code: Code,
    says: &'static str,
}

fn octal(text: &str) -> Option<[u8; 12]> {
    Some(text.as_bytes().try_into().unwrap())
}

fn entries(den: &Den, outside: &Path) -> Vec<Attack> {
    let mut all: Vec<Attack> = Vec::new();
    let index = indexed(&den.honest);
    let mut put = |name, bytes, says| all.push(Attack { name, bytes, index: index.clone(), code: Code::BundleInvalid, says });
    let linked = |name: &str, kind, link| Raw { link, ..raw(name, kind, b"") };

    put("a symlink", den.with(&[linked("pod/link", b'2', "/etc/passwd")]), "`pod/link` is a symbolic link");
    let through = [linked("pod/door", b'2', "../../../../../outside"), file("pod/door/canary", b"owned")];
    put("a file through a symlink", den.with(&through), "`pod/door` is a symbolic link");
    put("a hard link", den.with(&[linked("pod/link", b'1', "../../../../outside/canary")]), "`pod/link` is a hard link");
    put("a character device", den.with(&[raw("pod/null", b'3', b"")]), "`pod/null` is a device");
    put("a block device", den.with(&[raw("pod/sda", b'4', b"")]), "`pod/sda` is a device");
    put("a folder", den.with(&[raw("pod/", b'5', b"")]), "`pod/` is a folder entry");
    put("a pipe", den.with(&[raw("pod/pipe", b'6', b"")]), "`pod/pipe` is a pipe");
    put("a contiguous file", den.with(&[raw("pod/x", b'7', b"x")]), "`pod/x` is a tar extension");
    put("an unknown kind", den.with(&[raw("pod/x", b'Z', b"x")]), "`pod/x` is a tar extension");

    let absolute = outside.join("canary");
    put("an absolute path", den.with(&[file(absolute.to_str().unwrap(), b"owned")]), "has no place in a bundle");
    put("upwards", den.with(&[file("pod/../../../../../outside/canary", b"owned")]), "has no place in a bundle");
    put("upwards at once", den.with(&[file("../recipe.toml", b"owned")]), "has no place in a bundle");
    put("nothing but upwards", den.with(&[file("pod/..", b"owned")]), "has no place in a bundle");
    put(
        "upwards by the prefix",
        den.with(&[Raw { prefix: b"../../../../outside", ..file("canary", b"owned") }]),
        "has no place in a bundle",
    );
    put("a backslash", den.with(&[file("pod\\..\\..\\x", b"owned")]), "has no place in a bundle");
    put("a backslash below", den.with(&[file("pod/a\\b", b"owned")]), "has no place in a bundle");
    put("no UTF-8", den.with(&[file(b"pod/\xff\xfe.py", b"owned")]), "is not a UTF-8 path");
    put("a command to the terminal", den.with(&[file("pod/\x1b[2J", b"owned")]), "`pod/\\u{1b}[2J` has no place in a bundle");
    put("a name behind a NUL", den.with(&[file(b"pod/z.py\0/../../x", b"owned")]), "`pod/z.py` is an extra file");
    put("no name", den.with(&[file("", b"owned")]), "`` has no place in a bundle");
    put("a dotfile", den.with(&[file("pod/.pth", b"owned")]), "has no place in a bundle");
    put("a cache", den.with(&[file("pod/__pycache__/a.pyc", b"owned")]), "has no place in a bundle");

    let long = |kind| [raw("././@LongLink", kind, b"pod/../../../../../outside/canary\0"), file("pod/z", b"owned")];
    put("a GNU long name", archive(&[&long(b'L')[..], &den.honest].concat()), "is a tar extension");
    put("a GNU long link", archive(&[&long(b'K')[..], &den.honest].concat()), "is a tar extension");
    let pax = |kind, words: &[u8]| archive(&[&[raw("pax", kind, words)][..], &den.honest].concat());
    put("a pax path", pax(b'x', b"43 path=../../../../../outside/canary.......\n"), "is a tar extension");
    put("a pax size", pax(b'x', b"28 size=18446744073709551615\n"), "is a tar extension");
    put("a pax header for all", pax(b'g', b"19 path=../outside\n"), "is a tar extension");
    put("a sparse file", den.with(&[raw("pod/sparse", b'S', b"x")]), "`pod/sparse` is a tar extension");

    let sized = |size| {
        let mut files = den.honest.clone();
        let last = files.last_mut().unwrap();
        assert_eq!(last.name, b"recipe.toml");
        last.size = size;
        archive(&files)
    };
    put("a size of u64::MAX", sized(Some(*b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff")), "recipe.toml");
    put("a size that only just can be", sized(Some(*b"\x80\0\0\0\x40\0\0\0\0\0\0\0")), "`recipe.toml` claims 4611686018427387904 bytes");
    put("a size below nothing", sized(Some([0xff; 12])), "recipe.toml");
    put("8 GiB", sized(octal("77777777777\0")), "`recipe.toml` claims 8589934591 bytes");
    put("more than is there", sized(octal("00000040000\0")), "claims 16384 bytes");
    put("less than is there", sized(octal("00000000001\0")), "`recipe.toml` is not what was signed");
    put("no number", sized(octal("zzzzzzzzzzz\0")), "the archive is damaged");

    put(
        "the same file twice",
        den.with(&[file("pod/subject.py", &den.honest.iter().find(|file| file.name == b"pod/subject.py").unwrap().content)]),
        "`pod/subject.py` is there twice",
    );
    put("the other case", den.with(&[file("Recipe.toml", b"owned")]), "`Recipe.toml` has no place in a bundle");
    put("the other case below", den.with(&[file("pod/Subject.py", b"owned")]), "`pod/Subject.py` is an extra file");
    put("a letter that looks like another", den.with(&[file("pod/subj\u{435}ct.py", b"owned")]), "is an extra file");
    put("an accent of its own", den.with(&[file("pod/e\u{301}.py", b"owned")]), "is an extra file");
    put("a file below a file", den.with(&[file("pod/subject.py/x", b"owned")]), "`pod/subject.py/x` is an extra file");
    put("deep nesting", den.with(&[file(format!("pod{}", "/a".repeat(48)), b"owned")]), "is an extra file");
    put(
        "a bit for another user",
        archive(&{
            let mut files = den.honest.clone();
            files[0].mode = b"0004644\0";
            files
        }),
        "not in the one form",
    );
    put("another archive behind the end", [archive(&den.honest), archive(&[file("pod/z", b"owned")])].concat(), "not in the one form");
    put("a file behind the end", [archive(&den.honest), b"owned".to_vec()].concat(), "not in the one form");
    put("half an archive", archive(&den.honest)[..1300].to_vec(), "the archive is damaged");
    put("no end", archive(&den.honest)[..1024].to_vec(), "`cases/one/output.json` is missing");
    put("nothing", Vec::new(), "is missing");

    // A file that is no tar file is not unpacked: there is no compression, so nothing grows.
    let stored: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x01\x05\0\xfa\xffowned\0\0\0\0\x05\0\0\0";
    let padded = |magic: &[u8]| [magic, &[0x55; 2048]].concat();
    put("gzip", padded(stored), "the archive is damaged at its start");
    put("zip", padded(b"PK\x03\x04\x14\0\0\0\x08\0"), "the archive is damaged at its start");
    put("zstd", padded(b"\x28\xb5\x2f\xfd"), "the archive is damaged at its start");
    all
}

/// Indexes with lies: refused before a byte of the bundle is requested.
fn indexes(den: &Den) -> Vec<Attack> {
    let bytes = archive(&den.honest);
    let attack = |name, path: &str, size: u64, says| {
        let mut index = indexed(&den.honest);
        index.insert(path.to_owned(), json!({ "sha256": Digest::of(b"owned").hex(), "bytes": size, "executable": false }));
        Attack { name, bytes: bytes.clone(), index, code: Code::MetadataInvalid, says }
    };
    let mut all = vec![
        attack("an index that goes upwards", "pod/../../x", 5, "has no place in a bundle"),
        attack("an index with an absolute path", "/etc/cron.d/x", 5, "has no place in a bundle"),
        attack("an index with a backslash", "pod/a\\b", 5, "has no place in a bundle"),
        attack("an index with a NUL", "pod/a\0b", 5, "has no place in a bundle"),
        attack("an index with a long path", &format!("pod/{}", "a".repeat(97)), 5, "has no place in a bundle"),
        attack("an index with a path that no Hob takes", &format!("pod/{}", "a".repeat(255)), 5, "has no place in a bundle"),
        attack("an index with a new place, for an old Hob", "data/a.txt", 5, "has no place in a bundle for Hob `^0.1`"),
        attack("an index with a name that is another's elsewhere", "pod/Subject.py", 5, "are one name to file systems"),
        attack("an index with a folder that is another's elsewhere", "POD/x.py", 5, "are one name to file systems"),
        attack("an index with a file as folder", "pod/subject.py/x", 5, "is both a file and the folder of"),
        attack("an index of too many bytes", "pod/big", limits::BUNDLE_BYTES_MAX, "bytes of files; at most"),
        attack("an index whose sum has no end", "pod/big", u64::MAX, "bytes of files; at most"),
    ];
    let mut index = indexed(&den.honest);
    let empty = json!({ "sha256": Digest::of(b"").hex(), "bytes": 0, "executable": false });
    index.extend((0..limits::BUNDLE_FILES_MAX).map(|at| (format!("pod/{at}"), empty.clone())));
    all.push(Attack { name: "an index of too many files", bytes, index, code: Code::MetadataInvalid, says: "files; at most 4096" });
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hostile_publisher_signs_is_refused_by_name_and_nothing_is_written_outside_staging() {
    let den = Den::new().await;
    let rig = Rig::new();
    let outside = rig.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), "mine").unwrap();
    rig.trust(&url(&den.world.repo), &den.world.repo);
    // The honest archive installs, so each refusal below is due to what differs.
    rig.hob(&["add", "hob/plain"]).well();
    rig.hob(&["remove", "hob/plain"]).well();
    let state = "home/data/remotes/main/trust.json";
    let mut before = everything(rig.folder.path());
    assert!(before.contains_key("outside/canary") && before.remove(state).is_some());

    let many: Vec<_> = (0..100_000).map(|at| file(format!("pod/{at:06}"), b"")).collect();
    let mut attacks = entries(&den, &outside);
    attacks.extend(indexes(&den));
    attacks.push(Attack {
        name: "a hundred thousand files",
        bytes: archive(&many),
        index: indexed(&den.honest),
        code: Code::BundleInvalid,
        says: "`pod/000000` is an extra file",
    });
    // All attacks are tried, and all failures are reported together.
    let mut wrong = Vec::new();
    for Attack { name, bytes, index, code, says } in attacks {
        den.sign(&bytes, &index);
        let began = Instant::now();
        let ran = rig.hob(&["add", "hob/plain"]);
        let mut after = everything(rig.folder.path());
        // The one change: the state that the client has seen of the repository.
        assert!(after.remove(state).is_some());
        let held = [
            ("another exit code", ran.exit == Some(i32::from(code.exit()))),
            ("another fault", ran.stderr.matches("error[").count() == 1 && ran.stderr.contains(&format!("error[{}]: ", code.name()))),
            ("other words", ran.stderr.contains(says) && ran.stderr.contains("hob/plain") && !ran.stderr.contains("bundle bundle")),
            ("no next step", ran.stderr.contains("  hint: ")),
            ("a panic", !ran.stderr.contains("panicked")),
            ("something on stdout", ran.stdout.is_empty()),
            ("a command to the terminal", !ran.stderr.contains('\x1b')),
            ("too long a time", began.elapsed() < Duration::from_secs(20)),
            ("something written", after == before),
        ];
        let broken: Vec<_> = held.iter().filter(|(_, held)| !held).map(|(what, _)| *what).collect();
        if !broken.is_empty() {
            wrong.push(format!("{name}: {}; wanted {}, `{says}`; got {}", broken.join(", "), code.name(), ran.stderr.trim()));
            before = after;
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert_eq!(rig.installed(), [""; 0]);

    // A bundle whose announced size is beyond the bound is not requested.
    let honest = archive(&den.honest);
    den.sign(&honest, &indexed(&den.honest));
    den.world.forge("hob", "hob", |signed| signed["targets"]["hob/plain/0.1.0.hob"]["length"] = (limits::BUNDLE_BYTES_MAX + 1).into());
    rig.hob(&["add", "hob/plain"]).refused(Code::MetadataInvalid, &["hob/plain/0.1.0.hob", "at most"]);
    // After all of them, the honest bundle installs on the same home.
    den.sign(&honest, &indexed(&den.honest));
    rig.hob(&["add", "hob/plain"]).well();
    assert_eq!(rig.hob(&["call", "hob/plain", "run", "[1]"]).well(), "[1]");
}
