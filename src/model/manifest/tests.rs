//! Tests that valid manifests are read, and that each mistake is reported with its line and key.

use crate::model::{manifest::*, path_pattern::is_inner_path};

const GOOD: &str = r#"name = "hob/echo"
version = "0.1.0"
license = "Apache-2.0"
summary = "Gives back what it got"
hob = "0.1"

[pod]
runtime = "python"
entry = "echo:Echo"
python = ">=3.9"

[operations.echo]
summary = "The input, again"
input = { type = "object" }
output = { type = "object" }
"#;

#[test]
fn a_good_manifest_reads() {
    let manifest = Manifest::parse(GOOD, "recipe.toml").unwrap();
    assert_eq!(manifest.name.to_string(), "hob/echo");
    assert_eq!(manifest.operations().count(), 1);
    assert_eq!(manifest.operation("echo").unwrap().deadline_ms, limits::DEADLINE_DEFAULT_MS);
    let fault = manifest.operation("ecko").unwrap_err();
    assert_eq!(fault.code, Code::OperationNotFound);
    assert!(fault.message.contains("`echo`"), "{}", fault.message);
}

/// (the replaced text, its replacement, the line, a part of the message)
#[test]
fn each_mistake_names_line_and_key() {
    let table: &[(&str, &str, usize, &str)] = &[
        ("hob/echo", "hob echo", 1, "name: `hob echo` is not a recipe name"),
        ("\"0.1.0\"", "\"1\"", 2, "wanted `MAJOR.MINOR.PATCH`, e.g. `0.1.0`"),
        ("license = \"Apache-2.0\"", "license = 3", 3, "license: found 3, wanted a string"),
        ("license = \"Apache-2.0\"\n", "", 1, "license: missing: wanted a string, e.g. `license = \"Apache-2.0\"`"),
        ("license", "licence", 3, "nearest known key: `license`"),
        ("hob = \"0.1\"", "hob = \"99\"", 5, "the recipe wants Hob ^99, this is Hob"),
        ("hob = \"0.1\"", "hob = \"0.1\"\ntimeout = 3", 6, "this Hob knows no key `timeout` at the top level"),
        ("python = ", "snake = ", 7, "pod.python: missing"),
        ("python = ", "pyhton = ", 10, "nearest known key: `python`"),
        ("[pod]", "[pod]\nlokc = \"x\"", 8, "nearest known key: `lock`"),
        ("[pod]", "[pod]\nlock = \"../x\"", 8, "pod.lock: `../x` is not a path inside the recipe"),
        ("[pod]", "[pod]\nstart_timeout_ms = 0", 8, "found 0, wanted 1 to"),
        ("[pod]", "[pod]\nstart_timeout_ms = -5", 8, "found -5"),
        ("echo:Echo", "echo", 9, "pod.entry: `echo` is not an entry"),
        ("\"python\"", "\"ruby\"", 8, "unknown runtime `ruby`"),
        ("[operations.echo]", "[operations.echo]\nbitch = 3", 13, "knows no key `bitch`"),
        ("[operations.echo]", "[operations.echo]\nbatch = 3", 13, "operations.echo.batch: found 3, wanted a table"),
        ("[operations.echo]", "[operations.echo]\nbatch = { items = 8 }", 12, "`batch` without `idempotent = true`"),
        ("[operations.echo]", "[operations.echo]\nidempotent = true\nbatch = { wait_ms = 8 }", 14, "`items` is missing"),
        ("[operations.echo]", "[operations.echo]\nidempotent = true\nbatch = { items = 8, cost = \"/x\" }", 14, "go together"),
        ("[operations.echo]", "[operations.echo]\nprogress_interval_ms = 0", 13, "found 0, wanted 1 to"),
        ("[operations.echo]", "[operations.echo]\nsession = true", 12, "`session = true` without `[pod.session]`"),
        ("[pod]", "[pod]\nsession = {}", 8, "pod.session.mode: missing: wanted `exclusive` or `shared`"),
        ("[pod]", "[pod]\nsession = { mode = \"open\" }", 8, "pod.session.mode: `open` is no mode"),
        ("[pod]", "[pod]\nsession = { mode = \"shared\", max = 0 }", 8, "pod.session.max: found 0, wanted 1 to 256"),
        ("[pod]", "[pod]\nsession = { mode = \"shared\", ttl = 3 }", 8, "nearest known key: `ttl_ms`"),
        ("[pod]", "[pod]\nsession = { mode = \"shared\", checkpoint_interval_ms = 5 }", 8, "`checkpoint_interval_ms` of 5 is too often"),
        ("[pod]", "[pod]\nconcurrency = 2\nsession = { mode = \"shared\" }", 9, "`concurrency` above 1"),
        ("[pod]", "[pod]\nresidency = { exclusive = true }", 8, "`exclusive` without `gpu_bytes`"),
        ("[pod]", "[pod]\nresidency = { gpu_byte = 5 }", 8, "nearest known key: `gpu_bytes`"),
        ("[pod]", "[pod]\nresidency = { memory_bytes = 5 }", 8, "pod.residency.memory_bytes: found 5, wanted 1048576 to"),
        ("[pod]", "[pod]\nlever = { name = \"a-b\", values = [2, 1] }", 8, "`a-b` is not a lever's name"),
        ("[pod]", "[pod]\nlever = { name = \"a\", values = [2] }", 8, "1 `values`: wanted 2 to"),
        ("[pod]", "[pod]\nlever = { name = \"a\", values = [2, 1, 2] }", 8, "value 3 of `values` is there twice"),
        ("[pod]", "[pod]\nlever = { name = \"a\", values = [2.5, 1] }", 8, "wanted a list of integers of 0 or more, or texts"),
        ("[pod]", "[pod]\nlever = { name = \"a\", values = [2, 1], at = \"call\" }", 8, "`call`: wanted `ask` or `load`"),
        ("[pod]", "[[model]]\nname = \"../x\"\n[pod]", 8, "model.name: `../x` is not a model's name"),
        ("[pod]", "[[model]]\nname = \"a/b\"\nsha256 = \"x\"\n[pod]", 9, "model.sha256: `x` is not a SHA-256"),
        ("[pod]", "[pod]\nmin = 2", 8, "pod.min: found 2, wanted 0 to 1"),
        ("[pod]", "[pod]\nmax = 0", 8, "pod.max: found 0, wanted 1 to"),
        ("[pod]", "[pod]\nenv = { LD_PRELOAD = \"x\" }", 8, "LD_PRELOAD: this variable is the host's"),
        ("[pod]", "[pod]\nenv = { X = \"a\\u0000\" }", 8, "pod.env.X: found a NUL"),
        ("[pod]", "[pod]\nenv = { LC_ALL = \"x\" }", 8, "LC_ALL: `LC_ALL` is read when a process starts"),
        ("[pod]", "[pod]\nenv = { MALLOC_ARENA_MAX = \"1\" }", 8, "use `mallopt` of the C library"),
        ("[pod]", "[pod]\nenv = { X = 3 }", 8, "pod.env.X: found 3, wanted a string"),
        ("[pod]", "[pod]\nrecycle = { cals = 3 }", 8, "nearest known key: `calls`"),
        ("[pod]", "[pod]\nmemory_bytes = 1048576", 8, "pod.memory_bytes: found 1048576, wanted 16777216 to"),
        ("[pod]", "[pod]\nprocesses = 0", 8, "pod.processes: found 0, wanted 1 to 4096"),
        ("[pod]", "[pod]\nnice = -5", 8, "pod.nice: found -5"),
        ("[pod]", "[pod]\nnice = 20", 8, "pod.nice: found 20, wanted 0 to 19"),
        ("[pod]", "[pod]\npreload = [\"numpy\"]", 8, "pod.preload: only a pod with `runtime = \"python\"` and `lock`"),
        ("[pod]", "[pod]\nlock = \"x\"\npreload = [\"a-b\"]", 9, "pod.preload: `a-b` is not a module's name"),
        ("[pod]", "[pod]\nlock = \"x\"\npreload = [\n\"a\",\n\"a\"]", 11, "pod.preload: `a` twice"),
        ("[pod]", "[pod]\nlock = \"x\"\npreload = \"numpy\"", 9, "pod.preload: found the text \"numpy\", wanted a list of strings"),
        ("[pod]", "[permissions]\nnetwork = [\n\"a:1\",\n\"b\"]\n[pod]", 10, "permissions.network: `b` is not a network name"),
        ("[pod]", "[permissions]\nread = [\"/a\", 3]\n[pod]", 8, "permissions.read: found 3, wanted a list of strings"),
        ("[pod]", "[permissions]\nwrite = [\"x\"]\n[pod]", 8, "permissions.write: `x` is not a path to grant"),
        ("[pod]", "[permissions]\nenv = [\"PATH\"]\n[pod]", 8, "permissions.env: `PATH`: this variable is the host's"),
        ("[pod]", "[permissions]\ndevices = [\"tpu\"]\n[pod]", 8, "permissions.devices: there is no device `tpu`"),
        ("[pod]", "[permissions]\nnetwrok = [\"a:1\"]\n[pod]", 8, "nearest known key: `network`"),
        ("[pod]", "[permissions]\nenv = [\"A\"]\n[pod]\nenv = { A = \"x\" }", 8, "permissions.env: `A` is set by `[pod.env]`"),
        ("[pod]", "[permissions]\nenv = [\"A\", \"A\"]\n[pod]", 8, "permissions.env: `A` twice"),
        ("input = { type", "input = { tpye", 14, "nearest known key: `type`"),
        (
            "input = { type = \"object\" }",
            "input = { type = \"objekt\" }",
            14,
            "operations.echo.input.type: there is no type `objekt` in JSON Schema; nearest: `object`",
        ),
        ("input = { type = \"object\" }", "input = { type = [\"dict\"] }", 14, "there is no type `dict` in JSON Schema; write `object`"),
        ("input = { type = \"object\" }", "input = { type = \"quaternion\" }", 14, "wanted one of `string`, `number`, `integer`"),
        ("input = { type = \"object\" }", "input = \"text\"", 14, "or a JSON Schema as a table, e.g. `{ type"),
        (
            "input = { type = \"object\" }",
            "input = { pattern = \"^(?=a)(a|aa)+\\\\1$\" }",
            14,
            "operations.echo.input.pattern: not a JSON Schema",
        ),
        ("[operations.echo]", "[operation.echo]", 12, "knows no key `operation` at the top level"),
        ("[pod]", "[pod", 7, "not TOML"),
        ("[pod]", "[pod]\n[pod]", 8, "duplicate key `pod`, which line 7 has already"),
        ("license", "version = \"2\"\nlicense", 3, "duplicate key `version`, which line 2 has already"),
        ("input = ", "inputs = ", 14, "knows no key `inputs` in `operations.echo`"),
        ("entry = ", "entrypoint = ", 9, "write `entry = \"module:Class\"` in `[pod]`"),
        ("[pod]", "[pod]\ndependencies = [\"numpy\"]", 8, "a file that `lock` in `[pod]` names"),
    ];
    for (from, to, line, says) in table {
        assert!(GOOD.contains(from), "{from}");
        let fault = Manifest::parse(&GOOD.replacen(from, to, 1), "recipe.toml").expect_err(to);
        assert_eq!(fault.code, Code::InvalidManifest);
        let several = fault.detail["findings"].as_array().cloned().unwrap_or_default();
        let messages = several.iter().map(|one| one["message"].as_str().unwrap()).chain([fault.message.as_str()]);
        let is_told = |message: &str| message.contains(says) && message.starts_with(&format!("recipe.toml:{line}:"));
        assert!(messages.clone().any(is_told), "{to}: {:?}", messages.collect::<Vec<_>>());
        assert!(fault.message.starts_with(&format!("recipe.toml:{}:", fault.detail["line"])), "{to}: {fault}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = GOOD
        .replace("version = \"0.1.0\"", "version = \"1\"")
        .replace("license = \"Apache-2.0\"\n", "")
        .replace("summary = \"Gives", "sumary = \"Gives")
        .replace("\"python\"", "\"pyhton\"")
        .replace(
            "[operations.echo]",
            "[permissions]\nnetwork = [\"b\"]\n[[model]]\nname = \"m\"\nbytes = 1\n[operations.echo]\nstreaming = 3",
        )
        .replace("input = { type = \"object\" }", "inputs = { tpye = \"object\", requierd = [] }");
    let fault = Manifest::parse(&text, "recipe.toml").unwrap_err();
    let findings = fault.detail["findings"].as_array().unwrap();
    let found: Vec<_> = findings.iter().map(|one| (one["key"].as_str().unwrap(), one["line"].as_u64().unwrap())).collect();
    for wanted in [
        ("version", 2),
        ("license", 1),
        ("sumary", 3),
        ("pod.runtime", 7),
        ("permissions.network", 12),
        ("model.sha256", 13),
        ("operations.echo.streaming", 17),
        ("operations.echo.inputs", 19),
    ] {
        assert!(found.contains(&wanted), "{wanted:?} is not in {found:?}");
    }
    assert!(findings.iter().any(|one| one["message"].as_str().unwrap().contains("nearest known key: `type`")), "{found:?}");
    assert!(fault.message.ends_with(&format!("(and {} more)", findings.len() - 1)), "{fault}");
    // A mistake about the Hob version is reported alone, and the largest number of mistakes does not take
    // longer.
    let other = text.replace("hob = \"0.1\"", "hob = \"99\"");
    assert!(Manifest::parse(&other, "recipe.toml").unwrap_err().detail["findings"].is_null());
    let many = (0..100).map(|at| format!("k{at} = 1\n")).collect::<String>() + GOOD;
    let fault = Manifest::parse(&many, "recipe.toml").unwrap_err();
    assert_eq!(fault.detail["findings"].as_array().unwrap().len(), limits::FINDINGS_MAX);
}

/// (pairs of replaced text and replacement; the line and key of each finding, in order)
#[test]
fn each_mistake_is_one_finding_and_none_follows_from_another() {
    type Edits = &'static [(&'static str, &'static str)];
    let table: &[(Edits, &[(u64, &str)])] = &[
        // A key written in place of another is reported once; the other one is not reported as missing.
        (&[("summary = \"Gives", "description = \"Gives")], &[(4, "description")]),
        (&[("input = ", "parameters = ")], &[(14, "operations.echo.parameters")]),
        (&[("input = ", "inputSchema = ")], &[(14, "operations.echo.inputSchema")]),
        (&[("entry = \"echo:Echo\"", "main = \"echo.py\"")], &[(9, "pod.main")]),
        (&[("[operations.echo]", "[tools.echo]")], &[(12, "tools")]),
        (&[("[pod]", "[pods]")], &[(7, "pods")]),
        // A wrong value is reported; consequences of it are not.
        (&[("\"python\"", "\"pyhton\"")], &[(8, "pod.runtime")]),
        (&[("runtime = \"python\"", "runtime = \"node\""), ("echo:Echo", "index.js"), ("python = \">=3.9\"\n", "")], &[(8, "pod.runtime")]),
        (&[("runtime = \"python\"\n", "")], &[(7, "pod.runtime")]),
        (&[("hob = \"0.1\"", "hob = 0.1\nfiles = [\"data/*\"]")], &[(5, "hob")]),
        (&[("hob = \"0.1\"\n", "files = [\"data/*\"]\n")], &[(1, "hob")]),
        (&[("[pod]", "[pod]\nlock = 3\npreload = [\"numpy\"]")], &[(8, "pod.lock")]),
        (&[("[operations.echo]", "[operations.echo]\nidempotent = \"yes\"\nbatch = { items = 8 }")], &[(13, "operations.echo.idempotent")]),
        (&[("[operations.echo]", "[operations.echo]\nidempotnet = true\nbatch = { items = 8 }")], &[(13, "operations.echo.idempotnet")]),
        // Findings are ordered by line, wherever they were found.
        (
            &[("version = \"0.1.0\"", "version = \"1\""), ("output = {", "outputs = {"), ("[pod]", "[pod]\ncolour = 1\nmax = \"2\"")],
            &[(2, "version"), (8, "pod.colour"), (9, "pod.max"), (17, "operations.echo.outputs")],
        ),
        (
            &[("input = { type = \"object\" }", "input = { tpye = 1, requierd = [] }"), ("output = { type", "output = { tipe")],
            &[(14, "operations.echo.input.requierd"), (14, "operations.echo.input.tpye"), (15, "operations.echo.output.tipe")],
        ),
        (
            &[("[pod]", "[permissions]\nnetwork = [\n\"a:1\",\n\"b\",\n\"c\"]\nread = [\"x\"]\n[pod]")],
            &[(10, "permissions.network"), (11, "permissions.network"), (12, "permissions.read")],
        ),
        (
            &[("[pod]", "[[model]]\nname = \"a\"\nbytes = 1\n[[model]]\nname = \"../b\"\nsha256 = \"x\"\n[pod]")],
            &[(7, "model.sha256"), (10, "model.bytes"), (11, "model.name"), (12, "model.sha256")],
        ),
        (
            &[("[operations.echo]", "[operations._echo]\nsession = true\nbatch = { items = 8 }\nstreaming = true\ndepth = 1")],
            &[
                (12, "operations._echo"),
                (12, "operations._echo"),
                (12, "operations._echo"),
                (12, "operations._echo"),
                (16, "operations._echo.depth"),
            ],
        ),
        (
            &[("[pod]\nruntime = \"python\"\nentry = \"echo:Echo\"\npython = \">=3.9\"\n", ""), ("0.1.0", "1")],
            &[(1, "recipe"), (2, "version")],
        ),
        // Keys of other systems that have no equivalent.
        (&[("[pod]", "[pod]\nimage = \"debian\"\ntitle = \"x\"")], &[(8, "pod.image"), (9, "pod.title")]),
    ];
    for (edits, wanted) in table {
        let text = edits.iter().fold(GOOD.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        });
        let fault = Manifest::parse(&text, "recipe.toml").expect_err(&text);
        let found = match fault.detail["findings"].as_array() {
            Some(all) => all.iter().map(|one| (one["line"].as_u64().unwrap(), one["key"].as_str().unwrap().to_owned())).collect(),
            None => vec![(fault.detail["line"].as_u64().unwrap(), fault.detail["key"].as_str().unwrap().to_owned())],
        };
        let found: Vec<_> = found.iter().map(|(line, key)| (*line, key.as_str())).collect();
        assert_eq!(found, *wanted, "{edits:?}: {:#}", fault.detail);
    }
}

/// Any two lines are left out, duplicated, or given another value.
#[test]
fn any_two_mistakes_are_told_by_line_and_each_once() {
    let lines: Vec<&str> = GOOD.lines().collect();
    let changed = |line: &str, way: usize| match (way, line.split_once(" = ")) {
        (0, _) => String::new(),
        (1, _) => format!("{line}\n{line}"),
        (2, Some((key, _))) => format!("{key} = 3"),
        (3, Some((key, value))) => format!("x{key} = {value}"),
        _ => line.replace('[', "[x"),
    };
    let (mut several, mut all) = (0, 0);
    let ways = lines.len() * 4;
    for (first, second) in (0..ways).flat_map(|first| (first..ways).map(move |second| (first, second))) {
        let text = lines.iter().enumerate().map(|(at, line)| match [first, second].iter().find(|change| *change / 4 == at) {
            Some(change) => changed(line, change % 4) + "\n",
            None => format!("{line}\n"),
        });
        let text: String = text.collect();
        let Err(fault) = Manifest::parse(&text, "recipe.toml") else { continue };
        all += 1;
        assert_eq!(fault.code, Code::InvalidManifest, "{fault}\n{text}");
        let found = fault.detail["findings"].as_array().cloned().unwrap_or_default();
        several += usize::from(!found.is_empty());
        let found: Vec<_> = found.iter().map(|one| (one["line"].as_u64().unwrap(), one["message"].as_str().unwrap())).collect();
        assert!(found.is_sorted_by_key(|(line, _)| *line), "{found:#?}\n{text}");
        assert!(found.iter().enumerate().all(|(at, one)| !found[..at].contains(one)), "{found:#?}\n{text}");
        // Two, and what a renamed key may leave missing. Without a heading, the keys below it belong
        // elsewhere.
        let has_headings = text.contains("pod]\n") && text.contains("echo]\n");
        assert!(!has_headings || found.len() <= 4, "{found:#?}\n{text}");
    }
    assert!(several * 2 > all, "{several} of {all}");
}

#[test]
fn an_empty_file_is_told_as_one() {
    for text in ["", "\n \r\n"] {
        let fault = Manifest::parse(text, "recipe.toml").unwrap_err();
        assert_eq!(
            (fault.code, &*fault.message),
            (Code::InvalidManifest, "recipe.toml:1: found an empty file, wanted a recipe's manifest")
        );
    }
    Manifest::parse(&GOOD.replace('\n', "\r\n"), "recipe.toml").unwrap();
}

#[test]
fn keys_that_are_there_twice_are_told_beside_all_else() {
    let findings = |text: &str| {
        let fault = Manifest::parse(text, "recipe.toml").unwrap_err();
        let all = fault.detail["findings"].as_array().cloned().unwrap_or_default();
        let mut all: Vec<_> = all.iter().map(|one| one["message"].as_str().unwrap().to_owned()).collect();
        if all.is_empty() {
            all.push(fault.message);
        }
        all
    };
    let twice = GOOD
        .replacen("license =", "version = \"0.2.0\"\nlicense =", 1)
        .replacen("python = ", "entry=\"x:Y\"\ncolour = 1\npython = ", 1)
        .replacen("[operations.echo]", "[pod]\nmax = \"2\"\n[operations.echo]", 1);
    let found = findings(&twice);
    let wanted = [
        "recipe.toml:3: not TOML: duplicate key `version`, which line 2 has already",
        "recipe.toml:11: not TOML: duplicate key `entry`, which line 10 has already",
        "recipe.toml:12: pod.colour: this Hob knows no key `colour`",
        "recipe.toml:15: not TOML: duplicate key `pod`, which line 8 has already",
        "recipe.toml:16: pod.max: found the text \"2\"",
    ];
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    for (found, wanted) in found.iter().zip(wanted) {
        assert!(found.starts_with(wanted), "{found}");
    }
    // A line of a multi-line text is not a key, and a key behind dots is a different one.
    let text = GOOD.replacen("license", "capability = \"\"\"\nversion = 3\n\"\"\"\nversion = \"2\"\nlicense", 1);
    let found = findings(&text);
    assert!(found.len() == 2 && found[1].contains("duplicate key `version`, which line 2 has already"), "{found:?}");
    let dotted = GOOD.replacen("entry =", "env.entry = \"a\"\nenv.entry = \"b\"\nentry =", 1);
    let found = findings(&dotted);
    assert!(
        found.len() == 1 && found[0].starts_with("recipe.toml:10: not TOML: duplicate key `entry`") && !found[0].contains("which line"),
        "{found:?}"
    );
    // After text that is not TOML, nothing is guessed.
    let broken = twice.replacen("license = ", "license ", 1);
    assert_eq!(findings(&broken).len(), 1, "{:?}", findings(&broken));
}

/// Schemas are expensive to read. However many mistakes there are, each schema is compiled at most twice,
/// which shows in the number of reads of their files.
#[test]
fn a_manifest_full_of_mistakes_is_not_read_over_and_over() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let file = |_: &str| {
        asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(b"{}".to_vec())
    };
    // As many mistakes as allowed, of the kinds that are repaired one at a time.
    let numbers = ["start_timeout_ms", "max", "idle_timeout_ms", "concurrency", "threads", "memory_bytes", "processes", "nice"];
    let pod: String = numbers.iter().map(|key| format!("{key} = \"x\"\n")).collect();
    let text = GOOD
        .replacen("[pod]\n", &format!("[pod]\n{pod}"), 1)
        .replacen("input = { type = \"object\" }", "input = \"schemas/in.json\"\nstreaming = 1\nidempotent = 1\nsession = 1", 1)
        .replacen("\"0.1.0\"", "1", 1)
        .replacen("\"Apache-2.0\"", "1", 1)
        .replacen("\"hob/echo\"", "1", 1);
    let reading = Reading { file: &file, ..Reading::alone("recipe.toml") };
    let fault = Manifest::parse_with(&text, &reading).unwrap_err();
    assert_eq!(fault.detail["findings"].as_array().map(Vec::len), Some(14), "{:#}", fault.detail);
    let asked = asked.into_inner();
    assert!((1..=2).contains(&asked), "{asked}");
}

