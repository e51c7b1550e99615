//! The machine's memory and GPUs, as the drivers report them, without importing a framework.
//!
//! Tests implement [`Machine`] for hardware that does not exist.

use std::{
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::{
    model::{
        limits::{GPU_TOOL_BYTES_MAX, GPU_TOOL_MS, GPUS_MAX, KERNEL_TEXT_BYTES_MAX},
        status::machine::{Gpu, GpuKind},
    },
    pod::process::vitals,
};

/// Pause between checks whether a driver's tool has ended: the standard library cannot wait for a process
/// with a bound.
const TOOL_LOOK: Duration = Duration::from_millis(5);

/// A view of a machine. Every function may block for as long as a driver's tool takes.
pub trait Machine: Send + Sync {
    /// The machine's memory, in bytes.
    fn memory_bytes(&self) -> u64;
    /// Its GPUs, in the driver's order, each with its current usage.
    fn gpus(&self) -> Vec<Gpu>;
    /// Bytes that the process and all processes below it hold on that GPU; `None` if no driver reports it.
    fn gpu_bytes_of(&self, pid: u32, gpu: &Gpu) -> Option<u64>;
}

/// This machine.
#[derive(Debug, Default)]
pub struct ThisMachine {
    nvidia: OnceLock<bool>,
}

impl Machine for ThisMachine {
    fn memory_bytes(&self) -> u64 {
        vitals::machine_memory_bytes()
    }

    fn gpus(&self) -> Vec<Gpu> {
        let mut gpus = match *self.nvidia.get_or_init(|| Path::new("/dev/nvidiactl").exists()) {
            true => nvidia("--query-gpu=uuid,name,memory.total,memory.used").map_or_else(Vec::new, |text| nvidia_gpus(&text)),
            false => Vec::new(),
        };
        gpus.extend(amd_gpus(Path::new("/sys/class/drm")));
        gpus.truncate(GPUS_MAX);
        gpus
    }

    fn gpu_bytes_of(&self, pid: u32, gpu: &Gpu) -> Option<u64> {
        if gpu.kind != GpuKind::Nvidia {
            return None;
        }
        let apps = nvidia("--query-compute-apps=gpu_uuid,pid,used_memory")?;
        nvidia_bytes(&apps, &gpu.id, |other| other == pid || vitals::is_below(other, pid), |other| vitals::identity(other).is_some())
    }
}

/// Runs the tool of NVIDIA's driver, which comes with the driver itself; `None` if it is missing, fails, or
/// hangs.
fn nvidia(query: &str) -> Option<String> {
    let mut child = Command::new("nvidia-smi")
        .args([query, "--format=csv,noheader,nounits"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .inspect_err(|error| tracing::debug!("nvidia-smi: {error}"))
        .ok()?;
    let out = child.stdout.take()?;
    // The output is small and does not fill the pipe, so it need not be read while the tool runs.
    let done = ended(&mut child);
    let mut text = String::new();
    out.take(GPU_TOOL_BYTES_MAX).read_to_string(&mut text).ok()?;
    done.then_some(text)
}

fn ended(child: &mut Child) -> bool {
    let until = Instant::now() + Duration::from_millis(GPU_TOOL_MS);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < until => std::thread::sleep(TOOL_LOOK),
            _ => {
                tracing::warn!("nvidia-smi did not answer within {GPU_TOOL_MS} ms");
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
        }
    }
}

/// Parses lines of `uuid, name, MiB, MiB used`. A GPU without a memory size (some share the machine's memory)
/// is left out.
fn nvidia_gpus(text: &str) -> Vec<Gpu> {
    let line = |line: &str| {
        let [id, name, total, used] = line.split(',').map(str::trim).collect::<Vec<_>>()[..] else { return None };
        let bytes = |text: &str| Some(text.parse::<u64>().ok()? << 20);
        Some(Gpu { id: id.to_owned(), name: name.to_owned(), kind: GpuKind::Nvidia, bytes: bytes(total)?, used_bytes: bytes(used)? })
    };
    text.lines().filter_map(line).collect()
}

/// Parses lines of `uuid, pid, MiB`. `None` if none of the processes exists: in a container the driver may
/// list them by other numbers, or not at all.
fn nvidia_bytes(text: &str, gpu: &str, is_mine: impl Fn(u32) -> bool, is_there: impl Fn(u32) -> bool) -> Option<u64> {
    let line = |line: &str| {
        let [id, pid, used] = line.split(',').map(str::trim).collect::<Vec<_>>()[..] else { return None };
        Some((id.to_owned(), pid.parse::<u32>().ok()?, used.parse::<u64>().ok()? << 20))
    };
    let mine: Vec<u64> = text.lines().filter_map(line).filter(|(id, pid, _)| id == gpu && is_mine(*pid)).map(|(.., used)| used).collect();
    let names_processes = !mine.is_empty() || text.lines().filter_map(line).any(|(_, pid, _)| is_there(pid));
    names_processes.then(|| mine.iter().sum())
}

/// Cards that report memory of their own, as `amdgpu` does.
fn amd_gpus(cards: &Path) -> Vec<Gpu> {
    let Ok(entries) = std::fs::read_dir(cards) else { return Vec::new() };
    let mut gpus: Vec<Gpu> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            // `card0`, and not `card0-HDMI-A-1`.
            let number = name.strip_prefix("card").filter(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))?;
            let device = entry.path().join("device");
            let word = |file: &str| {
                let bytes = vitals::read(device.join(file), KERNEL_TEXT_BYTES_MAX)?;
                Some(String::from_utf8_lossy(&bytes).trim().to_owned())
            };
            let bytes = |file: &str| word(file)?.parse::<u64>().ok();
            let (total, used) = (bytes("mem_info_vram_total")?, bytes("mem_info_vram_used")?);
            let id = word("unique_id").filter(|id| !id.is_empty()).map_or_else(|| number.to_owned(), |id| format!("GPU-{id}"));
            let name = word("product_name").filter(|name| !name.is_empty()).unwrap_or(name);
            Some(Gpu { id, name, kind: GpuKind::Amd, bytes: total, used_bytes: used })
        })
        .collect();
    gpus.sort_by(|one, other| one.id.cmp(&other.id));
    gpus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tool_says_is_read_and_what_it_does_not_say_is_left_out() {
        let text = "GPU-1, NVIDIA H100 80GB HBM3, 81559, 4\nGPU-2, Orin, [N/A], [N/A]\nNo devices were found\n";
        let gpus = nvidia_gpus(text);
        let gpu = Gpu {
            id: "GPU-1".into(),
            name: "NVIDIA H100 80GB HBM3".into(),
            kind: GpuKind::Nvidia,
            bytes: 81_559 << 20,
            used_bytes: 4 << 20,
        };
        assert_eq!(gpus, [gpu]);
        let apps = "GPU-1, 10, 100\nGPU-1, 11, 50\nGPU-2, 10, 7\nGPU-1, 12, [N/A]\n";
        assert_eq!(nvidia_bytes(apps, "GPU-1", |pid| pid < 12, |_| false), Some(150 << 20));
        assert_eq!(nvidia_bytes(apps, "GPU-1", |pid| pid == 99, |_| false), None, "numbers of another world");
        assert_eq!(nvidia_bytes(apps, "GPU-1", |pid| pid == 99, |pid| pid == 10), Some(0), "it has none any more");
    }

    #[test]
    fn a_card_with_memory_of_its_own_is_a_gpu() {
        let root = tempfile::tempdir().unwrap();
        for (card, files) in [
            ("card1", &[("mem_info_vram_total", "1000"), ("mem_info_vram_used", "10\n"), ("unique_id", "ab")][..]),
            ("card0", &[("mem_info_vram_total", "x")]),
            ("card1-DP-1", &[("mem_info_vram_total", "5"), ("mem_info_vram_used", "5")]),
            ("renderD128", &[("mem_info_vram_total", "5"), ("mem_info_vram_used", "5")]),
        ] {
            let device = root.path().join(card).join("device");
            std::fs::create_dir_all(&device).unwrap();
            files.iter().for_each(|(file, text)| std::fs::write(device.join(file), text).unwrap());
        }
        let gpu = Gpu { id: "GPU-ab".into(), name: "card1".into(), kind: GpuKind::Amd, bytes: 1000, used_bytes: 10 };
        assert_eq!(amd_gpus(root.path()), [gpu]);
    }

    #[test]
    fn this_machine_has_memory() {
        let machine = ThisMachine::default();
        assert!(machine.memory_bytes() > 1 << 28);
        for gpu in machine.gpus() {
            assert!(gpu.used_bytes <= gpu.bytes && !gpu.id.is_empty(), "{gpu:?}");
        }
    }
}
