//! The next step of a fault, as data: text, and actions that each door words for its own readers.
//!
//! A command line has commands and flags, HTTP has routes and fields, an app has methods. So code below the
//! doors never writes `hob add x/y` into a hint: it gives [`act::add`], and the table below words that action
//! for each door. A caller over HTTP cannot run the operator's commands; there, the text says that they are
//! the operator's.

use std::{borrow::Cow, fmt, ops::Deref};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{
    limits::{FAULT_MESSAGE_BYTES_MAX, HINT_PARTS_MAX},
    printable::{commands, printable},
    text::said,
};

/// The door at which a hint is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Door {
    /// `hob`, read by the person who runs its commands.
    CommandLine,
    /// A server, read by a caller who may know nothing but its address.
    Http,
    /// An app that embeds a host. A [`Fault`](super::Fault) is worded for it until another door rewords it.
    Crate,
}

impl Door {
    pub const ALL: [Door; 3] = [Door::CommandLine, Door::Http, Door::Crate];
}

/// The key of a written fault that holds its hint in parts, with the actions.
const PARTS: &str = "hint_parts";

/// The kind of an action, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A command for the person who operates this machine's Hob.
    Operator,
    /// A command for the person who makes or publishes recipes.
    Author,
    /// Part of the call itself.
    Caller,
    /// A key of `recipe.toml`.
    Manifest,
    /// A key of `hob.toml`.
    Setting,
    /// A variable in the environment of Hob's process.
    Variable,
    /// A setting made by the app that embeds the host.
    App,
    /// A command of the operating system.
    System,
}

/// One row of the table of actions. In its words, `{recipe}` stands for the argument of that name.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    pub arguments: &'static [&'static str],
    pub kind: Kind,
    pub command_line: &'static str,
    /// `None`: the words of the command line, with their owner in front ("the operator's").
    pub http: Option<&'static str>,
    /// `None`: the words of the command line.
    pub app: Option<&'static str>,
}

impl Row {
    fn words(&self, door: Door, of: &[String]) -> String {
        let (words, whose) = match (door, self.kind) {
            (Door::CommandLine | Door::Http, Kind::App) => (self.command_line, "the app's "),
            (Door::CommandLine, _) => (self.command_line, ""),
            (Door::Crate, _) => (self.app.unwrap_or(self.command_line), ""),
            (Door::Http, kind) => match (self.http, kind) {
                (Some(words), _) => (words, ""),
                (None, Kind::Author) => (self.command_line, "the author's "),
                (None, Kind::Operator | Kind::Setting | Kind::Variable | Kind::System) => (self.command_line, "the operator's "),
                (None, Kind::Caller | Kind::Manifest | Kind::App) => (self.command_line, ""),
            },
        };
        // The template is scanned once; braces in an argument's value are not expanded.
        let mut written = whose.to_owned();
        let mut rest = words;
        while let Some((before, name, after)) =
            rest.split_once('{').and_then(|(before, rest)| rest.split_once('}').map(|(name, after)| (before, name, after)))
        {
            written.push_str(before);
            let at = self.arguments.iter().position(|argument| *argument == name);
            written.push_str(at.and_then(|at| of.get(at)).map_or("", String::as_str));
            rest = after;
        }
        written + rest
    }
}

/// Makes a hint of texts and [actions](act), e.g.
/// `hint!["nothing was installed; ", act::add(name), " asks again"]`.
macro_rules! hint {
    ($($part:expr),+ $(,)?) => { $crate::model::hint::Hint::of(vec![$($crate::model::hint::Part::from($part)),+]) };
}
pub(crate) use hint;

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident($($argument:ident),*) $kind:ident $cli:literal $(http $http:literal)? $(app $app:literal)?;)*) => {
        /// All actions.
        pub const ACTIONS: &[Row] = &[$(Row {
            name: stringify!($name), arguments: &[$(stringify!($argument)),*], kind: Kind::$kind,
            command_line: $cli, http: actions!(@maybe $($http)?), app: actions!(@maybe $($app)?),
        },)*];

        /// One function for each action.
        pub mod act {
            use super::{ACTIONS, Action, Part};

            $($(#[$doc])* pub fn $name($($argument: impl std::fmt::Display),*) -> Part {
                const NAME: &str = stringify!($name);
                let row = ACTIONS.iter().find(|row| row.name == NAME).expect("both come from one macro");
                Part::Action(Action { row, of: vec![$($argument.to_string()),*] })
            })*
        }
    };
    (@maybe) => { None };
    (@maybe $words:literal) => { Some($words) };
}

