//! `hob doctor`: prints what this machine can do for pods, for people and for programs.
//!
//! It needs no server: it tests things itself, and fails where pods would.

use serde_json::json;

use crate::{
    door::{
        client::ask,
        inspect::zygote_table,
        print::{self, say, say_strays, say_warnings},
        table::table,
    },
    host::Host,
    model::{
        Code, Fault, Home,
        status::{
            HostStatus, MemoryBound,
            doctor::{Doctor, OpenFiles, Trial, landlock_lacks},
        },
    },
};

/// Runs the tests and prints them; fails as `sandbox_unavailable` unless pods run fully confined.
pub async fn doctor(host: &Host, home: &Home, json: bool) -> Result<(), Fault> {
    let mut doctor = host.doctor().await?;
    // A server that does not answer must not hide the report about the machine.
    let serving = ask::<HostStatus>(home, hyper::Method::GET, "/v1/status").await;
    let silent = serving.as_ref().err().map(|fault| fault.message.clone());
    doctor.serving = serving.ok().flatten().map(|status| status.zygotes);
    let fault = (!doctor.confined).then(|| {
        let fault = Fault::new(Code::SandboxUnavailable, doctor.verdict.clone());
        match doctor.next.is_empty() {
            true => fault,
            false => fault.hint(doctor.next.join("; ")),
        }
    });
    // Confined pods do not help in a home that others can write to.
    let fault = fault.or_else(|| {
        let why = doctor.home.why.clone()?;
        Some(Fault::new(Code::HomeUnsafe, why).hint(doctor.home.next.clone().unwrap_or_default()))
    });
    match fault {
        // With `--json` there is one document: the fault carries the findings.
        Some(fault) if json => Err(fault.with("doctor", json!(doctor))),
        fault => {
            say(json, json!(doctor), || text(&doctor));
            for entry in host.installed().unwrap_or_default() {
                say_warnings(host, &entry);
            }
            say_strays(host.strays().unwrap_or_default());
            if let Some(silent) = silent {
                print::note(&format!("  the running server was not asked for its zygotes: {silent}"));
            }
            fault.map_or(Ok(()), Err)
        }
    }
}

fn text(doctor: &Doctor) -> String {
    let machine = &doctor.machine;
    let tool = |tool: &crate::model::status::doctor::Tool| match (&tool.path, &tool.version) {
        (Some(path), Some(version)) => format!("{version} ({})", path.display()),
        _ => format!("none: {}", tool.why.as_deref().unwrap_or("not found")),
    };
    let user = match machine.user {
        0 => "root".to_owned(),
        user => format!("user {user}"),
    };
    let container = if machine.container { ", in a container" } else { "" };
    let settings: Vec<String> = machine.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let gpu: Vec<String> = doctor.gpu.iter().map(|path| path.display().to_string()).collect();
    let mut rows = vec![
        ["machine".to_owned(), format!("Linux {} on {}, as {user}{container}", machine.kernel, machine.architecture)],
        ["settings".to_owned(), or_none(&settings)],
        ["Python".to_owned(), tool(&doctor.python)],
        ["uv".to_owned(), tool(&doctor.uv)],
        ["bounds".to_owned(), doctor.bounds.text.clone()],
        ["memory".to_owned(), memory(doctor.memory).to_owned()],
        ["GPU".to_owned(), or_none(&gpu)],
        ["open files".to_owned(), files(&doctor.files)],
        ["own files".to_owned(), if_why(doctor.home.why.as_deref(), "nobody else can write to them", "not safe")],
    ];
    if doctor.kept.elsewhere {
        let places = format!("{} and {}", doctor.kept.state.display(), doctor.kept.cache.display());
        rows.push(["kept in".to_owned(), format!("{places}, since the home cannot be written to: gone with these folders")]);
    }
    if doctor.trial.is_none() {
        rows.push(["sandbox".to_owned(), "not tried".to_owned()]);
    }
    rows.extend(doctor.trial.iter().flat_map(layers));
    rows.push(["zygotes".to_owned(), if_why(doctor.zygotes.why.as_deref(), "possible", "not possible")]);
    if !doctor.without.is_empty() {
        rows.push(["HOB_SANDBOX_WITHOUT".to_owned(), format!("{}: taken for unavailable", doctor.without.join(", "))]);
    }
    let mut text = table(["WHAT", "FOUND"], rows);
    if let Some(trial) = &doctor.trial {
        let acts = trial.acts.iter().map(|act| [act.name.clone(), act.wrong.clone().unwrap_or_else(|| "denied".to_owned())]);
        let untried = trial.untried.iter().map(|name| [name.clone(), "not tried: the layer that denies it is missing".to_owned()]);
        text.push_str(&format!("\n\n{}", table(["FORBIDDEN ACT", "TRIED"], acts.chain(untried).collect())));
    }
    if let Some(zygotes) = doctor.serving.as_ref().filter(|zygotes| !zygotes.is_empty()) {
        text.push_str(&format!("\n\n{}", zygote_table(zygotes)));
    }
    format!("{text}\n\n{}", doctor.verdict)
}

fn files(files: &OpenFiles) -> String {
    let OpenFiles { now, served, wanted } = files;
    match served < wanted {
        false => format!("{now} now; a server raises that to {served}"),
        true => format!("{now} now; a server raises that to {served}, and has use for {wanted} (`ulimit -Hn`; `LimitNOFILE=` of its unit)"),
    }
}

fn memory(bound: MemoryBound) -> &'static str {
    match bound {
        MemoryBound::Group => "group: the kernel holds each pod to its memory",
        MemoryBound::Watched => "watched: the host looks at each pod's memory several times a second",
    }
}

fn layers(trial: &Trial) -> Vec<[String; 2]> {
    let mut rows: Vec<[String; 2]> =
        trial.layers.iter().map(|layer| [layer.name.clone(), if_why(layer.why.as_deref(), "enforced", "not enforced")]).collect();
    let landlock = rows.iter_mut().find(|[name, _]| name == "landlock");
    if let (Some([_, found]), Some(version)) = (landlock, trial.landlock) {
        let lacks: String = landlock_lacks(version).into_iter().map(|lack| format!("; {lack}")).collect();
        found.push_str(&format!(", version {version}{lacks}"));
    }
    if trial.apart {
        rows.push(["processes".to_owned(), "enforced: each pod has a process namespace of its own".to_owned()]);
    } else if let Some(why) = &trial.not_apart {
        rows.push(["processes".to_owned(), format!("no process namespace of its own, so that a pod finds itself alone in /proc: {why}")]);
    }
    rows
}

fn if_why(why: Option<&str>, good: &str, bad: &str) -> String {
    why.map_or_else(|| good.to_owned(), |why| format!("{bad}: {why}"))
}

fn or_none(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}