#[test]
fn what_a_pod_asks_for_is_read() {
    let asks = "[permissions]\nnetwork = [\"API.example:443\"]\nread = [\"/data/\"]\nwrite = [\"/out\"]\nenv = [\"TOKEN\"]\ndevices = [\"gpu\"]\n\n\
            [pod]\nlock = \"x\"\npreload = [\"numpy\", \"os.path\"]\nmemory_bytes = 16777216\nprocesses = 4096\nnice = 19";
    let manifest = Manifest::parse(&GOOD.replacen("[pod]", asks, 1), "recipe.toml").unwrap();
    let words = ["network=api.example:443", "read=/data", "write=/out", "env=TOKEN", "devices=gpu"];
    assert_eq!(manifest.permissions.words(), words);
    let pod = manifest.pod.unwrap();
    assert_eq!((pod.memory_bytes, pod.processes, pod.nice), (Some(16 << 20), Some(4096), 19));
    assert_eq!(pod.preload, ["numpy", "os.path"]);

    let plain = Manifest::parse(GOOD, "recipe.toml").unwrap();
    assert!(plain.permissions.is_empty());
    let pod = plain.pod.unwrap();
    assert_eq!((pod.memory_bytes, pod.processes, pod.nice, pod.preload), (None, None, 0, Vec::new()));
}

