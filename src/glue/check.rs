//! Checks that a component is glue, and glue for this Hob, before wasmtime links it.
//!
//! wasmtime's own errors for the same mistakes name neither the host's version nor what to do ("function
//! implementation is missing" for an interface that does not exist).

use std::collections::HashSet;

use wasmtime::{
    Engine,
    component::{
        Component, InstancePre,
        types::{ComponentInstance, ComponentItem},
    },
};

use super::{
    run::Run,
    wasi::{self, Wasi},
    world::{self, Request, Response, VERSION},
};
use crate::model::{Code, Fault, Hint, Manifest, RecipeName, StandIn, act, hint, limits, stand_in::HEAD_BYTES};

/// Every function of the world's imports. A test compares it with `wit/glue.wit`.
pub(super) const OFFERED: &[(&str, &[&str])] = &[
    ("faults", &[]),
    (
        "blobs",
        &[
            "[method]blob.media-type",
            "[method]blob.size",
            "[method]blob.read",
            "[constructor]builder",
            "[method]builder.write",
            "[static]builder.finish",
        ],
    ),
    ("pod", &["[method]call.next", "start"]),
    ("output", &["emit", "forward"]),
    ("log", &["write"]),
];

/// First bytes of a component: magic, then version 0x0d of layer 1. A core module has version 1 of layer 0.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

fn incompatible(name: &RecipeName, found: impl std::fmt::Display) -> Fault {
    Fault::new(Code::GlueIncompatible, format!("the glue of `{name}` {found}"))
}

fn ours() -> String {
    format!("hob:glue {}.{}.{}", VERSION.0, VERSION.1, VERSION.2)
}

/// Checks the bytes before anything parses them.
///
/// Errors: `glue_incompatible`.
pub fn bytes(manifest: &Manifest, glue: &[u8]) -> Result<(), Fault> {
    let name = &manifest.name;
    let world = manifest.glue.as_ref().map(|glue| glue.world.as_str()).unwrap_or_default();
    if world != format!("{}.{}", VERSION.0, VERSION.1) {
        return Err(incompatible(name, format!("is built for hob:glue {world}, this Hob has {}", ours()))
            .hint("install a version of the recipe for this Hob, or update Hob"));
    }
    let found = match glue {
        [] => "is an empty file",
        _ if glue.starts_with(COMPONENT) => {
            return match glue.len() as u64 <= limits::GLUE_COMPONENT_BYTES_MAX {
                true => Ok(()),
                false => {
                    Err(incompatible(name, format!("is {} bytes; at most {} are taken", glue.len(), limits::GLUE_COMPONENT_BYTES_MAX)))
                }
            };
        }
        _ if glue.starts_with(MODULE) => "is a core wasm module, wanted a component",
        _ if glue.starts_with(b"\x7fELF") => "is precompiled machine code, which Hob never loads; wanted a wasm component",
        _ if glue.starts_with(b"\0asm") => "is wasm of a version that this Hob does not know, wanted a component",
        _ if glue.iter().take(64).all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => {
            "is text, wanted a binary wasm component"
        }
        _ => "is not wasm",
    };
    let made = " makes the component from the recipe's glue source";
    Err(match StandIn::of(&glue[..glue.len().min(HEAD_BYTES)], None).filter(|found| *found != StandIn::Empty) {
        Some(known) => incompatible(name, format!("is {}, wanted a binary wasm component", known.name())).hint(hint![
            known.hint_of_folder(),
            "; ",
            act::build("FOLDER"),
            made
        ]),
        None => incompatible(name, found).hint(hint![act::build("FOLDER"), made]),
    })
}

/// Compares the component's imports and exports with what this Hob offers and requires. Returns how much WASI
/// the component imports.
///
/// Errors: `glue_incompatible`.
pub fn shape(manifest: &Manifest, glue: &[u8], component: &Component, engine: &Engine) -> Result<Wasi, Fault> {
    let name = &manifest.name;
    let shape = component.component_type();
    let sockets_unused = glue.ends_with(wasi::SOCKETS_UNUSED);
    let mut wasi = Wasi::No;
    let mut missing = Vec::new();
    for (import, item) in shape.imports(engine) {
        missing.extend(match import.starts_with("wasi:") {
            true => lacks_wasi(import, sockets_unused),
            false => lacks(import, &item.ty, engine),
        });
        if import.starts_with("wasi:") && wasi != Wasi::WithSocketNames {
            wasi = if import.starts_with(wasi::SOCKETS.0) { Wasi::WithSocketNames } else { Wasi::Yes };
        }
    }
    // Several interfaces of one package may lack the same.
    let mut said = HashSet::new();
    missing.retain(|what| said.insert(what.clone()));
    if !missing.is_empty() {
        let hint = left_out_by(&missing);
        let more = missing.len().saturating_sub(limits::NAMED_IN_MESSAGE_MAX);
        missing.truncate(limits::NAMED_IN_MESSAGE_MAX);
        if more > 0 {
            missing.push(format!("{more} more"));
        }
        return Err(incompatible(name, format!("needs {}", missing.join("; "))).hint(hint));
    }
    match shape.get_export(engine, "run").map(|item| item.ty) {
        Some(ComponentItem::ComponentFunc(_)) => {}
        _ => {
            let exports = shape.exports(engine).take(limits::NAMED_IN_MESSAGE_MAX);
            let exports: Vec<_> = exports.map(|(name, _)| format!("`{name}`")).collect();
            let has = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
            return Err(incompatible(name, format!("does not export the function `run` of hob:glue (it exports {has})"))
                .hint("export the world `glue` of wit/glue.wit"));
        }
    }
    let needs = component.resources_required();
    if let Some(needs) = needs {
        let pages = needs.max_initial_memory_size.unwrap_or(0);
        for (what, found, allowed) in [
            ("linear memories", u64::from(needs.num_memories), u64::from(limits::GLUE_MEMORIES_MAX)),
            ("tables", u64::from(needs.num_tables), u64::from(limits::GLUE_TABLES_MAX)),
            ("pages of memory at its start", pages, limits::GLUE_MEMORY_BYTES_MAX as u64 >> 16),
            ("table elements at its start", needs.max_initial_table_size.unwrap_or(0), limits::GLUE_TABLE_ELEMENTS_MAX as u64),
        ] {
            if found > allowed {
                return Err(incompatible(name, format!("needs {found} {what}; this Hob gives {allowed}"))
                    .hint("a smaller stack or heap at build time usually helps"));
            }
        }
    }
    Ok(wasi)
}

