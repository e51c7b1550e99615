//! A disk that fills up during `hob add`.
//!
//! The test needs a file system whose size it can choose. If none can be mounted, it prints that and does
//! nothing.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use hob::model::Code;

use super::rig::{Rig, Signed};

/// Small, so that the disk fills up in every part of an install, not always in this one.
const MODEL_BYTES: usize = 20_000;

/// The number of tried sizes, from no room at all to nearly enough.
const STEPS: u64 = 14;

/// Enough for anything.
const ROOM: u64 = 256 << 20;

/// A memory file system, gone when dropped.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(at: &'a Path) -> Option<Disk<'a>> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={ROOM},mode=755"), "none"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Disk(at))
    }

    fn resize(&self, bytes: u64) {
        let resized = Command::new("mount").arg("-o").arg(format!("remount,size={bytes}")).arg(self.0).status().unwrap();
        assert!(resized.success());
    }

    /// Bytes in use, and free bytes.
    fn space(&self) -> (u64, u64) {
        let space = rustix::fs::statvfs(self.0).unwrap();
        ((space.f_blocks - space.f_bfree) * space.f_frsize, space.f_bavail * space.f_frsize)
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_disk_that_fills_up_during_an_install_is_named_and_the_shelf_is_as_before() {
    let rig = Rig::new();
    let Some(disk) = Disk::mount(&rig.home) else {
        return println!("skipped: a tmpfs cannot be mounted here");
    };
    let signed = Signed::new();
    signed.publish_plain("lab/plain", "0.1.0");
    signed.publish_tiny("0.1.0", MODEL_BYTES);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/plain"]).well();
    // First with enough room, so that caches are warm and the size of an install is known.
    let install = || rig.hob(&["add", "lab/tiny"]);
    install().well();
    let (full, _) = disk.space();
    rig.hob(&["remove", "lab/tiny"]).well();
    let (empty, _) = disk.space();
    let wanted = full - empty;
    assert!(wanted > MODEL_BYTES as u64, "{wanted} bytes");

    let mut messages = BTreeSet::new();
    for part in 0..STEPS {
        let (used, _) = disk.space();
        // tmpfs takes 0 for "no limit", and counts in pages.
        disk.resize((used + wanted * part / STEPS).next_multiple_of(4096));
        let (_, free) = disk.space();
        assert!(free < wanted, "{free} bytes free, {wanted} wanted");
        let ran = install();
        ran.refused(Code::DiskFull, &[]);
        assert_eq!(ran.exit, Some(8));
        // The failed step, without the names that differ each time.
        let message = ran.stderr.lines().find_map(|line| line.strip_prefix("error[disk_full]: ")).unwrap();
        messages.insert(message.split(['/', ':']).next().unwrap().to_owned());
        assert_eq!(rig.installed(), ["lab/plain 0.1.0"]);
        rig.hob(&["verify"]).well();
        assert_eq!(rig.hob(&["call", "lab/plain", "run", "[1]"]).well(), "[1]", "what is installed works on a full disk");
        assert_eq!(fs::read_dir(rig.home.join("data/staging")).unwrap().count(), 0, "half an install lies about");
        disk.resize(ROOM);
        install().well();
        rig.hob(&["verify"]).well();
        assert_eq!(rig.installed(), ["lab/plain 0.1.0", "lab/tiny 0.1.0"]);
        rig.hob(&["remove", "lab/tiny"]).well();
    }
    println!("{STEPS} full disks, an install takes {wanted} bytes; it was full while: {messages:?}");
    assert!(messages.len() > 2, "always full in the same place: {messages:?}");
}

#[test]
fn a_recipe_is_removed_from_a_disk_that_is_full() {
    let rig = Rig::new();
    let Some(disk) = Disk::mount(&rig.home) else {
        return println!("skipped: a tmpfs cannot be mounted here");
    };
    let signed = Signed::new();
    signed.publish_plain("lab/plain", "0.1.0");
    signed.publish_tiny("0.1.0", MODEL_BYTES);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/plain"]).well();
    rig.hob(&["add", "lab/tiny"]).well();
    let fill = |name: &str| {
        disk.resize(disk.space().0.next_multiple_of(4096));
        let filled = fs::write(rig.home.join(name), vec![0; 8192]);
        assert!(filled.is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull), "there is room");
    };
    fill("more");
    rig.hob(&["remove", "lab/tiny"]).well();
    assert_eq!(rig.installed(), ["lab/plain 0.1.0"]);
    rig.hob(&["verify"]).well();
    let (_, free) = disk.space();
    assert!(free > MODEL_BYTES as u64, "{free} bytes came back");
    assert!(!rig.home.join("data/recipes/lab/.removed-tiny").exists());
    // Another recipe, for which nothing is freed before.
    fs::remove_dir_all(rig.home.join("data/recipes/lab/plain")).unwrap();
    rig.hob(&["remove", "lab/plain"]).well();
    assert!(rig.installed().is_empty());
}

/// The state that a killed removal on a full disk leaves: the folder has its other name, and some of it is
/// gone.
#[test]
fn a_removal_that_was_killed_half_way_is_finished_by_whatever_comes_next() {
    let (rig, signed) = (Rig::new(), Signed::new());
    signed.publish_plain("lab/plain", "0.1.0");
    signed.publish_plain("lab/other", "0.1.0");
    rig.trust(&signed.url(), &signed.repository);
    let (whole, half) = (rig.home.join("data/recipes/lab/plain"), rig.home.join("data/recipes/lab/.removed-plain"));
    for is_empty in [false, true] {
        rig.hob(&["add", "lab/plain"]).well();
        rig.hob(&["add", "lab/other"]).well();
        fs::rename(&whole, &half).unwrap();
        if is_empty {
            fs::remove_dir_all(&half).unwrap();
            fs::create_dir(&half).unwrap();
        }
        assert!(fs::read_to_string(rig.home.join("hob.lock")).unwrap().contains("lab/plain"));
        assert_eq!(rig.installed(), ["lab/other 0.1.0"]);
        assert!(!half.exists() && !whole.exists() && !fs::read_to_string(rig.home.join("hob.lock")).unwrap().contains("lab/plain"));
        rig.hob(&["verify"]).well();
        rig.hob(&["call", "lab/plain", "run", "1"]).refused(Code::RecipeNotFound, &["lab/plain"]);
        assert_eq!(rig.hob(&["call", "lab/other", "run", "1"]).well(), "1");
    }
    // A recipe that was installed again meanwhile stays, although its mark could not be deleted at that time.
    rig.hob(&["add", "lab/plain"]).well();
    fs::create_dir(&half).unwrap();
    rig.hob(&["verify"]).well();
    assert_eq!(rig.hob(&["call", "lab/plain", "run", "1"]).well(), "1");
    assert!(!half.exists());
}