actions! {
    add(recipe) Operator "`hob add {recipe}`" app "`Host::add` of `{recipe}`";
    /// `{recipe}` in another version range.
    add_in_range(recipe) Operator "`hob add {recipe}@RANGE`" app "`Host::add` of `{recipe}` with a range";
    add_granting(recipe) Operator "`hob add {recipe} --grant`" app "`Host::add` of `{recipe}` with `Consent::Give`";
    add_ungranted(recipe) Operator "`hob add {recipe} --no-grant`" app "`Host::add` of `{recipe}` with `Consent::Withhold`";
    add_from(recipe, remote) Operator "`hob add {recipe} --remote {remote}`" app "`Host::add` of `{recipe}` from `{remote}`";
    remove(recipe) Operator "`hob remove {recipe}`" app "`Host::remove` of `{recipe}`";
    verify() Operator "`hob verify`" app "`Host::verify`";
    list() Operator "`hob list`" app "`Host::installed`";
    show(recipe) Operator "`hob show {recipe}`" app "`Host::show` of `{recipe}`";
    granted(recipe) Operator "`hob grant {recipe}`" app "`Host::granted` of `{recipe}`";
    /// Asks for the permissions that the recipe requests. Pods send it; they do not know what these are.
    granting() Operator "`hob grant`" app "`Host::grant`";
    /// `{lacking}`: the recipe and the permissions that it lacks, in the form that the command takes.
    grant_lacking(lacking) Operator "`hob grant {lacking}`" app "`Host::grant` of `{lacking}`";
    grant_reduced(recipe) Operator "`hob grant {recipe} --reduced`" app "`Host::grant` of `{recipe}`, `reduced`,";
    revoke(recipe, permission) Operator "`hob revoke {recipe} {permission}`" app "`Host::revoke` of `{permission}` from `{recipe}`";
    lift(recipe) Operator "`hob pods --lift {recipe}`" http "`POST /v1/recipes/{recipe}/lift`" app "`Host::lift` of `{recipe}`";
    logs(recipe) Operator "`hob logs {recipe}`" app "`Host::logs` of `{recipe}`";
    all_logs() Operator "`hob logs`" app "`Host::logs`";
    hob_call() Operator "`hob call`";
    bounds() Caller "`hob call`" http "`GET /v1/calls`" app "`Host::call`";
    sessions() Operator "`hob sessions`" http "`GET /v1/sessions`" app "`Host::sessions`";
    close_session(recipe, name) Operator "`hob sessions close {recipe} {name}`"
        http "`POST /v1/recipes/{recipe}/sessions/{name}/close`" app "`Host::close_session` of `{name}` of `{recipe}`";
    /// `close_session` for a recipe that is a folder; no route reaches it.
    close_folder_session(folder, name) Operator "`hob sessions close {folder} {name}`" app "`Host::close_session` of `{name}` of {folder}";
    doctor() Operator "`hob doctor`" app "`Host::doctor`";
    status() Operator "`hob status`" http "`GET /v1/status`" app "`Host::status`";
    serve() Operator "`hob serve`" app "`http::serve`";
    remote_add(name) Operator "`hob remote add {name} URL --fingerprint HEX`" app "`Host::add_remote` of `{name}` with `Trust::Fingerprint`";
    remote_add_root(name) Operator "`hob remote add {name} URL --root FILE`" app "`Host::add_remote` of `{name}` with `Trust::Root`";
    remote_remove(name) Operator "`hob remote remove {name}`" app "`Host::remove_remote` of `{name}`";
    /// The `hob` program's command, at each door: an app has no method for it.
    program_add(recipe) Operator "`hob add {recipe}`";
    call_folder(folder) Operator "`hob call {folder} OPERATION`" app "`Host::call` of {folder}";

    build(folder) Author "`hob build {folder}`" app "`authoring::build` of {folder}";
    pack() Author "`hob pack FOLDER`" app "`authoring::pack`";
    publish() Author "`hob publish FOLDER --repo DIR --keys KEYS`" app "`authoring::publish`";
    repo_init() Author "`hob repo init DIR --keys KEYS`" app "`authoring::repo_init`";
    repo_refresh() Author "`hob repo refresh DIR --keys KEYS`" app "`authoring::refresh`";
    repo_add_publisher(publisher, key) Author "`hob repo add-publisher DIR {publisher} --keys KEYS --public-key {key}`"
        app "`authoring::add_publisher` of `{publisher}` with the public key {key}";
    repo_make_publisher(dir, publisher, keys) Author "`hob repo add-publisher {dir} {publisher} --keys {keys}`"
        app "`authoring::add_publisher` of `{publisher}` in {dir} with the keys in {keys}";

    // Two routes take calls: one has headers where the other has fields, and it takes no blobs.
    deadline() Caller "`--deadline TIME`" http "`x-hob-deadline-ms` (`deadline_ms` of `POST /v1/calls`)" app "`Call::with_deadline`";
    session() Caller "`--session NAME`" http "`x-hob-session` (`session` of `POST /v1/calls`)" app "`Call::in_session`";
    blob() Caller "`--blob NAME=FILE`" http "`blobs` of `POST /v1/calls`" app "`Call::with_blob`";
    one_shot() Caller "`--one-shot`" http "`one_shot` of `POST /v1/calls`" app "`Call::one_shot`";
    /// How to pass a whole document.
    document() Caller "in a shell between single quotes" http "as the whole body, or as `input` of `POST /v1/calls`" app "as `Call::new` takes it";
    /// How to tell a recipe folder from a recipe's name.
    folder_word() Caller "write a path that starts with `./` or `/`" http "no route leads to it" app "write a path that starts with `./` or `/`";
    /// Repeats the whole operation that failed.
    again() Caller "run the command again" http "call again" app "try again";

    processes() Manifest "`processes` in `[pod]` of recipe.toml";
    memory_bytes() Manifest "`memory_bytes` in `[pod]` of recipe.toml";
    pods_max() Manifest "`max` in `[pod]` of recipe.toml";
    lock() Manifest "`lock` in `[pod]` of recipe.toml";
    checkpoint_interval() Manifest "`checkpoint_interval_ms` in `[pod.session]` of recipe.toml";
    progress_interval(operation) Manifest "`progress_interval_ms` in `[operations.{operation}]` of recipe.toml";
    operation_deadline(operation) Manifest "`deadline_ms` in `[operations.{operation}]` of recipe.toml";
    streaming(operation) Manifest "`streaming = true` in `[operations.{operation}]` of recipe.toml";
    model() Manifest "`[[model]]` in recipe.toml";
    version() Manifest "`version` in recipe.toml";

    details() Setting "`details = true` in `[serve]` of hob.toml";
    machine_memory() Setting "`memory_bytes` in `[machine]` of hob.toml";
    machine_gpu() Setting "`gpu_bytes` in `[machine]` of hob.toml";
    index_urls() Setting "`index_urls` in `[environments]` of hob.toml";
    python_path() Setting "`path` in `[python]` of hob.toml";
    uv_path() Setting "`path` in `[uv]` of hob.toml";
    group() Setting "`group` in `[home]` of hob.toml";
    grants() Setting "`[grants]` of hob.toml";
    wanted_range(recipe) Setting "`\"{recipe}\"` in `[recipes]` of hob.toml";

    limit_memory() App "`Limits::with_memory`";
    limit_gpu() App "`Limits::with_gpu_memory`";
    limit_deadline() App "`Limits::with_deadline`";

    hob_home() Variable "`HOB_HOME`";
    hob_python() Variable "`HOB_PYTHON`";
    hob_uv() Variable "`HOB_UV`";

    shell(words) System "`{words}`";
}