#[test]
fn lists_are_bounded_and_glue_alone_has_no_permissions() {
    let read = |text: &str| Manifest::parse(&GOOD.replacen("[pod]", text, 1), "recipe.toml").unwrap_err().message;
    let many = |count: usize| (0..count).map(|n| format!("\"m{n}\"")).collect::<Vec<_>>().join(", ");
    let preload = format!("[pod]\nlock = \"x\"\npreload = [{}]", many(limits::PRELOAD_MAX + 1));
    assert!(read(&preload).contains("pod.preload: more than 32 modules"));
    let env = format!("[permissions]\nenv = [{}]\n[pod]", many(limits::PERMISSIONS_MAX + 1));
    assert!(read(&env).contains("permissions.env: more than 64 of one kind"));
    let (pod, operations) = (GOOD.find("[pod]").unwrap(), GOOD.find("[operations").unwrap());
    let glue = format!("{}[glue]\nworld = \"0.1\"\n[permissions]\nenv = [\"A\"]\n{}", &GOOD[..pod], &GOOD[operations..]);
    let fault = Manifest::parse(&glue, "recipe.toml").unwrap_err();
    assert!(fault.message.contains("permissions without `[pod]`") && fault.detail["line"] == 9, "{fault}");
}

#[test]
fn a_path_stays_inside() {
    for bad in ["", "/x", "a//b", "../x", "a/../b", "a/./b", "a\\b", "a\0b", "a/"] {
        assert!(!is_inner_path(bad), "{bad:?}");
    }
    assert!(is_inner_path("pod/requirements.lock"));
}

