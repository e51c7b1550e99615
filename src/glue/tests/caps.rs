//! Caps that no other test of glue goes over: what a component may be made of, and what it may say.
//!
//! Apart from the tests above because none of these guests gets far: most are refused before they run.

use super::*;

#[tokio::test]
async fn components_with_too_many_parts_are_refused() {
    // The component's own module is number 0, so that what is instantiated is the first of the two that follow.
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
        let fault = glue().compile(&recipe_of(bytes, "0.1")).map(drop).expect_err(&says);
        assert_eq!(fault.code, Code::GlueIncompatible, "{says}");
        assert!(fault.message.contains(&says), "wanted {says}: {}", fault.message);
    }
    // As many as there may be.
    let most = with("(memory 1) (table 1 funcref)", limits::GLUE_MEMORIES_MAX - 1);
    run_on(glue(), &recipe_of(most, "0.1"), "plain", script(0, vec![])).await.0.unwrap();
    siblings_are_well(glue()).await;
}

#[tokio::test]
async fn a_component_of_too_many_bytes_is_refused_unread() {
    let mut bytes = vec![0; limits::GLUE_COMPONENT_BYTES_MAX as usize + 1];
    bytes[..8].copy_from_slice(b"\0asm\x0d\0\x01\0");
    let fault = glue().compile(&recipe_of(bytes, "0.1")).map(drop).unwrap_err();
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
    let fault = fails(guest!("long_fault"), "plain", Code::RecipeFailed, "\u{1}").await;
    assert_eq!((fault.detail["code"].as_str(), fault.detail["detail_dropped_bytes"].as_u64()), (Some("unnamed"), Some(1 << 20)));
    assert!(size(&fault) <= most, "{}", size(&fault));

    // A backtrace names functions, and their names are the guest's.
    let long = "x".repeat(1 << 20);
    let named = guest!("trap").replace("(func (export \"run\")", &format!("(func ${long} (export \"run\")"));
    let fault = fails(&named, "plain", Code::GlueCrashed, "unreachable").await;
    assert!(fault.detail["causes"].to_string().contains("xxx"), "the name is not where it was: this test shows nothing");
    assert!(size(&fault) <= most, "{}", size(&fault));

    // So are the names of what it imports.
    let imports: String = (0..1_000).map(|n| format!("(import \"{}{n}\" (func))", "a".repeat(1_000))).collect();
    let bytes = wat::parse_str(format!("(component {imports})")).unwrap();
    let fault = glue().compile(&recipe_of(bytes, "0.1")).map(drop).unwrap_err();
    assert!(fault.message.contains("988 more") && size(&fault) <= most, "{}", size(&fault));
}

#[tokio::test]
async fn what_was_compiled_once_is_not_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(guest!("pass"));
    for (compiled, found) in [(1, 0), (0, 1)] {
        // As after a restart of the host.
        let glue = Glue::open(folder.path()).unwrap();
        glue.compile(&recipe).unwrap();
        siblings_are_well(&glue).await;
        assert_eq!(glue.0.engines.cache.cache_misses(), compiled);
        assert!(glue.0.engines.cache.cache_hits() >= found);
    }
}
