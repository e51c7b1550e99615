//! The GPUs of this machine as files: the device files that a pod of the class `gpu` may open, and the files
//! that its driver reads.
//!
//! A device file is a way into the kernel, so the list holds only what is needed. It leaves out the devices
//! that control the machine rather than compute: display modes, the switches between GPUs, the cards beside
//! their render nodes, and the capabilities that set up or watch a partitioned GPU. Access beyond files (CUDA
//! writes the names of its threads below `/proc`) is decided by the sandbox.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use crate::{
    model::limits::{GPU_FILES_MAX, KERNEL_TEXT_BYTES_MAX},
    pod::process::vitals,
};

/// The files that a pod with the permission `devices=gpu` gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::pod) struct Gpu {
    /// Device files, to read and write.
    pub devices: Vec<PathBuf>,
    /// Existing files and folders, to read with everything below them.
    pub read: Vec<PathBuf>,
}

/// Paths that NVIDIA's driver reads. The uvm folder is beside the driver's folder, not in it; the major
/// numbers are in `devices`.
const NVIDIA_READ: &[&str] =
    &["/proc/driver/nvidia", "/proc/driver/nvidia-uvm", "/proc/driver/nvidia-caps", "/proc/devices", "/usr/local/nvidia"];

/// Paths that the drivers of render nodes read: they lead from the device's number to its place on the bus,
/// and to the folder where distributions keep their libraries if not below `/usr`.
const ALL_READ: &[&str] = &["/sys/devices", "/sys/class/drm", "/sys/dev/char", "/sys/bus/pci/devices", "/run/opengl-driver"];

/// Paths that ROCm reads.
const AMD_READ: &[&str] = &["/sys/class/kfd", "/sys/module/amdgpu"];

