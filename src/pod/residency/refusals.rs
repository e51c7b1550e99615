//! The fault for a claim that can never be met.

use crate::{
    model::{Code, Fault, act, hint, status::machine::MachineRules},
    pod::residency::policy::TooMuch,
};

/// `rules` say whether a limit is the app's.
pub(super) fn too_much(recipe: &str, why: &TooMuch, rules: &MachineRules) -> Fault {
    let memory = || if rules.memory_is_of_the_app { act::limit_memory() } else { act::machine_memory() };
    let gpu = || if rules.gpu_is_of_the_app { act::limit_gpu() } else { act::machine_gpu() };
    let (text, hint, device) = match why {
        TooMuch::Memory { wanted, budget, pinned } => (
            format!(
                "the models of `{recipe}` take {wanted} bytes of memory; all pods together may have {budget} on this machine, of which \
                 pinned ones have {pinned}"
            ),
            hint![memory(), " says what pods may have; ", act::status(), " shows who has it"],
            "cpu",
        ),
        TooMuch::NoGpu => (
            format!("the models of `{recipe}` want a GPU, and this machine has none that its driver tells of"),
            hint![act::doctor(), " shows what was looked for; `nvidia-smi` has to be on the host's PATH"],
            "gpu",
        ),
        TooMuch::Gpu { wanted, budget } => (
            format!("the models of `{recipe}` take {wanted} bytes on a GPU; the largest of this machine has {budget} for models"),
            hint!["choose a smaller model; ", gpu(), " says how much of a GPU is for models"],
            "gpu",
        ),
    };
    Fault::new(Code::OutOfMemory, text).hint(hint).with("device", device)
}
