//! Tests of the small WASI: it gives what a language's runtime needs, and nothing of the machine.
//!
//! Each guest is one line in the same module, `tests/guests/wasi.wat`.

use super::*;

/// The parts of WASI that the guest imports, in the words of WASI 0.2.0.
const WASI: &str = r#"
package wasi:io@0.2.0 {
    interface error { resource error; }
    interface poll { resource pollable { block: func(); } }
    interface streams {
        use error.{error};
        variant stream-error { last-operation-failed(error), closed }
        resource output-stream {
            check-write: func() -> result<u64, stream-error>;
            write-zeroes: func(len: u64) -> result<_, stream-error>;
            blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
        }
    }
}
package wasi:cli@0.2.0 {
    interface stdout { use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; }
    interface stderr { use wasi:io/streams@0.2.0.{output-stream}; get-stderr: func() -> output-stream; }
    interface exit { exit: func(status: result); }
}
package wasi:clocks@0.2.0 {
    interface monotonic-clock {
        use wasi:io/poll@0.2.0.{pollable};
        now: func() -> u64;
        subscribe-duration: func(when: u64) -> pollable;
    }
    interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }
}
package wasi:random@0.2.0 {
    interface random { get-random-bytes: func(len: u64) -> list<u8>; }
}
"#;

const IMPORTS: &str = "world glue {
    import wasi:cli/stdout@0.2.0;
    import wasi:cli/stderr@0.2.0;
    import wasi:cli/exit@0.2.0;
    import wasi:io/streams@0.2.0;
    import wasi:io/poll@0.2.0;
    import wasi:clocks/monotonic-clock@0.2.0;
    import wasi:clocks/wall-clock@0.2.0;
    import wasi:random/random@0.2.0;
";

fn guest(body: &str) -> Arc<Verified> {
    let wit = WIT.replace("world glue {", IMPORTS) + WASI;
    recipe_of(component(&guest!("wasi").replace("(; BODY ;)", body), &wit), "0.1")
}

async fn answers(body: &str) -> Response {
    run_on(glue(), &guest(body), "plain", script(0, vec![])).await.0.unwrap()
}

async fn fails(body: &str, code: Code, words: &str) -> Fault {
    let fault = run_on(glue(), &guest(body), "plain", script(0, vec![])).await.0.expect_err(words);
    assert_eq!(fault.code, code, "{fault:?}");
    assert!(fault.message.contains(words), "{}", fault.message);
    siblings_are_well(glue()).await;
    fault
}

/// Prints 20 times 4 KiB of zeroes and a few words.
const PRINTS: &str = "
    (local.set $handle (call $stdout))
    (local.set $count (i32.const 20))
    (loop $more
      (call $write (local.get $handle) (i32.const 8192) (i32.const 4096) (i32.const 512))
      (br_if $more (local.tee $count (i32.sub (local.get $count) (i32.const 1)))))
    (call $write (call $stderr) (i32.const 256) (i32.const 10) (i32.const 512))";

#[tokio::test]
async fn what_a_guest_printed_is_in_its_fault() {
    let fault = fails(&format!("{PRINTS} unreachable"), Code::GlueCrashed, "unreachable").await;
    assert_eq!(fault.detail["stderr"], "last words");
    assert_eq!(fault.detail["stdout"].as_str().unwrap().len(), limits::GLUE_OUTPUT_BYTES_MAX);
    assert_eq!(fault.detail["stdout_dropped_bytes"], 20 * 4_096 - limits::GLUE_OUTPUT_BYTES_MAX);
    assert!(fault.detail.get("stderr_dropped_bytes").is_none());

    let response = answers(PRINTS).await;
    // Two streams, 21 writes; no pod got an ask.
    assert_eq!((response.output.value(), response.crossings.host_calls), (&json!({"text": "hi"}), 23));
}

#[tokio::test]
async fn what_a_guest_printed_survives_its_deadline() {
    let recipe = guest(&format!("{PRINTS} (loop $for_ever (br $for_ever))"));
    let prepared = glue().compile_here(&recipe).unwrap();
    let late = prepared.run(&admit(&recipe, "plain", Vec::new()), script(0, vec![]), events::channel(1).0, soon(200)).await.unwrap_err();
    assert_eq!((late.code, late.detail["stderr"].as_str()), (Code::Deadline, Some("last words")));
    siblings_are_well(glue()).await;
}

#[tokio::test]
async fn sleeping_takes_no_time_and_no_clock_shows_any() {
    let started = Instant::now();
    // A day, and for ever; in between, the clock must be a day ahead, to the nanosecond.
    answers(
        "(local.set $time (call $now))
         (call $block (call $after (i64.const 86400000000000)))
         (if (i64.ne (i64.sub (call $now) (local.get $time)) (i64.const 86400000000000)) (then unreachable))
         (call $block (call $after (i64.const -1)))
         (call $wall (i32.const 512))
         (if (i64.ne (i64.load (i32.const 512)) (i64.const 1577836800)) (then unreachable))
         (if (i32.load (i32.const 520)) (then unreachable))",
    )
    .await;
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    siblings_are_well(glue()).await;
}