/// How the toolchain of each language leaves out what this Hob does not offer.
fn left_out_by(missing: &[String]) -> Hint {
    let needs = |package: &str| missing.iter().any(|what| what.starts_with(package));
    if needs("wasi:http/") {
        hint![
            "glue has no network: ",
            act::build("FOLDER"),
            " makes glue.js without it, componentize-js does with `disableFeatures: [\"http\", \"fetch-event\"]`, jco with `--disable http \
             --disable fetch-event`"
        ]
    } else if needs("wasi:sockets/") || needs("wasi:filesystem/") {
        hint![
            "glue has no network and no files: ",
            act::build("FOLDER"),
            " makes it of glue.py without them; componentize-py alone puts all of WASI in, used or not"
        ]
    } else if needs("wasi:") {
        "glue has no network, files or variables, and of WASI 0.2 only what script languages import: leave out what needs more".into()
    } else {
        hint!["rebuild the glue with ", act::build("FOLDER"), ", or use a Hob that offers what it needs"]
    }
}

/// Checks that `run` has the signature of the world; wasmtime would find out only on the first call.
///
/// Errors: `glue_incompatible`.
pub fn signature(manifest: &Manifest, pre: &InstancePre<Run>) -> Result<(), Fault> {
    let Some(ComponentItem::ComponentFunc(run)) = pre.component().component_type().get_export(pre.engine(), "run").map(|item| item.ty)
    else {
        return Ok(()); // `shape` said so already.
    };
    run.typecheck::<(&Request,), (Result<Response, world::Fault>,)>(&pre.instance_type()).map_err(|error| {
        incompatible(&manifest.name, format!("exports a `run` that is not the one of hob:glue: {error:#}"))
            .hint("build it against the wit/glue.wit of this Hob")
    })
}

/// The part of an import that this Hob lacks, in words.
fn lacks(import: &str, item: &ComponentItem, engine: &Engine) -> Option<String> {
    let nothing = || Some(format!("{import}, which Hob does not offer"));
    let Some((package, rest)) = import.split_once('/') else { return nothing() };
    if package != "hob:glue" {
        return nothing();
    }
    let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
    match semver::Version::parse(version) {
        Err(_) => return Some(format!("hob:glue/{interface} without a version, this Hob has {}", ours())),
        Ok(version) => {
            if !version.pre.is_empty() {
                return Some(format!("the pre-release hob:glue {version}, this Hob has {}", ours()));
            }
            // Patch versions only add functions, which are checked one by one.
            if (version.major, version.minor) != (VERSION.0, VERSION.1) {
                return Some(format!("hob:glue {}.{}, this Hob has {}", version.major, version.minor, ours()));
            }
        }
    }
    let Some((_, offered)) = OFFERED.iter().find(|(name, _)| *name == interface) else { return nothing() };
    let ComponentItem::ComponentInstance(instance) = item else { return nothing() };
    functions(instance, engine)
        .into_iter()
        .find(|function| !offered.contains(&function.as_str()))
        .map(|function| format!("the function `{function}` of hob:glue/{interface}@{version}, this Hob has {}", ours()))
}

/// The part of a WASI import that this Hob lacks, in words.
fn lacks_wasi(import: &str, sockets_unused: bool) -> Option<String> {
    let nothing = || Some(format!("{import}, which Hob does not offer"));
    let Some((package, rest)) = import.split_once('/') else { return nothing() };
    let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
    let offered = wasi::OFFERED.iter().chain(sockets_unused.then_some(&wasi::SOCKETS));
    if !offered.into_iter().any(|(name, interfaces)| *name == package && interfaces.contains(&interface)) {
        return nothing();
    }
    match semver::Version::parse(version) {
        Ok(version) if (version.major, version.minor) == (0, 2) && version.pre.is_empty() => None,
        _ => Some(format!("{import}; this Hob has WASI 0.2")),
    }
}

fn functions(instance: &ComponentInstance, engine: &Engine) -> Vec<String> {
    instance
        .exports(engine)
        .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)))
        .map(|(name, _)| name.to_owned())
        .collect()
}
