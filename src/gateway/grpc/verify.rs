//! `folkmoot.v1.Cluster.Verify`: what a comparison of all replicas finds, as it goes on.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_core::Stream;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use crate::error::{Code, Error};
use crate::gateway::app::{App, Caller, require_admin};
use crate::id::ShardId;
use crate::proto::v1 as proto;
use crate::proto::v1::verify_response::Said;
use crate::router::verify::{Finding, Kind, Report};

/// Progress, findings, and progress that is done.
pub type VerifyStream = Pin<Box<dyn Stream<Item = Result<proto::VerifyResponse, Status>> + Send>>;

/// Time between two reports of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// What a verification finds is told up to here: a cluster with more has one cause. It also bounds
/// what waits for a client.
const FINDINGS_MAX: usize = 1000;

type Answer = Result<proto::VerifyResponse, Status>;

/// Tells the client.
struct Telling {
    out: mpsc::UnboundedSender<Answer>,
    progress: proto::VerifyProgress,
    told: Instant,
    findings: usize,
}

impl Telling {
    fn say(&self, said: Said) {
        // Nobody listens: the task is about to be aborted.
        let _ = self.out.send(Ok(proto::VerifyResponse { said: Some(said) }));
    }

    fn say_progress(&mut self) {
        self.told = Instant::now();
        self.say(Said::Progress(self.progress));
    }
}

impl Report for Telling {
    fn verified(&mut self, rooms: u64, events: u64) {
        self.progress.rooms += rooms;
        self.progress.events += events;
        if self.told.elapsed() >= PROGRESS_EVERY {
            self.say_progress();
        }
    }

    fn found(&mut self, finding: Finding) {
        self.findings += 1;
        if self.findings <= FINDINGS_MAX {
            self.say(Said::Finding(finding_to(finding)));
        }
    }
}

fn finding_to(finding: Finding) -> proto::VerifyFinding {
    let kind = match finding.kind {
        Kind::Differs => "differs",
        Kind::Damaged => "damaged",
        Kind::Unverified => "unverified",
    };
    proto::VerifyFinding {
        shard: u32::from(finding.shard.0),
        room: finding.room.map(|room| room.as_str().to_owned()).unwrap_or_default(),
        kind: kind.to_owned(),
        seq: finding.seq.0,
        nodes: finding.nodes.iter().map(|node| node.0).collect(),
        detail: finding.detail,
    }
}

/// Verifies shards, or all of them. Ends early when the client goes.
///
/// # Errors
/// [`Code::Forbidden`] unless the caller is an administrator; [`Code::NotFound`] for a shard that
/// there is not. A later error ends the stream.
pub fn stream(
    app: Arc<App>,
    caller: &Caller,
    request: proto::VerifyRequest,
) -> Result<VerifyStream, Error> {
    require_admin(&caller.actor)?;
    let all = app.backend.data_shards()?;
    let asked = request.shards.iter().map(|number| {
        let shard = u16::try_from(*number).map(ShardId).ok().filter(|shard| all.contains(shard));
        shard.ok_or_else(|| Error::new(Code::NotFound, format!("there is no shard {number}")))
    });
    let asked: Vec<ShardId> = asked.collect::<Result<_, _>>()?;
    let shards = if asked.is_empty() { all } else { asked };
    let (out, said) = mpsc::unbounded_channel();
    let progress = proto::VerifyProgress { shards: shards.len() as u32, ..Default::default() };
    let mut telling = Telling { out, progress, told: Instant::now(), findings: 0 };
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        telling.say_progress();
        for shard in shards {
            if let Err(error) = app.backend.verify(shard, &mut telling).await {
                let _ = telling.out.send(Err(error.into()));
                return;
            }
            telling.progress.shards_verified += 1;
            telling.say_progress();
        }
        telling.progress.done = true;
        telling.say_progress();
    }));
    let said = UnboundedReceiverStream::new(said).map(move |said| {
        let _owned = &task;
        said
    });
    Ok(Box::pin(said))
}
