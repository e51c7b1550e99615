//! Tests of caps that no other test of glue exceeds: the parts of a component, and the text that it may
//! return. Most of these guests are refused before they run.

use super::*;
use crate::glue::pods::BoxFuture;

#[tokio::test]
async fn components_with_too_many_parts_are_refused() {
    // The component's own module is number 0, so the first of the two that follow is instantiated.
    let with = |parts: &str, count: u32| {
        let instances = "(core instance (instantiate 1))".repeat(count as usize);
        let extra = wat::parse_str(format!("(component (core module {parts}) (core module) {instances})")).unwrap();
        [&component(guest!("echo"), WIT)[..], &extra[8..]].concat()
    };
    let table = [
        (with("(memory 1)", limits::GLUE_MEMORIES_MAX), format!("needs {} linear memories", limits::GLUE_MEMORIES_MAX + 1)),
        (with("(table 1 funcref)", limits::GLUE_TABLES_MAX + 1), format!("needs {} tables", limits::GLUE_TABLES_MAX + 1)),
        (with("(table 20001 funcref)", 1), "needs 20001 table elements at its start".to_owned()),
        (with("(memory 1025)", 1), "needs 1025 pages of memory at its start".to_owned()),
    ];
    for (bytes, says) in table {
        let fault = glue().compile_here(&recipe_of(bytes, "0.1")).map(drop).expect_err(&says);
        assert_eq!(fault.code, Code::GlueIncompatible, "{says}");
        assert!(fault.message.contains(&says), "wanted {says}: {}", fault.message);
    }
    // As many as allowed.
    let most = with("(memory 1) (table 1 funcref)", limits::GLUE_MEMORIES_MAX - 1);
    run_on(glue(), &recipe_of(most, "0.1"), "plain", script(0, vec![])).await.0.unwrap();
    siblings_are_well(glue()).await;
}

#[tokio::test]
async fn a_component_of_too_many_bytes_is_refused_unread() {
    let mut bytes = vec![0; limits::GLUE_COMPONENT_BYTES_MAX as usize + 1];
    bytes[..8].copy_from_slice(b"\0asm\x0d\0\x01\0");
    let fault = glue().compile_here(&recipe_of(bytes, "0.1")).map(drop).unwrap_err();
    assert!(fault.message.contains("is 67108865 bytes; at most 67108864 are taken"), "{}", fault.message);
    siblings_are_well(glue()).await;
}

#[tokio::test]
async fn a_long_log_line_is_cut() {
    let (result, events) = run(guest!("long_line"), "plain", script(0, vec![])).await;
    result.unwrap();
    let [Event::Log { message, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(message.len(), limits::GLUE_LOG_LINE_BYTES_MAX);
    siblings_are_well(glue()).await;
}

#[tokio::test]
async fn a_response_with_too_many_blobs_is_refused() {
    let fault = fails(guest!("many_blobs"), "plain", Code::TooLarge, "sends 17 blobs at once; at most 16 are carried").await;
    assert_eq!(fault.blame, Blame::Recipe);
}

#[tokio::test]
async fn a_fault_stays_small_whatever_the_guest_puts_into_it() {
    let most = limits::GLUE_FAULT_DETAIL_BYTES_MAX + 6 * 2 * limits::FAULT_MESSAGE_BYTES_MAX + 1_000;
    let size = |fault: &Fault| serde_json::to_string(fault).unwrap().len();
    let fault = fails(guest!("long_fault"), "plain", Code::RecipeFailed, "\\u{1}").await;
    assert_eq!((fault.detail["code"].as_str(), fault.detail["detail_dropped_bytes"].as_u64()), (Some("unnamed"), Some(1 << 20)));
    assert!(size(&fault) <= most, "{}", size(&fault));

    // A backtrace names functions, and the guest chooses their names.
    let long = "x".repeat(1 << 20);
    let named = guest!("trap").replace("(func (export \"run\")", &format!("(func ${long} (export \"run\")"));
    let fault = fails(&named, "plain", Code::GlueCrashed, "unreachable").await;
    assert!(fault.detail["causes"].to_string().contains("xxx"), "the name is not where it was: this test shows nothing");
    assert!(size(&fault) <= most, "{}", size(&fault));

    // So do the names of its imports.
    let imports: String = (0..1_000).map(|n| format!("(import \"{}{n}\" (func))", "a".repeat(1_000))).collect();
    let bytes = wat::parse_str(format!("(component {imports})")).unwrap();
    let fault = glue().compile_here(&recipe_of(bytes, "0.1")).map(drop).unwrap_err();
    assert!(fault.message.contains("988 more") && size(&fault) <= most, "{}", size(&fault));
}

/// Files of compiled code in a cache.
fn kept(cache: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = |folder: &std::path::Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let files = entries(&cache.join("modules")).into_iter().flat_map(|folder| entries(&folder)).filter(|path| path.extension().is_none());
    files.collect()
}

#[tokio::test]
async fn what_was_compiled_once_is_not_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(guest!("pass"));
    for first in [true, false] {
        // As after a restart of the host.
        let compiler = Arc::<Here>::default();
        let glue = Glue::open(folder.path(), compiler.clone()).unwrap();
        glue.compile_here(&recipe).unwrap();
        siblings_are_well(&glue).await;
        assert_eq!(compiler.0.load(SeqCst) > 0, first);
        // wasmtime would count here what the host's engines compile.
        assert_eq!(glue.0.engines.cache.cache_misses(), 0);
    }
    assert!(!kept(folder.path()).is_empty());
    // That compiling leaves nothing is tested with the real compiler's process (tests/it/cli/compiling.rs):
    // within one process, wasmtime's own thread may still be counting in a folder that is being deleted.
}

#[test]
fn the_engines_of_a_host_compile_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(guest!("pass"));
    let nobody = Glue::open(folder.path(), Arc::new(Nobody)).unwrap();
    let engines = &nobody.0.engines;
    for engine in engines.pooled.iter().map(|(engine, _)| engine).chain([&engines.on_demand]) {
        let error = Component::from_binary(engine, recipe.glue().unwrap()).map(drop).unwrap_err();
        assert!(format!("{error:#}").contains("not configured with a compiler"), "{error:#}");
    }
    // If the compiler does not compile, there is no other way.
    let fault = nobody.compile_here(&recipe).map(drop).unwrap_err();
    assert_eq!((fault.code, fault.message.as_str()), (Code::Internal, "nobody compiles"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left of compiling");
}

struct Nobody;

impl Compiler for Nobody {
    fn compile<'a>(&'a self, _: Job<'a>) -> BoxFuture<'a, Result<Compiled, Fault>> {
        Box::pin(async { Err(Fault::new(Code::Internal, "nobody compiles")) })
    }
}

#[test]
fn compiled_code_that_was_damaged_or_deleted_is_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(guest!("pass"));
    let compiler = Arc::<Here>::default();
    let again = || Glue::open(folder.path(), compiler.clone()).unwrap().compile_here(&recipe).map(drop).unwrap();
    again();
    let file = kept(folder.path()).remove(0);
    let whole = std::fs::read(&file).unwrap();
    for damage in [&whole[..whole.len() / 2], b"", b"not packed"] {
        std::fs::write(&file, damage).unwrap();
        let before = compiler.0.load(SeqCst);
        again();
        assert_eq!(compiler.0.load(SeqCst), before + 1);
        assert_eq!(std::fs::read(&file).unwrap(), whole);
    }
    std::fs::remove_file(&file).unwrap();
    again();
    assert_eq!((compiler.0.load(SeqCst), kept(folder.path()).len()), (5, 1));
}
