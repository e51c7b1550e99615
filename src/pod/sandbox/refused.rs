//! The faults for a caller whose pod could not be started: it could not be confined, or the machine had too
//! few resources.

use crate::model::{Code, Fault, Verified, act, exhausted_in, hint};

/// Stands in place of a layer's name if the machine ran out of a resource that layers need.
pub const RAN_OUT: &str = "machine";

/// The fault of a pod that could not be confined.
pub fn unavailable(recipe: &Verified, layer: &str, why: &str) -> Fault {
    let name = &recipe.manifest().name;
    if layer == RAN_OUT {
        // Giving up a layer would not help, so the hint must not advise it.
        return ran_out(recipe, exhausted_in(why).as_ref(), why);
    }
    let hint = hint![
        act::doctor(),
        " says what this machine can do; ",
        act::grant_reduced(word(recipe)),
        " runs its pods with less, and shows that they are"
    ];
    Fault::new(Code::SandboxUnavailable, format!("a pod of `{name}` was not started, because it could not be confined: {layer}: {why}"))
        .hint(hint)
        .with("layer", layer)
}

/// The fault of a pod for which the machine had too few resources. `why`: the words of the failure.
pub fn ran_out(recipe: &Verified, error: Option<&std::io::Error>, why: &str) -> Fault {
    let what = format!("a pod of `{}` had to end, because this machine has run out of something", recipe.manifest().name);
    match error {
        Some(error) => Fault::io(what, error).with("why", why),
        None => Fault::new(Code::Io, format!("{what}: {why}")).hint(
            "close programs that hold many files or much memory, or let the host have more (`ulimit -n`, `ulimit -u`), and call again",
        ),
    }
}

/// How an operator names a recipe to commands.
pub fn word(recipe: &Verified) -> String {
    if recipe.is_unsigned() { recipe.folder().display().to_string() } else { recipe.manifest().name.to_string() }
}
