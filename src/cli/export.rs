//! `folkmoot export`: rooms' whole logs as JSON lines with the hash chain, or as IRC logs.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::cli::connection::{self, Connection};
use crate::cli::event_json::EventJson;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::{irc, output, room, verify};
use crate::client::Client;
use crate::error::{Code, Error};
use crate::id::RoomId;
use crate::proto::v1 as pb;

/// Times that a broken export is taken up again.
const RESUMES_MAX: u32 = 20;

/// Options of `export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  folkmoot export general > general.jsonl\n  \
    folkmoot export --all --out backup/ && folkmoot verify backup/*.jsonl\n  \
    folkmoot export ubuntu.2008-04-30.train-a.raw --format irc\n\n\
    Admins only. The first line of a room is its header; then one event a line, with the salt and\n\
    the hashes that `folkmoot verify` checks. --format irc writes imported logs back line by line.")]
pub(super) struct Args {
    /// The rooms.
    #[arg(value_parser = connection::room, required_unless_present = "all", value_name = "ROOM")]
    rooms: Vec<RoomId>,
    /// Every room.
    #[arg(long, conflicts_with = "rooms")]
    all: bool,
    /// Write one file a room into this directory.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What to write.
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Format,
    #[command(flatten)]
    connection: Connection,
}

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// JSON lines that can be verified.
    Jsonl,
    /// Lines of an IRC log: what was said, nothing else.
    Irc,
}

impl Format {
    fn extension(self) -> &'static str {
        match self {
            Format::Jsonl => "jsonl",
            Format::Irc => "txt",
        }
    }
}

/// Runs the command.
pub(super) async fn run(args: Args) -> Outcome {
    let connection = &args.connection;
    let client = connection.client()?;
    let rooms = if args.all {
        let rooms = room::all(&client, "").await?;
        let ids = rooms.iter().map(|room| RoomId::parse(&room.room));
        ids.collect::<Result<_, _>>().map_err(|error| Failure::Call(error.into()))?
    } else {
        args.rooms.clone()
    };
    if let Some(dir) = &args.out {
        fs::create_dir_all(dir)
            .map_err(|error| Failure::failed(format!("cannot make {}: {error}", dir.display())))?;
    }
    for room in &rooms {
        match &args.out {
            None => {
                let mut out = BufWriter::new(io::stdout().lock());
                write_room(&args, &client, room, &mut out).await?;
                out.flush()?;
            }
            Some(dir) => {
                let events = to_file(&args, &client, room, dir).await?;
                if connection.json {
                    output::line(json!({ "room": room.as_str(), "events": events }))?;
                } else {
                    output::line(format!("{room}: {events} events"))?;
                }
            }
        }
    }
    Ok(())
}

/// Writes a file that appears whole or not at all.
async fn to_file(args: &Args, client: &Client, room: &RoomId, dir: &Path) -> Outcome<u64> {
    let path = dir.join(format!("{room}.{}", args.format.extension()));
    let part = dir.join(format!("{room}.{}.part", args.format.extension()));
    let failed =
        |error: io::Error| Failure::failed(format!("cannot write {}: {error}", path.display()));
    let mut out = BufWriter::new(File::create(&part).map_err(failed)?);
    let whole = async {
        let events = write_room(args, client, room, &mut out).await?;
        let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        fs::rename(&part, &path).map_err(failed)?;
        Ok(events)
    };
    whole.await.inspect_err(|_| drop(fs::remove_file(&part)))
}

/// Writes one room; returns how many events. An export that breaks is taken up where it broke.
async fn write_room(
    args: &Args,
    client: &Client,
    room: &RoomId,
    out: &mut impl Write,
) -> Outcome<u64> {
    let mut written = Written::default();
    for attempt in 0.. {
        let error = match stream_room(args.format, client, room, out, &mut written).await {
            Ok(()) => return Ok(written.events),
            Err(Failure::Call(error)) => error,
            Err(failure) => return Err(failure),
        };
        if !error.temporary() || attempt == RESUMES_MAX {
            return Err(Failure::Call(error));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(written.events)
}

/// How much of a room has been written.
#[derive(Debug, Default)]
struct Written {
    /// The epoch in the header, once that is written.
    epoch: Option<String>,
    last_seq: u64,
    events: u64,
}

async fn stream_room(
    format: Format,
    client: &Client,
    room: &RoomId,
    out: &mut impl Write,
    written: &mut Written,
) -> Outcome {
    let mut export = client.export(room).await?;
    while let Some(part) = export.next().await? {
        if let Some(room) = &part.room {
            header(format, room, &part.chain_base, out, written)?;
        }
        for event in &part.events {
            if event.seq <= written.last_seq {
                continue; // written before the stream broke
            }
            if written.last_seq > 0 && event.seq != written.last_seq + 1 {
                let message = format!("room {room}: a gap after seq {}", written.last_seq);
                return Err(Error::new(Code::Internal, message).into());
            }
            match format {
                Format::Jsonl => {
                    let event = serde_json::to_string(&EventJson::from(event));
                    let event = event.map_err(|error| Failure::failed(error.to_string()))?;
                    writeln!(out, "{event}")?;
                }
                Format::Irc => {
                    if let Some(line) = irc::render_event(event) {
                        writeln!(out, "{line}")?;
                    }
                }
            }
            written.last_seq = event.seq;
            written.events += 1;
        }
    }
    Ok(())
}

fn header(
    format: Format,
    room: &pb::Room,
    chain_base: &[u8],
    out: &mut impl Write,
    written: &mut Written,
) -> Outcome {
    match &written.epoch {
        Some(epoch) if *epoch == room.epoch => return Ok(()),
        Some(_) => {
            let message = format!("room {}: its history was replaced meanwhile", room.room);
            return Err(Error::new(Code::InvalidCursor, message).into());
        }
        None => written.epoch = Some(room.epoch.clone()),
    }
    if format == Format::Jsonl {
        let header = json!({
            "format": verify::FORMAT,
            "room": output::room_json(room),
            "chain_base": output::hex(chain_base),
        });
        writeln!(out, "{header}")?;
    }
    Ok(())
}
