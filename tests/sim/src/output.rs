//! What the command prints. Where nobody reads it any more (`| head -1`), it ends quietly.

use std::fmt;
use std::io::{self, Write};

/// As a shell has it for a program that was ended by SIGPIPE.
const NOBODY_READS: i32 = 128 + 13;

/// Prints an answer, on standard output.
pub fn say(line: fmt::Arguments<'_>) {
    print(&mut io::stdout().lock(), line);
}

/// Prints what happens and what fails, on standard error.
pub fn tell(line: fmt::Arguments<'_>) {
    print(&mut io::stderr().lock(), line);
}

fn print(to: &mut dyn Write, line: fmt::Arguments<'_>) {
    let written = to.write_all(format!("{line}\n").as_bytes()).and_then(|()| to.flush());
    if written.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        std::process::exit(NOBODY_READS);
    }
}