/// Actions that pods may send. The code of a pod is not trusted, and a door's own wording lends weight to a
/// message.
pub const OF_PODS: &[&str] = &["granting", "grant_lacking", "doctor"];

/// One action with its arguments.
#[derive(Clone)]
pub struct Action {
    row: &'static Row,
    of: Vec<String>,
}

/// A piece of a hint.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Text that is true at every door.
    Text(String),
    Action(Action),
}

impl Part {
    /// Makes the texts and arguments printable, because a pod or a caller may have chosen them.
    fn escape(&mut self) {
        let texts = match self {
            Part::Text(text) => std::slice::from_mut(text),
            Part::Action(action) => &mut action.of,
        };
        for text in texts {
            if let Cow::Owned(printable) = printable(text) {
                *text = printable;
            }
        }
    }
}

/// The next step. It reads as a text, worded for one door: the last one passed to [`Hint::worded`].
#[derive(Clone, PartialEq)]
pub struct Hint(Box<Inner>);

#[derive(Clone, PartialEq)]
struct Inner {
    words: String,
    /// Empty: the hint is `words` alone.
    parts: Vec<Part>,
}

/// What to do about a full disk. `kept`: what became of the work in progress.
pub fn full_disk(kept: &str) -> Hint {
    hint!["free some space where Hob's files lie (", act::hob_home(), " moves them) and ", act::again(), format!("; {kept}")]
}