#[tokio::test]
async fn random_numbers_are_the_same_for_the_same_call_and_no_other() {
    // Eight random bytes as JSON numbers would be long in this language; so their lowest bits, as digits in a
    // string.
    let body = "
        (call $random (i64.const 8) (i32.const 512))
        (local.set $handle (i32.load (i32.const 512)))
        (i32.store8 (i32.const 600) (i32.const 34))
        (loop $more
          (i32.store8 offset=601 (local.get $count)
            (i32.add (i32.const 48) (i32.and (i32.const 7) (i32.load8_u (i32.add (local.get $handle) (local.get $count))))))
          (br_if $more (i32.lt_u (local.tee $count (i32.add (local.get $count) (i32.const 1))) (i32.const 8))))
        (i32.store8 (i32.const 609) (i32.const 34))
        (local.set $in (i32.const 600))
        (local.set $in_len (i32.const 10))";
    let digits = |response: Response| response.output.value().as_str().unwrap().to_owned();
    let first = digits(answers(body).await);
    assert_eq!(first.len(), 8);
    assert_eq!(first, digits(answers(body).await));
    // Another recipe: one that does nothing else.
    assert_ne!(first, digits(answers(&format!("(drop (call $now)) {body}")).await));

    let fault = fails("(call $random (i64.const -1) (i32.const 512))", Code::GlueLimit, "random bytes: 65536 in one host call").await;
    assert_eq!(fault.detail["cap"], "random bytes");
}

#[tokio::test]
async fn calls_of_wasi_count_against_the_same_caps() {
    let host_calls = "host calls: 100000";
    fails("(loop $for_ever (drop (call $now)) (br $for_ever))", Code::GlueLimit, host_calls).await;
    // If a call cannot be refused, the run ends at its next tick, or at the latest at its end.
    let looks = "(local.set $handle (call $stdout))
        (loop $more
          (call $check_write (local.get $handle) (i32.const 512))
          (br_if $more COND))";
    fails(&looks.replace("COND", "(i32.const 1)"), Code::GlueLimit, host_calls).await;
    let just = |calls: u32| {
        looks.replace("COND", &format!("(i32.lt_u (local.tee $count (i32.add (local.get $count) (i32.const 1))) (i32.const {calls}))"))
    };
    answers(&just(limits::GLUE_HOST_CALLS_MAX as u32 - 1)).await;
    fails(&just(limits::GLUE_HOST_CALLS_MAX as u32), Code::GlueLimit, host_calls).await;

    fails("(loop $for_ever (drop (call $stdout)) (br $for_ever))", Code::GlueLimit, "handles: 4096").await;
    fails("(loop $for_ever (drop (call $after (i64.const 1))) (br $for_ever))", Code::GlueLimit, "handles: 4096").await;
    fails("(call $zeroes (call $stdout) (i64.const -1) (i32.const 512))", Code::GlueCrashed, "more zeroes").await;
    let past = "(call $write (call $stdout) (i32.const 0) (i32.const 17825792) (i32.const 512))";
    let big = guest!("wasi").replace("\"memory\") 8", "\"memory\") 300").replace("(; BODY ;)", past);
    let wit = WIT.replace("world glue {", IMPORTS) + WASI;
    let (result, _) = run_on(glue(), &recipe_of(component(&big, &wit), "0.1"), "plain", script(0, vec![])).await;
    assert!(result.unwrap_err().message.contains("bytes per host call"));
}

#[tokio::test]
async fn a_guest_that_ends_itself_is_said_to() {
    let fault = fails(&format!("{PRINTS} (call $exit (i32.const 1))"), Code::GlueCrashed, "ended itself with exit status 1").await;
    assert_eq!(fault.detail["stderr"], "last words");
    fails("(call $exit (i32.const 0))", Code::GlueCrashed, "ended itself with exit status 0").await;
}

#[test]
fn what_wasi_has_beyond_the_small_one_is_refused_by_name() {
    let binary = |wat: &str| wat::parse_str(wat).unwrap();
    let sockets = guest!("needs_sockets");
    let marked = [&binary(sockets)[..], SOCKETS_UNUSED].concat();
    // The mark is only for sockets, and only a component that ends with it has it.
    let elsewhere = [&binary("(component)")[..], SOCKETS_UNUSED, &binary(sockets)[8..]].concat();
    for (bytes, says) in [
        (binary(sockets), "needs wasi:sockets/network@0.2.0, which Hob does not offer"),
        (elsewhere, "needs wasi:sockets/network@0.2.0, which Hob does not offer"),
        (binary("(component (import \"wasi:http/types@0.2.0\" (instance)))"), "needs wasi:http/types@0.2.0, which Hob does not offer"),
        (binary("(component (import \"wasi:cli/run@0.2.0\" (instance)))"), "needs wasi:cli/run@0.2.0, which Hob does not offer"),
        (binary("(component (import \"wasi:cli/stdout@0.3.0\" (instance)))"), "needs wasi:cli/stdout@0.3.0; this Hob has WASI 0.2"),
        (binary("(component (import \"wasi:cli/stdout\" (instance)))"), "needs wasi:cli/stdout; this Hob has WASI 0.2"),
        (
            [&binary("(component (import \"wasi:http/types@0.2.0\" (instance)))")[..], SOCKETS_UNUSED].concat(),
            "needs wasi:http/types@0.2.0",
        ),
        // The imports pass; this component has no `run`.
        (marked, "does not export the function `run`"),
    ] {
        let fault = glue().compile_here(&recipe_of(bytes, "0.1")).map(drop).expect_err(says);
        assert_eq!(fault.code, Code::GlueIncompatible, "{says}");
        assert!(fault.message.contains(says), "wanted {says}: {}", fault.message);
        let hint = fault.hint.unwrap_or_default();
        for (package, way) in [("wasi:http/", "disableFeatures"), ("wasi:sockets/", "componentize-py")] {
            assert_eq!(says.contains(package), hint.contains(way) && !hint.contains("rebuild"), "{says}: {hint}");
        }
    }
}

#[test]
fn glue_without_wasi_is_linked_without_it() {
    assert_eq!(glue().compile_here(&recipe(guest!("pass"))).unwrap().wasi, Wasi::No);
    assert_eq!(glue().compile_here(&guest("")).unwrap().wasi, Wasi::Yes);
}
