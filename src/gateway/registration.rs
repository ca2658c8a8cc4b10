//! How people come to have an account: by themselves, where they may, and by invites.
//!
//! An invite is in the row of the administrator who made it, and the account will be in another
//! shard. So one use of the invite is taken first, in the name of the account; should that not be
//! made, it is given back, unless there is such an account.

use crate::chat::account::{BAD_INVITE, Change, Invite};
use crate::chat::command::Actor;
use crate::chat::event::Hash;
use crate::error::{Code, Error};
use crate::gateway::accounts::{From, LoggedIn, id_of, not_found, one_line, wrong};
use crate::gateway::app::{App, Caller, require_admin};
use crate::gateway::auth::{mint_invite, parse_invite};
use crate::gateway::founding::FIRST_ADMIN;
use crate::gateway::limits::Registration;
use crate::gateway::passwords;
use crate::id::UserId;
use crate::limits;

impl App {
    /// Creates an account, and begins a session of it.
    ///
    /// # Errors
    /// [`Code::Forbidden`] when people cannot register, or not by this invite;
    /// [`Code::AlreadyExists`]; [`Code::RateLimited`], and the router's.
    pub async fn register(
        &self,
        user: UserId,
        password: &str,
        display_name: String,
        invite: Option<&str>,
        from: From,
    ) -> Result<LoggedIn, Error> {
        let invite = self.admitted_by(invite)?;
        passwords::check(password)?;
        one_line("display_name", &display_name, limits::DISPLAY_NAME_BYTES_MAX)?;
        self.attempts.begin(&user, from.address)?;
        if let Some((host, hash)) = &invite {
            self.is_good(host, hash, &user).await?; // first: who has none is not told which names are taken
        }
        let taken = || Error::new(Code::AlreadyExists, format!("user {user} exists already"));
        // The first administrator is `cluster init`'s to create, who may be at it right now.
        if user.as_str() == FIRST_ADMIN || self.account(&user).await?.is_some() {
            return Err(taken());
        }
        let password = self.passwords.hash(password).await?;
        let guest = Actor { user: user.clone(), admin: false };
        let use_invite = |hash, give_back| {
            let guest = user.clone();
            Change::UseInvite { hash, guest, give_back }
        };
        if let Some((host, hash)) = &invite {
            self.change(&guest, host, None, use_invite(*hash, false)).await?;
        }
        let change = Change::Register { display_name, password };
        if let Err(error) = self.change(&guest, &user, None, change).await {
            // Somebody else may have registered that name by the same use of the invite, which is theirs
            // then.
            if let Some((host, hash)) = &invite
                && !error.may_have_applied
                && error.code != Code::AlreadyExists
            {
                self.change(&guest, host, None, use_invite(*hash, true)).await?;
            }
            return Err(error);
        }
        let row = self.account(&user).await?.ok_or_else(wrong)?;
        self.open_session(row, from).await
    }

    /// The invite by which somebody registers, where one is needed.
    fn admitted_by(&self, invite: Option<&str>) -> Result<Option<(UserId, Hash)>, Error> {
        let forbidden = |message: &str| Error::new(Code::Forbidden, message);
        match (self.limits().accounts.registration, invite) {
            (Registration::Closed, _) => {
                Err(forbidden("people cannot register here: ask an administrator for an account"))
            }
            (Registration::Open, _) => Ok(None),
            (Registration::Invite, None) => {
                Err(forbidden("an invite is needed: ask an administrator for one"))
            }
            (Registration::Invite, Some(invite)) => match parse_invite(invite) {
                Some(invite) => Ok(Some(invite)),
                None => Err(Error::invalid("this is not an invite: `fmi_<user>_<64 hex digits>`")),
            },
        }
    }

    /// Whether somebody could register by this invite now, without using it.
    async fn is_good(&self, host: &UserId, hash: &Hash, guest: &UserId) -> Result<(), Error> {
        let now_ms = self.clock.now_ms();
        let admits = |invite: &Invite| invite.hash == *hash && invite.admits(guest, now_ms);
        let host = self.account(host).await?.filter(|host| host.admin && !host.disabled);
        match host.is_some_and(|host| host.invites.iter().any(admits)) {
            true => Ok(()),
            false => Err(Error::new(Code::Forbidden, BAD_INVITE)),
        }
    }

    /// Makes an invite; says until when it is good, milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`Code::Forbidden`] unless the caller is an administrator, and the router's.
    pub async fn make_invite(
        &self,
        caller: &Caller,
        uses_max: u32,
        ttl_ms: u64,
    ) -> Result<(String, u64), Error> {
        require_admin(&caller.actor)?;
        let user = &caller.actor.user;
        let (invite, hash) = mint_invite(user);
        let change = Change::MakeInvite { hash, uses_max, ttl_ms };
        let action = format!("make an invite for {uses_max} people");
        let change = self.change(&caller.actor, user, None, change);
        let done = self.audited(&caller.actor, &action, change).await?;
        Ok((invite, done.at_ms.saturating_add(ttl_ms)))
    }

    /// The caller's invites that are still good, oldest first.
    ///
    /// # Errors
    /// [`Code::Forbidden`] unless the caller is an administrator, and the router's.
    pub async fn invites(&self, caller: &Caller) -> Result<Vec<Invite>, Error> {
        require_admin(&caller.actor)?;
        let row = self.user(&caller.actor, caller.actor.user.clone()).await?;
        let now_ms = self.clock.now_ms();
        Ok(row.invites.iter().filter(|invite| invite.expires_at_ms > now_ms).cloned().collect())
    }

    /// Takes one of the caller's invites back.
    ///
    /// # Errors
    /// [`Code::NotFound`], [`Code::Forbidden`] unless the caller is an administrator, and the
    /// router's.
    pub async fn drop_invite(&self, caller: &Caller, id: &str) -> Result<(), Error> {
        require_admin(&caller.actor)?;
        let user = &caller.actor.user;
        let row = self.user(&caller.actor, user.clone()).await?;
        let invite = row.invites.iter().find(|invite| id_of(&invite.hash) == id);
        let hash = invite.ok_or_else(|| not_found("invite"))?.hash;
        let change = self.change(&caller.actor, user, None, Change::DropInvite { hash });
        let action = format!("take back invite {id}");
        self.audited(&caller.actor, &action, change).await.map(|_| ())
    }
}
