//! The `hob` program: the command-line door and nothing else.

fn main() -> std::process::ExitCode {
    hob::door::cli::main()
}
