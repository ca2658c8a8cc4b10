//! The people of an import as users.

use std::collections::{BTreeSet, HashMap};

use futures_util::StreamExt;
use futures_util::stream;

use crate::cli::nick;
use crate::cli::progress::Progress;
use crate::client::Client;
use crate::error::{Code, Error};
use crate::id::UserId;

/// Users created at a time.
const IN_FLIGHT: usize = 64;

/// Which user each nick is.
#[derive(Debug, Default)]
pub(super) struct People {
    users: HashMap<String, UserId>,
}

impl People {
    /// Finds or creates a user for every nick: with the nick's slug as id, or the one with its
    /// hash when the plain one is somebody else's (whose display name is not the nick).
    pub(super) async fn settle(
        client: &Client,
        nicks: BTreeSet<String>,
        progress: &Progress,
    ) -> Result<People, Error> {
        let known = known(client, &nicks).await?;
        let known = &known;
        let settled = nicks.into_iter().map(|nick| async move {
            let user = settle_one(client, known, &nick).await?;
            progress.add(1);
            Ok::<_, Error>((nick, user))
        });
        let mut settled = stream::iter(settled).buffer_unordered(IN_FLIGHT);
        let mut users = HashMap::new();
        while let Some(one) = settled.next().await {
            let (nick, user) = one?;
            users.insert(nick, user);
        }
        Ok(People { users })
    }

    /// The user's id; empty for a line that nobody said.
    pub(super) fn id_of(&self, nick: &str) -> String {
        self.users.get(nick).map(UserId::to_string).unwrap_or_default()
    }
}

/// Display names of users that are there already, of those that could be meant.
async fn known(
    client: &Client,
    nicks: &BTreeSet<String>,
) -> Result<HashMap<String, String>, Error> {
    let meant: BTreeSet<String> =
        nicks.iter().flat_map(|nick| [nick::slug(nick), nick::hashed(nick)]).collect();
    let (mut known, mut after) = (HashMap::new(), String::new());
    loop {
        let page = client.list_users(&after, 1000).await?;
        for user in page.users {
            if meant.contains(&user.user) {
                known.insert(user.user, user.display_name);
            }
        }
        after = page.next;
        if after.is_empty() {
            return Ok(known);
        }
    }
}

async fn settle_one(
    client: &Client,
    known: &HashMap<String, String>,
    nick: &str,
) -> Result<UserId, Error> {
    for slug in [nick::slug(nick), nick::hashed(nick)] {
        let id = UserId::parse(&slug)?;
        match known.get(&slug) {
            Some(name) if name == nick => return Ok(id),
            Some(_) => continue,
            None => {}
        }
        match client.create_user(&id, nick, false).await {
            Ok(_) => return Ok(id),
            // Somebody was faster: perhaps another import, or this call's own lost attempt.
            Err(error) if error.code == Code::AlreadyExists => {
                if client.get_user(&id).await?.display_name == nick {
                    return Ok(id);
                }
            }
            // There already, with all the tokens that it may have.
            Err(error) if error.code == Code::LimitReached => return Ok(id),
            Err(error) => return Err(error),
        }
    }
    let message = format!("no user id is free for nick {nick:?}");
    Err(Error::new(Code::AlreadyExists, message))
}
