//! The command line's arguments, as clap reads them, and the exit codes in the help text.

use crate::model::Code;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    host::compiler::COMMAND,
    model::{Fault, Priority, limits::LOGS_DEFAULT_LINES},
};

const EXIT_CODES: &str = "Exit codes: 0 done · 2 the words or the input are wrong · 3 no such recipe, operation, session or remote, or no server · \
4 the recipe, hob.toml or hob.lock is wrong · 5 trust: signature, digest, expiry, rollback, or a repository or a model's place is unreachable · \
6 the pod · 7 the glue · 8 this machine (Python, uv, disk, sandbox) · 9 deadline or cancelled · 10 not now (overloaded, cooling down, ending) · 70 Hob itself. \
HOB_HOME moves every file that Hob owns.";

/// A plugin host: signed recipes, sandboxed glue, supervised pods.
#[derive(Debug, Parser)]
#[command(name = "hob", version, after_help = EXIT_CODES)]
pub struct CommandLine {
    /// Give JSON on stdout, faults too.
    #[arg(long, global = true)]
    pub json: bool,
    /// Show no progress.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Call an operation of a recipe and print its result as JSON.
    Call(CallArgs),
    /// Install a recipe from a remote.
    Add {
        /// `publisher/name`: the newest version in the range that hob.toml wants, else the newest; or
        /// `publisher/name@RANGE`, e.g. `@0.1.0` (exactly that), `@^0.1`, `@*`.
        recipe: String,
        /// Only from this remote.
        #[arg(long)]
        remote: Option<String>,
        /// Give it all the permissions that it asks for.
        #[arg(long, conflicts_with = "no_grant")]
        grant: bool,
        /// Give it no permission that it does not have.
        #[arg(long)]
        no_grant: bool,
    },
    /// Give a recipe permissions; without words, show what it asks for and what it has.
    Grant(GrantArgs),
    /// Take back what a recipe was given.
    Revoke(RevokeArgs),
    /// Take a recipe off the shelf, and what it was given with it.
    Remove { recipe: String },
    /// List what is installed.
    List,
    /// Show a recipe: operations, schemas, signer, permissions.
    Show {
        /// An installed recipe, or a recipe folder.
        recipe: String,
    },
    /// Check every installed byte against its signed digest.
    Verify {
        /// Only this recipe.
        recipe: Option<String>,
    },
    /// Answer calls until a signal ends it: pods stay warm, and `hob call` uses them. SIGHUP has it read
    /// token and hob.toml anew.
    #[cfg_attr(not(feature = "serve"), command(hide = true))]
    Serve {
        /// Also over TCP, e.g. `127.0.0.1:8080`, for requests that show the token.
        #[arg(long, value_name = "ADDR")]
        listen: Option<String>,
        /// Also at this socket, beside the one that `hob call` finds.
        #[arg(long, value_name = "PATH")]
        unix: Option<PathBuf>,
    },
    /// Show the sessions, or open, keep, touch and close one.
    Sessions {
        #[command(subcommand)]
        command: Option<SessionArgs>,
    },
    /// Show the pods of the running server.
    Pods(PodArgs),
    /// Show what pods printed: those of the running server, or what is kept of earlier ones.
    Logs(LogArgs),
    /// Show how the running server does: calls, recipes, queues.
    Status {
        /// Again every second, until interrupted.
        #[arg(long)]
        watch: bool,
    },
    /// Try what this machine can do for pods, and say what is enforced, how, and what is not.
    Doctor,
    /// Remotes: the repositories that this machine trusts.
    Remote {
        #[command(subcommand)]
        command: Remote,
    },
    /// Build the glue of a recipe folder, and fetch the models that it names places for.
    Build { folder: PathBuf },
    /// Run the cases of a recipe folder, and compare how each ends with what it says.
    Test {
        folder: PathBuf,
        /// Only these, by the names of their folders below `cases`.
        cases: Vec<String>,
    },
    /// Make a bundle of a recipe folder.
    Pack {
        folder: PathBuf,
        /// Where to write the bundle; default: `<name>-<version>.hob` here.
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
    /// Sign a recipe folder's bundle and models into a repository.
    Publish {
        folder: PathBuf,
        /// The repository's folder.
        #[arg(long)]
        repo: PathBuf,
        /// The folder of the publisher's and the repository's online keys.
        #[arg(long)]
        keys: PathBuf,
        /// Run its cases first, and sign nothing unless each ends as it says.
        #[arg(long)]
        test: bool,
    },
    /// Make and look after a repository.
    Repo {
        #[command(subcommand)]
        command: Repo,
    },
    /// Print what completes the words of a command line in a shell.
    Completions {
        /// The shell whose language it is in.
        shell: Shell,
    },
    /// Print the manual page, as roff.
    Man {
        /// Of this command alone, e.g. `call`.
        command: Option<String>,
        /// Write a page for each command into this folder instead.
        #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
        into: Option<PathBuf>,
    },
    /// Compile the glue on standard input: for hosts.
    #[command(name = COMMAND, hide = true)]
    CompileGlue { version: String, reservation: String, folder: PathBuf },
}

/// The word that was typed in place of a recipe.
#[derive(Debug, Clone)]
pub struct RecipeWord {
    pub text: String,
    /// Whether the command accepts a folder.
    pub may_be_folder: bool,
}

impl Command {
    /// The word that was typed in place of a recipe that may be installed.
    pub fn recipe(&self) -> Option<RecipeWord> {
        let (text, may_be_folder) = match self {
            Command::Call(CallArgs { recipe, .. })
            | Command::Grant(GrantArgs { recipe, .. })
            | Command::Revoke(RevokeArgs { recipe, .. })
            | Command::Show { recipe } => (recipe, true),
            Command::Sessions { command: Some(command) } => match command {
                SessionArgs::Open { recipe, .. }
                | SessionArgs::Checkpoint { recipe, .. }
                | SessionArgs::Touch { recipe, .. }
                | SessionArgs::Close { recipe, .. } => (recipe, true),
            },
            Command::Add { recipe, .. }
            | Command::Remove { recipe }
            | Command::Verify { recipe: Some(recipe) }
            | Command::Pods(PodArgs { lift: Some(recipe), .. } | PodArgs { recipe: Some(recipe), .. })
            | Command::Logs(LogArgs { recipe: Some(recipe), .. }) => (recipe, false),
            // These take only folders, or no recipe at all.
            Command::Build { .. } | Command::Test { .. } | Command::Pack { .. } | Command::Publish { .. } | Command::Repo { .. } => {
                return None;
            }
            Command::Remote { .. } | Command::List | Command::Status { .. } | Command::Doctor | Command::Serve { .. } => return None,
            Command::Verify { recipe: None } | Command::Pods(_) | Command::Logs(_) | Command::Sessions { command: None } => return None,
            Command::CompileGlue { .. } | Command::Completions { .. } | Command::Man { .. } => return None,
        };
        Some(RecipeWord { text: text.clone(), may_be_folder })
    }
}

#[derive(Debug, Args)]
pub struct CallArgs {
    /// An installed recipe `publisher/name`, a capability `name@major`, or a recipe folder (unsigned dev
    /// mode).
    pub recipe: String,
    pub operation: String,
    /// The input as JSON; `-` or nothing reads it from stdin.
    pub input: Option<String>,
    /// Send a file along as a blob of that name.
    #[arg(long, value_name = "NAME=FILE")]
    pub blob: Vec<String>,
    /// Write a blob of the result to a file.
    #[arg(long, value_name = "NAME=FILE")]
    pub out: Vec<String>,
    /// Print each chunk as a line of JSON, then the result.
    #[arg(long)]
    pub stream: bool,
    /// Budget of the call, e.g. `500ms`, `30s`, `5m`; at most the operation's own.
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<String>,
    /// Who goes first when work waits: `interactive`, `normal` or `bulk`.
    #[arg(long, value_name = "CLASS", default_value = "normal", value_parser = priority)]
    pub priority: Priority,
    /// In the session of that name, which is opened if it is new.
    #[arg(long, value_name = "NAME", conflicts_with = "one_shot")]
    pub session: Option<String>,
    /// Show what is printed meanwhile, on standard error; for a recipe folder that is so without it.
    #[arg(long)]
    pub logs: bool,
    /// In a fresh pod and a host of its own, both ended with the call: for debugging.
    #[arg(long)]
    pub one_shot: bool,
}

#[derive(Debug, Args)]
pub struct GrantArgs {
    /// An installed recipe, or a recipe folder.
    pub recipe: String,
    /// E.g. `network=api.example.com:443`, `read=/data`, `write=/data/out`, `env=API_TOKEN`, `devices=gpu`.
    #[arg(value_name = "KEY=VALUE")]
    pub permissions: Vec<String>,
    /// All that it asks for.
    #[arg(long, conflicts_with = "permissions")]
    pub all: bool,
    /// Let its pods run where this machine cannot confine them wholly.
    #[arg(long)]
    pub reduced: bool,
}

#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// A recipe, or a recipe folder; it need not be there any more.
    pub recipe: String,
    #[arg(value_name = "KEY=VALUE", required_unless_present_any = ["all", "reduced"])]
    pub permissions: Vec<String>,
    /// Whatever it was given.
    #[arg(long, conflicts_with_all = ["permissions", "reduced"])]
    pub all: bool,
    /// Its pods run only where this machine confines them wholly.
    #[arg(long)]
    pub reduced: bool,
}

