//! `folkmoot-jepsen report`: a page for people from what a run left.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use folkmoot_jepsen::report::{self, ReportError, row};
use serde_json::json;

/// Options of `report`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  folkmoot-jepsen report store/mixed/20260101T120000\n  \
    folkmoot-jepsen report . --out /tmp/report.html\n  \
    folkmoot-jepsen report --json . | jq -r .report\n  \
    folkmoot-jepsen report --row store/mixed/* >> table.md\n\n\
    The directory has history.jsonl, and test.json and results.json where a run wrote them: without\n\
    results.json the history is judged anew. The page is one file, needs no network, and says\n\
    whatever the verdict is; `check` has it as an exit code.")]
pub(super) struct ReportArgs {
    /// The directory of one run; of several with --row.
    #[arg(value_name = "DIR", required = true)]
    directories: Vec<PathBuf>,
    /// Write no page, but each run as a row of a Markdown table; the first is the table's head.
    #[arg(long, conflicts_with_all = ["out", "json"])]
    row: bool,
    /// Where to write the page; DIR/report.html unless it is given.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Say where the page is as JSON.
    #[arg(long)]
    json: bool,
}

impl ReportArgs {
    /// Writes the page, and says where it is. A failure comes with the file it is about and with
    /// whether to report it as JSON.
    pub(super) fn run(&self) -> Result<(), (ReportError, bool)> {
        if self.row {
            return self.rows().map_err(|error| (error, false));
        }
        let [directory] = &self.directories[..] else {
            let several = ReportError::Several(self.directories.len());
            return Err((several, self.json));
        };
        let out = self.out.clone().unwrap_or_else(|| directory.join("report.html"));
        report::write(directory, &out).map_err(|error| (error, self.json))?;
        self.say(&out).map_err(|error| {
            (ReportError::File { path: "standard output".into(), error }, self.json)
        })
    }

    /// A table of all runs; none when one of them cannot be read.
    fn rows(&self) -> Result<(), ReportError> {
        let mut text = row::HEAD.to_owned();
        for directory in &self.directories {
            text += &row::of(directory)?;
        }
        io::stdout()
            .write_all(text.as_bytes())
            .map_err(|error| ReportError::File { path: "standard output".into(), error })
    }

    fn say(&self, out: &Path) -> io::Result<()> {
        if self.json {
            writeln!(io::stdout(), "{}", json!({ "report": out }))
        } else {
            writeln!(io::stdout(), "{}", out.display())
        }
    }
}
