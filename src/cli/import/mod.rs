//! `folkmoot import`: history from elsewhere.
//!
//! Three steps, each safe to repeat: every file is read once and checked before anything is sent;
//! its people become users; its lines go in batches with the Import command, which keeps a mark
//! for each source and skips what it has. So an import that was interrupted goes on where it
//! stopped, and one that is run again adds nothing.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output::{self, Table};
use crate::cli::progress::Progress;
use crate::client::Client;
use crate::error::{Code, Error};
use crate::id::RoomId;
use crate::proto::v1 as pb;

mod lines;
mod pace;
mod people;
mod source;

use pace::Pace;
use people::People;
use source::Source;

/// Kinds of history.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Import IRC logs, one room a file. Admins only.
    #[command(after_help = "Examples:\n  folkmoot import irc logs/*.txt\n  \
        folkmoot import irc '#ubuntu.log' --date 2008-04-30 --room-prefix irc-\n  \
        folkmoot import irc ubuntu.txt --speed 60\n\n\
        `[HH:MM] <nick> text` becomes a message, `[HH:MM] * nick text` an action, anything else a\n\
        notice. Each file is a source of its own name: running it again adds nothing, and goes on\n\
        where an interrupted run stopped. `folkmoot export ROOM --format irc` gives the file back.")]
    Irc(Irc),
}

/// Options of `import irc`.
#[derive(Debug, clap::Args)]
pub(super) struct Irc {
    /// The logs, in UTF-8.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The day of the first line, for files without a date (YYYY-MM-DD) in their names.
    #[arg(long, value_name = "DATE", default_value = "1970-01-01", value_parser = source::day)]
    date: u64,
    /// What the ids of the rooms begin with.
    #[arg(long, value_name = "PREFIX", default_value = "")]
    room_prefix: String,
    /// At most this many lines a second, all files together.
    #[arg(long, value_name = "LINES", conflicts_with = "speed", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// As fast as it was said, times this.
    #[arg(long, value_name = "FACTOR", value_parser = pace::speed)]
    speed: Option<f64>,
    /// Files imported at a time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    jobs: u32,
    #[command(flatten)]
    connection: Connection,
}

/// What became of one file.
#[derive(Debug)]
struct Imported {
    source: Arc<Source>,
    added: u64,
    head: u64,
}

/// Runs the command.
pub(super) async fn run(command: Command) -> Outcome {
    let Command::Irc(args) = command;
    let connection = &args.connection;
    let client = connection.client()?;
    let sources = source::read_all(&args.files, &args.room_prefix, args.date)?;
    let failure = |error: Error| Failure::Call(error);

    let nicks = source::nicks(&sources);
    let progress = Progress::start("users", nicks.len() as u64, connection.json);
    let people = People::settle(&client, nicks, &progress).await.map_err(failure)?;
    progress.finish();

    let total = sources.iter().map(|source| source.lines).sum();
    let progress = Progress::start("lines", total, connection.json);
    let pace = Pace::new(args.rate, args.speed);
    let jobs = sources.into_iter().map(|source| {
        let (client, people, pace, progress) = (&client, &people, &pace, &progress);
        async move {
            let imported = import(client, source.clone(), people, pace, progress).await;
            imported.map_err(|failure| in_file(&source, failure))
        }
    });
    let mut done = stream::iter(jobs).buffer_unordered(args.jobs as usize);
    let mut imported = Vec::new();
    while let Some(one) = done.next().await {
        imported.push(one?);
    }
    drop(done);
    progress.finish();
    report(connection.json, imported)
}

fn in_file(source: &Source, failure: Failure) -> Failure {
    let name = source.path.display();
    match failure {
        Failure::Call(mut error) => {
            error.message = format!("{name}: {}", error.message);
            Failure::Call(error)
        }
        Failure::Failed(message) => Failure::Failed(format!("{name}: {message}")),
        other => other,
    }
}

async fn import(
    client: &Client,
    source: Arc<Source>,
    people: &People,
    pace: &Pace,
    progress: &Progress,
) -> Outcome<Imported> {
    create_room(client, &source.room, &source.name).await?;
    let mut batches = lines::Batches::open(&source, people, pace.batch_lines_max())?;
    let start = pace.start();
    let (mut mark, mut added, mut head) = (0, 0, 0);
    let mut asked = false;
    while let Some(mut batch) = batches.next()? {
        let read = batch.len() as u64;
        if asked {
            batch.retain(|line| line.line > mark);
        }
        if !batch.is_empty() {
            start.wait_for(&batch).await;
            let response = client.import(&source.room, &source.name, &batch).await?;
            // The first answer says how far an earlier run came; what it has is not sent again.
            asked = true;
            mark = response.line;
            added += response.imported;
            head = response.head;
        }
        progress.add(read);
    }
    if !asked {
        head = client.get_room(&source.room, pb::Consistency::Linearizable).await?.head;
    }
    Ok(Imported { source, added, head })
}

async fn create_room(client: &Client, room: &RoomId, title: &str) -> Result<(), Error> {
    // A title is one line of at most 256 bytes; a file's name may be more.
    let title: String = title.chars().filter(|c| !c.is_control()).take(60).collect();
    match client.create_room(room, &title, pb::RoomKind::Public).await {
        Ok(_) => Ok(()),
        // Somebody else's, or renamed since: lines go there all the same.
        Err(error) if error.code == Code::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn report(json: bool, mut imported: Vec<Imported>) -> Outcome {
    imported.sort_by(|a, b| a.source.path.cmp(&b.source.path));
    let lines: u64 = imported.iter().map(|one| one.source.lines).sum();
    let added: u64 = imported.iter().map(|one| one.added).sum();
    if json {
        let files = imported.iter().map(|one| {
            json!({
                "file": one.source.path.display().to_string(),
                "source": one.source.name,
                "room": one.source.room.as_str(),
                "lines": one.source.lines,
                "imported": one.added,
                "head": one.head,
            })
        });
        let files: Vec<_> = files.collect();
        output::line(json!({ "files": files, "lines": lines, "imported": added }))?;
        return Ok(());
    }
    let mut table = Table::new(&["ROOM", "LINES>", "ADDED>", "HEAD>"]);
    for one in &imported {
        let (lines, added) = (one.source.lines.to_string(), one.added.to_string());
        table.row([one.source.room.to_string(), lines, added, one.head.to_string()]);
    }
    table.print()?;
    output::line(format!("{added} of {lines} lines added"))?;
    Ok(())
}