fn priority(text: &str) -> Result<Priority, Fault> {
    text.parse()
}

#[derive(Debug, Args)]
pub struct PodArgs {
    /// Only this recipe's.
    pub recipe: Option<String>,
    /// Again every second, until interrupted.
    #[arg(long)]
    pub watch: bool,
    /// Let a recipe that cools down after crashes start pods again.
    #[arg(long, value_name = "RECIPE", conflicts_with_all = ["recipe", "watch"])]
    pub lift: Option<String>,
}

#[derive(Debug, Args)]
pub struct LogArgs {
    /// Only this recipe's.
    pub recipe: Option<String>,
    /// So many of the last lines.
    #[arg(long, value_name = "N", default_value_t = LOGS_DEFAULT_LINES)]
    pub lines: usize,
    /// Go on with the lines that come, until interrupted.
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, Subcommand)]
pub enum SessionArgs {
    /// Open a session, or find it open.
    Open { recipe: String, name: String },
    /// Have a session keep its state now.
    Checkpoint { recipe: String, name: String },
    /// Have its time begin anew, as a call does.
    Touch { recipe: String, name: String },
    /// End a session for good, with what was kept of it.
    Close { recipe: String, name: String },
}

#[derive(Debug, Subcommand)]
pub enum Remote {
    /// Trust a repository.
    #[command(group(clap::ArgGroup::new("pin").required(true).args(["root", "fingerprint"])))]
    Add {
        name: String,
        /// `https://...`, `http://...` or `file:///...`.
        url: String,
        /// The repository's first root metadata, as a file.
        #[arg(long, value_name = "FILE")]
        root: Option<PathBuf>,
        /// SHA-256 of the repository's `1.root.json`.
        #[arg(long, value_name = "HEX")]
        fingerprint: Option<String>,
    },
    /// List the trusted repositories.
    List,
    /// Forget a repository. What is installed from it stays.
    Remove { name: String },
}

#[derive(Debug, Subcommand)]
pub enum Repo {
    /// Make an empty repository and its keys.
    Init {
        dir: PathBuf,
        #[arg(long)]
        keys: PathBuf,
    },
    /// Give a publisher its namespace.
    AddPublisher {
        dir: PathBuf,
        name: String,
        #[arg(long)]
        keys: PathBuf,
        /// The publisher's public key in hex; without it a key pair is made in the keys folder.
        #[arg(long)]
        public_key: Option<String>,
    },
    /// Sign the freshness of snapshot and timestamp anew.
    Refresh {
        dir: PathBuf,
        #[arg(long)]
        keys: PathBuf,
    },
}

/// The fault for arguments that make no sense.
pub(super) fn usage(message: impl Into<String>) -> Fault {
    Fault::new(Code::Usage, message).hint("`hob COMMAND --help` says which words a command takes")
}
