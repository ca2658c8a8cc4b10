//! All clients at once, from when they begin to chat until they have come to an end.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::run::workload::subscriber::Subscriber;
use crate::run::workload::worker::Worker;
use crate::run::workload::{Mix, User, World};

/// How long workers may take to come to an end.
const WORKERS_END_WITHIN: Duration = Duration::from_secs(120);
/// How long a subscriber stays with one room, at most.
const SUBSCRIBER_STAYS_MAX: Duration = Duration::from_secs(30);
/// Longer than any run.
const A_WHOLE_RUN: Duration = Duration::from_secs(30 * 24 * 3600);

/// Those who chat.
#[derive(Debug)]
pub struct Chat {
    working: Vec<JoinHandle<Worker>>,
    following: Vec<JoinHandle<Vec<Subscriber>>>,
}

impl Chat {
    /// Lets workers work, and so many subscribers follow as this user, until the world is over.
    #[must_use]
    pub fn begin(
        world: &Arc<World>,
        workers: Vec<Worker>,
        follower: &User,
        subscribers: usize,
    ) -> Chat {
        let working = workers.into_iter().map(|worker| tokio::spawn(worker.run())).collect();
        let following = (0..subscribers)
            .map(|n| tokio::spawn(follow(world.clone(), follower.clone(), n)))
            .collect();
        Chat { working, following }
    }

    /// Waits for all of them, once the world is over. A worker that does not come to an end is a
    /// problem.
    ///
    /// # Errors
    ///
    /// When one of them panicked.
    pub async fn end(
        self,
        problems: &mut Vec<String>,
    ) -> Result<(Vec<Worker>, Vec<Subscriber>), String> {
        let (mut workers, mut subscribers) = (vec![], vec![]);
        for worker in self.working {
            match timeout(WORKERS_END_WITHIN, worker).await {
                Ok(worker) => workers.push(worker.map_err(|error| error.to_string())?),
                Err(_) => problems.push("a worker did not come to an end".into()),
            }
        }
        for follower in self.following {
            subscribers.extend(follower.await.map_err(|error| error.to_string())?);
        }
        Ok((workers, subscribers))
    }
}

/// Follows one room after another, from its first message or from its head on. Where posts are the load it is
/// one room all the time, with streams that end: rooms are long there, and to have all subscribers read theirs from
/// the first message at once would be a load of its own.
async fn follow(world: Arc<World>, user: User, number: usize) -> Vec<Subscriber> {
    let mut done = vec![];
    let stays = match world.mix {
        Mix::All => SUBSCRIBER_STAYS_MAX,
        Mix::Posts => A_WHOLE_RUN,
    };
    for n in 0_usize.. {
        if world.is_over() {
            break;
        }
        let subscriber = Subscriber::new(&world, &user, number + n * 1_000);
        done.push(subscriber.run(Instant::now() + stays).await);
    }
    done
}
