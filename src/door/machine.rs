//! Shows which pods have how much of the machine's memory: a part of `hob status`.

use crate::{
    door::table::{duration, table},
    model::status::machine::{MachineStatus, ResidentState},
};

/// Memory limits and claims, then residents, then waiting pods; empty without any of these and without GPUs.
pub(super) fn machine_text(machine: &MachineStatus) -> String {
    if machine.residents.is_empty() && machine.waiting.is_empty() && machine.gpus.is_empty() {
        return String::new();
    }
    let mut text = format!("memory: {} of {} for pods", size(machine.memory_claimed_bytes), size(machine.memory_budget_bytes));
    for gpu in &machine.gpus {
        let alone = if gpu.exclusive { ", one model at a time" } else { "" };
        text.push_str(&format!(
            "\n{} ({}): {} of {} for models{alone}; {} of {} in use",
            gpu.gpu.id,
            gpu.gpu.name,
            size(gpu.claimed_bytes),
            size(gpu.budget_bytes),
            size(gpu.gpu.used_bytes),
            size(gpu.gpu.bytes)
        ));
    }
    let residents = machine.residents.iter().map(|resident| {
        let state = match resident.state {
            ResidentState::Loading => "loading",
            ResidentState::Loaded => "loaded",
            ResidentState::Leaving => "leaving",
        };
        [
            resident.recipe.clone(),
            if resident.pinned { format!("{state}, stays") } else { state.to_owned() },
            size(resident.memory_bytes),
            resident.gpu.as_ref().map_or("-".to_owned(), |gpu| format!("{} {gpu}", size(resident.gpu_bytes))),
            resident.idle_ms.map_or("-".to_owned(), duration),
        ]
    });
    if !machine.residents.is_empty() {
        text.push_str(&format!("\n\n{}", table(["RESIDENT", "MODELS", "MEMORY", "GPU", "IDLE"], residents.collect())));
    }
    let waiting = machine.waiting.iter().map(|waiting| {
        let priority = waiting.priority.map_or("none", |priority| priority.name());
        [waiting.recipe.clone(), priority.to_owned(), duration(waiting.since_ms)]
    });
    if !machine.waiting.is_empty() {
        text.push_str(&format!("\n\n{}", table(["WAITS FOR A PLACE", "FOR WORK", "SINCE"], waiting.collect())));
    }
    text
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Priority,
        status::machine::{Gpu, GpuKind, GpuStatus, ResidentStatus, WaitingStatus},
    };

    #[test]
    fn who_has_what_is_shown_and_who_waits() {
        assert_eq!(machine_text(&MachineStatus::default()), "");
        let gpu = Gpu { id: "GPU-1".into(), name: "Made up".into(), kind: GpuKind::Amd, bytes: 8_000_000_000, used_bytes: 12_000_000 };
        let machine = MachineStatus {
            memory_budget_bytes: 18_000_000_000,
            memory_claimed_bytes: 250_000_000,
            gpus: vec![GpuStatus { gpu, budget_bytes: 7_200_000_000, claimed_bytes: 0, exclusive: true }],
            residents: vec![ResidentStatus {
                recipe: "lab/a".into(),
                incarnation: "i".into(),
                state: ResidentState::Loaded,
                memory_bytes: 250_000_000,
                gpu: Some("GPU-1".into()),
                gpu_bytes: 1_500_000_000,
                exclusive: Vec::new(),
                pinned: true,
                idle_ms: Some(850),
            }],
            waiting: vec![WaitingStatus {
                recipe: "lab/b".into(),
                incarnation: "j".into(),
                priority: Some(Priority::Bulk),
                since_ms: 12_999,
            }],
            events: Vec::new(),
        };
        let text = machine_text(&machine);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "memory: 250 MB of 18.0 GB for pods");
        assert_eq!(lines[1], "GPU-1 (Made up): 0 MB of 7.2 GB for models, one model at a time; 12 MB of 8.0 GB in use");
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(lines[4]), ["lab/a", "loaded,", "stays", "250", "MB", "1.5", "GB", "GPU-1", "850ms"]);
        assert_eq!(words(lines[7]), ["lab/b", "bulk", "12s"]);
    }
}