impl Hint {
    /// A hint of these parts, worded for an app. A hint that is too long as a whole is kept as words alone.
    #[doc(hidden)]
    pub fn of(mut parts: Vec<Part>) -> Hint {
        parts.iter_mut().for_each(Part::escape);
        let words = words(&parts, Door::Crate);
        if words.len() > FAULT_MESSAGE_BYTES_MAX
            || parts.len() > HINT_PARTS_MAX
            || !parts.iter().any(|part| matches!(part, Part::Action(_)))
        {
            parts.clear();
        }
        Hint(Box::new(Inner { words: said(&words), parts }))
    }

    /// The same hint, worded for this door.
    pub fn worded(mut self, door: Door) -> Hint {
        if !self.0.parts.is_empty() {
            self.0.words = said(&words(&self.0.parts, door));
        }
        self
    }

    /// The same hint with each text, and each argument of its actions, changed.
    pub fn map(self, change: impl Fn(&str) -> String) -> Hint {
        if self.0.parts.is_empty() {
            return Hint::from(change(&self));
        }
        let parts = self.0.parts.into_iter().map(|part| match part {
            Part::Text(text) => Part::Text(change(&text)),
            Part::Action(Action { row, of }) => Part::Action(Action { row, of: of.iter().map(|of| change(of)).collect() }),
        });
        Hint::of(parts.collect())
    }

    /// Joins this hint, a text, and another hint.
    pub fn and(self, between: &str, other: Hint) -> Hint {
        let mut parts = self.into_parts();
        parts.push(between.into());
        parts.extend(other.into_parts());
        Hint::of(parts)
    }

    fn into_parts(self) -> Vec<Part> {
        match self.0.parts.is_empty() {
            true => vec![Part::Text(self.0.words)],
            false => self.0.parts,
        }
    }

    /// Reads the parts that a pod sent beside the words of its hint: texts, and only actions of [`OF_PODS`],
    /// with arguments that fit between backticks. `None` for anything else: then the words are used.
    pub(crate) fn of_pod(data: &str) -> Option<Hint> {
        let parts: Vec<Part> = serde_json::from_str(data).ok()?;
        let is_theirs = |part: &Part| match part {
            Part::Text(_) => true,
            Part::Action(Action { row, of }) => {
                OF_PODS.contains(&row.name) && of.iter().all(|of| !of.contains(|c: char| c == '`' || c == '\n' || commands(c)))
            }
        };
        (!parts.is_empty() && parts.iter().all(is_theirs)).then(|| Hint::of(parts))
    }