#[test]
fn a_manifest_with_the_longest_chain_of_schemas_is_read_from_any_thread() {
    let levels = limits::SCHEMA_CHAIN_MAX / 2 - 3;
    let level = |at: usize| format!("l{at} = {{ allOf = [{{ \"$ref\" = \"#/$defs/l{}\" }}] }}\n", at + 1);
    let defs: String = (0..levels).map(level).collect();
    let operations = GOOD.find("[operations").unwrap();
    let head = &GOOD[..operations];
    let text = format!(
        "{head}[operations.deep]\nsummary = \"s\"\noutput = {{}}\n[operations.deep.input]\n\"$ref\" = \"#/$defs/l0\"\n\
             [operations.deep.input.\"$defs\"]\n{defs}l{levels} = {{ type = \"string\" }}\n"
    );
    let read = move || Manifest::parse(&text, "recipe.toml").map(|manifest| manifest.operations.len());
    let read = std::thread::Builder::new().stack_size(256 << 10).spawn(read).unwrap().join().unwrap();
    assert_eq!(read.unwrap(), 1);
}

#[test]
fn a_list_of_mistakes_is_told_as_far_as_findings_go_and_more_models_than_may_be_are_named_as_that() {
    let read = |more: &str| Manifest::parse(&format!("{GOOD}{more}"), "recipe.toml").unwrap_err();
    // Each of these would be searched for in the whole text.
    let fault = read(&"[[model]]\n".repeat(20_000));
    assert_eq!(fault.detail["findings"].as_array().map(Vec::len), Some(limits::FINDINGS_MAX));
    let digest = "0".repeat(64);
    let models = (0..=limits::MODELS_MAX).map(|n| format!("[[model]]\nname = \"m{n}\"\nsha256 = \"{digest}\"\nbytes = 1\n"));
    let fault = read(&models.collect::<String>());
    assert!(fault.message.contains("more than 1024 models"), "{}", fault.message);
}
