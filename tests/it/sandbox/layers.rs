//! A missing layer of the sandbox: no pod starts unless the operator allows it, and then the pod's class says
//! what is missing.

use std::{fs, process::Command};

use hob::model::{Code, Door, Permissions, status::Class};
use serde_json::{Value, json};

use super::ordinary;
use crate::support::call;

const LAYERS: [&str; 3] = ["namespaces", "landlock", "seccomp"];

/// Leaves a mark at its import; then reports the results of three acts that three layers deny.
const MARKER: &str = r#"
import errno, os, socket
with open("MARK", "w") as file:
    file.write("ran")
class Subject:
    def run(self, input):
        def tried(act):
            try:
                act()
            except OSError as error:
                return errno.errorcode[error.errno]
            return "ALLOWED"
        return {
            "namespaces": tried(lambda: os.stat("OUTSIDE")),
            "landlock": tried(lambda: open(__file__, "a")),
            "seccomp": tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
            "privileges": tried(lambda: os.setuid(1 if os.getuid() == 0 else 0)),
        }
"#;

#[tokio::test]
async fn without_a_layer_nothing_of_a_recipe_runs_unless_its_operator_says_so() {
    for layer in LAYERS {
        let rig = ordinary::rig_without(&[layer]).await;
        let (mark, outside) = (rig.open().join("mark"), rig.folder.path().join("outside"));
        fs::write(&outside, "a secret").unwrap();
        let source = MARKER.replace("MARK", mark.to_str().unwrap()).replace("OUTSIDE", outside.to_str().unwrap());
        let recipe = rig.python("marker", &source, false);
        let fault = rig.host.call(call(&recipe, json!({}))).await.unwrap_err();
        assert_eq!((fault.code, &fault.detail["layer"]), (Code::SandboxUnavailable, &json!(layer)), "{fault:?}");
        assert_eq!(Code::SandboxUnavailable.exit(), 8);
        assert!(fault.hint.as_ref().is_some_and(|hint| hint.clone().worded(Door::CommandLine).contains("--reduced")), "{fault:?}");
        assert!(!mark.exists(), "{layer}: the recipe ran");

        let name = recipe.to_str().unwrap().parse().unwrap();
        rig.host.grant(&name, Permissions::default(), true).await.unwrap();
        let said = rig.host.call(call(&recipe, json!({}))).await.unwrap().output.into_value();
        assert!(mark.exists());
        let pods = rig.host.pods();
        let sandbox = pods[0].sandbox.as_ref().unwrap();
        assert_eq!(sandbox.class, Class::Reduced, "{layer}");
        assert!(sandbox.missing.iter().any(|missing| missing.starts_with(layer)), "{layer}: {sandbox:?}");
        assert_held(layer, &said);
        rig.close().await;
    }
}

/// Asserts that the other layers deny their acts.
fn assert_held(layer: &str, said: &Value) {
    for (other, what) in said.as_object().unwrap() {
        // Landlock also denies what namespaces hide, and a read-only mount also denies what Landlock denies.
        let denied = what != "ALLOWED";
        assert!(denied || other == layer, "without {layer}, {other} denied nothing: {said}");
    }
    if layer == "seccomp" {
        assert_eq!(said["seccomp"], "ALLOWED", "{said}");
    }
}

#[test]
fn without_a_layer_nothing_runs_for_an_ordinary_user_either() {
    ordinary::once_more("sandbox::layers::without_a_layer_nothing_of_a_recipe_runs_unless_its_operator_says_so");
}

#[test]
fn the_command_line_says_which_layer_is_missing_and_takes_the_operators_word() {
    let rig = crate::cli::rig::Rig::new();
    let recipe = rig.recipe("lab/plain", "class Subject:\n    def run(self, input):\n        return 7\n", "python = \">=3.9\"");
    let recipe = recipe.to_str().unwrap();
    let run = |words: &[&str]| -> (Option<i32>, String, String) {
        let mut command: Command = rig.command(words);
        let output = command.env("HOB_SANDBOX_WITHOUT", "landlock, seccomp").output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let refused = run(&["call", recipe, "run", "{}"]);
    assert_eq!((refused.0, refused.1.as_str()), (Some(8), ""), "{refused:?}");
    assert!(refused.2.contains("error[sandbox_unavailable]") && refused.2.contains("landlock"), "{refused:?}");
    let given = run(&["grant", recipe, "--reduced"]);
    assert_eq!(given.0, Some(0), "{given:?}");
    let answered = run(&["call", recipe, "run", "{}"]);
    assert_eq!((answered.0, answered.1.trim()), (Some(0), "7"), "{answered:?}");
}