    /// Its parts as data, if it has actions: texts, and for each action
    /// `{"do": NAME, "of": [ARGUMENT, ...]}`.
    pub(super) fn data(&self) -> Option<Value> {
        (!self.0.parts.is_empty()).then(|| serde_json::to_value(&self.0.parts).unwrap_or_default())
    }

    /// Reads the hint of a written fault: from its data if this Hob knows each action in it, else from its
    /// words.
    pub(super) fn read(words: String, data: Value) -> Hint {
        match serde_json::from_value::<Vec<Part>>(data) {
            Ok(parts) if !parts.is_empty() => Hint::of(parts),
            _ => Hint::from(words),
        }
    }
}

/// Rewords all hints in `said` for this door: faults in it were written before the reader was known.
pub fn word(said: &mut Value, door: Door) {
    match said {
        Value::Array(items) => items.iter_mut().for_each(|item| word(item, door)),
        Value::Object(entries) => {
            if let (Some(Value::String(_)), Some(data)) = (entries.get("hint"), entries.get(PARTS)) {
                let parts = serde_json::from_value::<Vec<Part>>(data.clone());
                if let Ok(parts) = parts {
                    entries.insert("hint".to_owned(), Hint::of(parts).worded(door).to_string().into());
                }
            }
            entries.values_mut().for_each(|entry| word(entry, door));
        }
        _ => {}
    }
}

/// Removes the hint data of a stranger's document, so that no door takes any of it for a hint of Hob's.
pub(super) fn without_actions(mut said: Value) -> Value {
    match &mut said {
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_actions(item.take())),
        Value::Object(entries) => {
            entries.remove(PARTS);
            entries.values_mut().for_each(|entry| *entry = without_actions(entry.take()));
        }
        _ => {}
    }
    said
}

fn words(parts: &[Part], door: Door) -> String {
    let word = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Action(action) => action.row.words(door, &action.of),
    };
    parts.iter().map(word).collect()
}

impl Deref for Hint {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.words
    }
}

impl Default for Hint {
    fn default() -> Hint {
        Hint::from("")
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &**self)
    }
}

impl From<String> for Hint {
    fn from(words: String) -> Hint {
        Hint(Box::new(Inner { words: said(&words), parts: Vec::new() }))
    }
}

impl From<&str> for Hint {
    fn from(words: &str) -> Hint {
        words.to_owned().into()
    }
}

impl From<&str> for Part {
    fn from(text: &str) -> Part {
        Part::Text(text.to_owned())
    }
}

impl From<String> for Part {
    fn from(text: String) -> Part {
        Part::Text(text)
    }
}

impl PartialEq for Action {
    fn eq(&self, other: &Action) -> bool {
        self.row.name == other.row.name && self.of == other.of
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.row.name, self.of)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Action {
        #[serde(rename = "do")]
        name: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        of: Vec<String>,
    },
}

