//! A report of a run for people: one HTML file that needs nothing else.
//!
//! ```text
//! history.jsonl ─► operations ─┬─► series   quantiles and rates in windows
//! test.json     ─┐             ├─► points   the scatter, thinned
//! results.json  ─┤             ├─► waits    what faults did, how soon it was over
//!                └─► store     └─► timeline what happened around each witness
//!                      │                     │
//!                      └──────► page ◄───────┘   headings, tables; `report.js` draws the rest
//! ```
//!
//! Numbers and tables are in the HTML itself: they can be read, searched and printed without
//! scripts. The charts are drawn from JSON in the page by `report.js`, which loads nothing.
//!
//! Nothing in a history is trusted: names and errors are escaped (`html.rs`), and the page has a
//! policy that keeps it from loading or sending anything.

use std::fs;
use std::path::Path;

mod facts;
mod html;
mod operations;
mod page;
mod points;
pub mod row;
mod series;
mod store;
mod tables;
mod timeline;
mod waits;
mod witnesses;

pub use store::{ReportError, Run};

/// Writes the report of the run in this directory to `out`.
///
/// # Errors
///
/// [`ReportError`]: no history, a malformed one, or a file that cannot be written.
pub fn write(directory: &Path, out: &Path) -> Result<(), ReportError> {
    let page = html(&Run::read(directory)?);
    fs::write(out, page).map_err(|error| ReportError::File { path: out.into(), error })
}

/// The report as HTML.
#[must_use]
pub fn html(run: &Run) -> String {
    page::page(run)
}