impl Gpu {
    /// The GPUs of this machine. `None`: it has no GPU that a program can compute on.
    pub(in crate::pod) fn find() -> Option<Gpu> {
        let is_device = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_char_device());
        Gpu::below(Path::new("/"), is_device)
    }

    /// The GPUs of the machine whose root folder is `root`; the paths are as seen from there.
    fn below(root: &Path, is_device: impl Fn(&Path) -> bool) -> Option<Gpu> {
        let machine = Machine { root, is_device };
        let nvidia = machine.files("/dev", |name| name.strip_prefix("nvidia").is_some_and(is_number));
        let render = machine.files("/dev/dri", |name| name.strip_prefix("renderD").is_some_and(is_number));
        let kfd = machine.files("/dev", |name| name == "kfd");
        let mut read: BTreeSet<PathBuf> = machine.existing(ALL_READ).collect();
        let mut devices = BTreeSet::new();
        if !nvidia.is_empty() {
            // Newer drivers open the tools' file together with the uvm file, and treat its absence as a
            // broken machine.
            devices.extend(machine.files("/dev", |name| ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"].contains(&name)));
            let managing = machine.managing_capabilities();
            let computes = |name: &str| name.strip_prefix("nvidia-cap").is_some_and(|minor| is_number(minor) && !managing.contains(minor));
            devices.extend(machine.files("/dev/nvidia-caps", computes));
            read.extend(machine.existing(NVIDIA_READ));
            read.extend(machine.named("/sys/module", |name| name.starts_with("nvidia")));
            read.extend(machine.named("/usr/local", |name| name.starts_with("cuda")));
        }
        if !kfd.is_empty() {
            read.extend(machine.existing(AMD_READ));
            read.extend(machine.named("/opt", |name| name.starts_with("rocm")));
        }
        let gpus = [nvidia, render, kfd].concat();
        if gpus.is_empty() {
            return None;
        }
        devices.extend(gpus);
        Some(Gpu { devices: devices.into_iter().collect(), read: read.into_iter().collect() })
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

struct Machine<'a, F> {
    root: &'a Path,
    is_device: F,
}

impl<F: Fn(&Path) -> bool> Machine<'_, F> {
    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Entries of `folder` whose names fit.
    fn named(&self, folder: &str, fits: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.at(Path::new(folder))) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| fits(name)).take(GPU_FILES_MAX).map(|name| Path::new(folder).join(name)).collect()
    }

    fn files(&self, folder: &str, fits: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let mut files = self.named(folder, fits);
        // A plain file under a device's name is a mistake in `/dev`, and must not become writable for a pod.
        files.retain(|path| (self.is_device)(&self.at(path)));
        files
    }

    fn existing(&self, paths: &[&'static str]) -> impl Iterator<Item = PathBuf> {
        paths.iter().map(PathBuf::from).filter(|path| self.at(path).exists())
    }

    /// The minor numbers of NVIDIA's capabilities that let a program partition a GPU, or watch all of it.
    fn managing_capabilities(&self) -> BTreeSet<String> {
        let table = vitals::read(self.at(Path::new("/proc/driver/nvidia-caps/mig-minors")), KERNEL_TEXT_BYTES_MAX);
        // Without the table the numbers are unknown, but these two have always been the first.
        let Some(table) = table else { return ["1", "2"].map(str::to_owned).into() };
        let table = String::from_utf8_lossy(&table).into_owned();
        let lines = table.lines().filter_map(|line| line.rsplit_once(' '));
        lines.filter(|(name, _)| !name.trim_end().ends_with("/access")).map(|(_, minor)| minor.to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[&str], folders: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path.trim_start_matches('/'));
        for folder in folders {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for file in files {
            fs::create_dir_all(at(file).parent().unwrap()).unwrap();
            fs::write(at(file), "").unwrap();
        }
        root
    }

    fn found(root: &tempfile::TempDir) -> Option<(Vec<String>, Vec<String>)> {
        let words = |paths: Vec<PathBuf>| paths.into_iter().map(|path| path.to_str().unwrap().to_owned()).collect();
        Gpu::below(root.path(), |path| path.is_file() && !path.ends_with("nvidia7"))
            .map(|Gpu { devices, read }| (words(devices), words(read)))
    }

    #[test]
    fn a_machine_with_nvidia_gives_what_computes_and_what_its_driver_reads() {
        let devices =
            ["/dev/nvidia0", "/dev/nvidia10", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/dri/renderD128"];
        let mut files = devices.to_vec();
        files.extend([
            "/dev/nvidia-modeset",
            "/dev/nvidia-nvswitchctl",
            "/dev/nvidia-nvlink",
            "/dev/dri/card0",
            "/dev/nvidia7",
            "/dev/null",
        ]);
        files.extend(["/dev/nvidia-caps/nvidia-cap1", "/dev/nvidia-caps/nvidia-cap2", "/dev/nvidia-caps/nvidia-cap21", "/proc/devices"]);
        let folders = ["/sys/devices", "/sys/class/drm", "/sys/module/nvidia_uvm", "/sys/module/nvidia", "/sys/module/ext4"];
        let more = ["/proc/driver/nvidia", "/proc/driver/nvidia-uvm", "/usr/local/cuda-12.4", "/usr/local/share", "/opt/rocm-6.0"];
        let root = machine(&files, &[&folders[..], &more[..]].concat());
        let (mut given, read) = found(&root).unwrap();
        let mut wanted = devices.to_vec();
        wanted.push("/dev/nvidia-caps/nvidia-cap21");
        given.sort();
        wanted.sort();
        assert_eq!(given, wanted);
        let wanted = [
            "/proc/devices",
            "/proc/driver/nvidia",
            "/proc/driver/nvidia-uvm",
            "/sys/class/drm",
            "/sys/devices",
            "/sys/module/nvidia",
            "/sys/module/nvidia_uvm",
            "/usr/local/cuda-12.4",
        ];
        assert_eq!(read, wanted);
        // The driver's table says which capabilities are for managing, whatever their numbers are.
        fs::create_dir_all(root.path().join("proc/driver/nvidia-caps")).unwrap();
        fs::write(root.path().join("proc/driver/nvidia-caps/mig-minors"), "config 21\nmonitor 1\ngpu0/gi0/access 2\n").unwrap();
        let (given, _) = found(&root).unwrap();
        let capabilities: Vec<_> = given.iter().filter(|path| path.contains("caps")).collect();
        assert_eq!(capabilities, ["/dev/nvidia-caps/nvidia-cap2"]);
    }

    #[test]
    fn render_nodes_and_kfd_are_gpus_and_a_loaded_driver_is_none() {
        let root =
            machine(&["/dev/kfd", "/dev/dri/renderD128", "/dev/dri/renderD129"], &["/sys/devices", "/opt/rocm", "/sys/module/nvidia"]);
        let (devices, read) = found(&root).unwrap();
        assert_eq!(devices, ["/dev/dri/renderD128", "/dev/dri/renderD129", "/dev/kfd"]);
        assert_eq!(read, ["/opt/rocm", "/sys/devices"]);
        for files in [&["/dev/nvidiactl", "/dev/nvidia-uvm"][..], &["/dev/dri/card0", "/dev/nvidia7", "/dev/nvidia0x"], &[]] {
            assert_eq!(found(&machine(files, &["/sys/devices", "/dev/nvidia1", "/dev/kfd"])), None, "{files:?}");
        }
    }

    #[test]
    fn of_this_machine_only_character_devices_are_given() {
        for path in Gpu::find().map(|gpu| gpu.devices).unwrap_or_default() {
            assert!(fs::symlink_metadata(&path).unwrap().file_type().is_char_device(), "{path:?}");
        }
        // The same search for other device names, which every machine has.
        let is_device = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_char_device());
        let machine = Machine { root: Path::new("/"), is_device };
        assert_eq!(machine.files("/dev", |name| ["null", "shm", "fd"].contains(&name)), [PathBuf::from("/dev/null")]);
    }
}