impl Serialize for Part {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Part::Text(text) => Written::Text(text.clone()),
            Part::Action(Action { row, of }) => Written::Action { name: row.name.to_owned(), of: of.clone() },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Part, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Text(text) => Ok(Part::Text(text)),
            Written::Action { name, of } => {
                let row = ACTIONS.iter().find(|row| row.name == name && row.arguments.len() == of.len());
                let row = row.ok_or_else(|| serde::de::Error::custom("an action of another Hob"))?;
                Ok(Part::Action(Action { row, of }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Code, Fault};

    #[test]
    fn a_hint_is_worded_by_the_door() {
        let hint = hint!["nothing was installed; ", act::add("a/b"), " asks again"];
        assert_eq!(&*hint, "nothing was installed; `Host::add` of `a/b` asks again");
        assert_eq!(&*hint.clone().worded(Door::CommandLine), "nothing was installed; `hob add a/b` asks again");
        assert_eq!(&*hint.clone().worded(Door::Http), "nothing was installed; the operator's `hob add a/b` asks again");
        assert_eq!(hint.clone().worded(Door::Http).worded(Door::Crate), hint);
        let changed = hint.map(|text| text.replace("a/b", "c/d")).worded(Door::CommandLine);
        assert_eq!(&*changed, "nothing was installed; `hob add c/d` asks again");
        // An argument's value is never expanded, whatever it contains.
        assert_eq!(&*hint![act::add_from("{remote}", "x")].worded(Door::CommandLine), "`hob add {remote} --remote x`");
    }

    #[test]
    fn a_fault_carries_its_hint_as_data_and_in_words() {
        let fault = Fault::new(Code::Deadline, "late").hint(hint!["give more time with ", act::deadline()]);
        let mut written = serde_json::to_value(&fault).unwrap();
        assert_eq!(written["hint"], "give more time with `Call::with_deadline`");
        assert_eq!(written["hint_parts"], json!(["give more time with ", { "do": "deadline" }]));
        assert_eq!(serde_json::from_value::<Fault>(written.clone()).unwrap(), fault);
        let mut nested = json!({ "detail": [{ "last_fault": written }] });
        word(&mut nested, Door::Http);
        assert_eq!(
            nested["detail"][0]["last_fault"]["hint"],
            "give more time with `x-hob-deadline-ms` (`deadline_ms` of `POST /v1/calls`)"
        );

        written["hint_parts"][1]["do"] = "what a newer Hob has".into();
        word(&mut written, Door::CommandLine);
        let read: Fault = serde_json::from_value(written).unwrap();
        assert_eq!(read.hint.as_deref(), Some("give more time with `Call::with_deadline`"));
        let plain = serde_json::to_value(Fault::new(Code::Io, "x").hint("try")).unwrap();
        assert!(plain["hint"] == "try" && plain.get("hint_parts").is_none(), "{plain}");
    }

    /// Nothing that a recipe puts into the detail of its fault becomes words of Hob's.
    #[test]
    fn what_a_stranger_wrote_is_no_hint_at_any_door() {
        let planted = json!({ "inner": [{ "hint": "theirs", "hint_parts": ["run ", { "do": "shell", "of": ["rm -rf ~"] }] }] });
        let fault = Fault::foreign("recipe_failed", "m".into(), Some("h".into()), planted, &[Code::RecipeFailed]);
        let crash = Fault::new(Code::PoisonRequest, "again").with("crash", serde_json::to_value(&fault).unwrap());
        for door in Door::ALL {
            for (fault, at) in [(fault.clone(), "/detail/inner/0"), (crash.clone(), "/detail/crash/detail/inner/0")] {
                let written = serde_json::to_value(fault.worded(door)).unwrap();
                assert_eq!(written.pointer(at), Some(&json!({ "hint": "theirs" })), "{door:?}: {written}");
            }
        }
    }

    #[test]
    fn a_hint_is_bounded() {
        let long = "ä".repeat(FAULT_MESSAGE_BYTES_MAX);
        let hint = hint![long.clone(), act::add(&long)];
        assert!(hint.len() <= FAULT_MESSAGE_BYTES_MAX && hint.data().is_none());
        let many = Hint::of((0..=HINT_PARTS_MAX).map(|_| act::list()).collect());
        assert!(many.data().is_none());
        assert!(Hint::from(long).len() <= FAULT_MESSAGE_BYTES_MAX);
    }

    #[test]
    fn an_app_reads_of_its_own_methods_wherever_it_has_one() {
        // Actions that only the program can do, or to which a caller of a server is referred.
        let of_the_program = ["hob_call", "program_add"];
        for row in ACTIONS.iter().filter(|row| matches!(row.kind, Kind::Operator | Kind::Author | Kind::Caller)) {
            assert_eq!(row.app.is_none(), of_the_program.contains(&row.name), "{}", row.name);
        }
    }

    #[test]
    fn every_action_has_its_own_name_and_words_for_each_of_its_arguments() {
        let mut names: Vec<_> = ACTIONS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        for row in ACTIONS {
            for words in [Some(row.command_line), row.http, row.app].into_iter().flatten() {
                for argument in row.arguments {
                    assert!(words.contains(&format!("{{{argument}}}")), "{}: {words}", row.name);
                }
                assert_eq!(words.matches('{').count(), row.arguments.len(), "{}: {words}", row.name);
            }
        }
    }
}
