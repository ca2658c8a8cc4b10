//! `folkmoot-jepsen`: checks histories of a Folkmoot cluster.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main(std::env::args_os())
}
