//! What is kept of a user: profile, password, sessions, tokens and invites.
//!
//! All of it is one row in the user's shard. Secrets are not in it, only their hashes; and these
//! leave the cluster's nodes through no interface ([`User::public`]).

use std::fmt;

use crate::chat::event::Hash;
use crate::id::UserId;
use crate::limits;

/// A user's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's id.
    pub id: UserId,
    /// For people; the id when none was given.
    pub display_name: String,
    /// May administer the whole cluster.
    pub admin: bool,
    /// Log time of creation, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// Tokens, oldest first. Those that have expired go when another is issued.
    pub tokens: Vec<Token>,
    /// What they are about, in their words; empty when nothing was said.
    pub status: String,
    /// Cannot sign in, and nothing of theirs is valid.
    pub disabled: bool,
    /// By which they sign in; `None` when by tokens only.
    pub password: Option<Password>,
    /// Where they are signed in, the first to sign in first. Those that have ended go when another
    /// begins.
    pub sessions: Vec<Session>,
    /// What they have invited others with, oldest first. Administrators only.
    pub invites: Vec<Invite>,
    /// The account of a provider by which they sign in; `None` when by none.
    pub link: Option<Link>,
    /// Of the row of such an account, which is no user's: whose it is.
    pub stands_for: Option<UserId>,
}

impl User {
    /// A user with nothing but a name.
    pub fn new(id: UserId, display_name: String, admin: bool, created_at_ms: u64) -> User {
        User {
            id,
            display_name,
            admin,
            created_at_ms,
            tokens: Vec::new(),
            status: String::new(),
            disabled: false,
            password: None,
            sessions: Vec::new(),
            invites: Vec::new(),
            link: None,
            stands_for: None,
        }
    }

    /// What others may know of the user.
    pub fn public(&self) -> User {
        let User { id, display_name, admin, created_at_ms, status, disabled, .. } = self.clone();
        User { status, disabled, ..User::new(id, display_name, admin, created_at_ms) }
    }
}

/// A token by which a user, or a bot of theirs, signs in; only its hash is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// blake3 of the secret.
    pub hash: Hash,
    /// What it is for, in the user's words.
    pub label: String,
    /// Log time of issue, milliseconds since the Unix epoch.
    pub issued_at_ms: u64,
    /// What it is good for.
    pub scopes: Scopes,
    /// From when on it is not valid, milliseconds since the Unix epoch; `None`: it stays valid.
    pub expires_at_ms: Option<u64>,
}

impl Token {
    /// One that is good for everything, for ever.
    pub fn new(hash: Hash, label: String, issued_at_ms: u64) -> Token {
        Token { hash, label, issued_at_ms, scopes: Scopes::ALL, expires_at_ms: None }
    }
}

/// Where a user is signed in with a password; only the secret's hash is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// blake3 of the secret.
    pub hash: Hash,
    /// Log time of the login, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// Log time of a recent use, milliseconds since the Unix epoch; coarse.
    pub used_at_ms: u64,
    /// It ends then however much it is used, milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
    /// It ends after so much time without use, in milliseconds.
    pub idle_ms: u64,
    /// What the client said it is.
    pub user_agent: String,
    /// From where it was last used, as an IP address.
    pub address: String,
}

impl Session {
    /// When it ends unless it is used again, milliseconds since the Unix epoch.
    pub fn ends_at_ms(&self) -> u64 {
        self.expires_at_ms.min(self.used_at_ms.saturating_add(self.idle_ms))
    }
}

/// What lets others register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// blake3 of the secret.
    pub hash: Hash,
    /// Log time when it was made, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// From when on it lets nobody in, milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
    /// How many it lets in.
    pub uses_max: u32,
    /// Whom it has let in, in order.
    pub used_by: Vec<UserId>,
}

/// What is said of an invite that lets nobody in, or not any more.
pub const BAD_INVITE: &str = "this invite is not valid, or not any more";

impl Invite {
    /// Whether it lets this user in at this time, in milliseconds since the Unix epoch; perhaps again.
    pub fn admits(&self, guest: &UserId, now_ms: u64) -> bool {
        let has_room = self.used_by.len() < self.uses_max as usize;
        self.expires_at_ms > now_ms && (has_room || self.used_by.contains(guest))
    }
}

/// An account of a provider of OpenID Connect: the issuer, and what it calls somebody, for good.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Link {
    /// The provider's issuer.
    pub issuer: String,
    /// Whom it means by it.
    pub subject: String,
}

impl Link {
    /// The id of the row that says whose this account is.
    pub fn row(&self) -> UserId {
        let mut hasher = blake3::Hasher::new_derive_key("folkmoot account of a provider");
        hasher.update(&(self.issuer.len() as u64).to_le_bytes());
        hasher.update(self.issuer.as_bytes());
        hasher.update(self.subject.as_bytes());
        UserId::of_subject(hasher.finalize().as_bytes())
    }
}

/// A password's argon2id hash, as a PHC string. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Takes a PHC string.
    ///
    /// `None` when it is not one of argon2id, within the limit.
    pub fn parse(phc: &str) -> Option<Password> {
        let well = phc.starts_with("$argon2id$")
            && phc.len() <= limits::PASSWORD_HASH_BYTES_MAX
            && phc.bytes().all(|byte| byte.is_ascii_graphic());
        well.then(|| Password(phc.to_owned()))
    }

    /// The PHC string.
    pub fn phc(&self) -> &str {
        &self.0
    }

    /// Names this very hash, so that a command can say which password it was made under.
    pub fn tag(&self) -> PasswordTag {
        let mut tag = [0; 16];
        tag.copy_from_slice(&blake3::hash(self.0.as_bytes()).as_bytes()[..16]);
        tag
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// See [`Password::tag`].
pub type PasswordTag = [u8; 16];

/// What a token is good for: a set of [`Scope`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u32);

/// One kind of thing that a token may be good for. The numbers are on disk and on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Scope {
    /// Reading and following whatever the user may read.
    Read = 1,
    /// Messages, edits, redactions, reactions.
    Post = 2,
    /// Creating, joining, leaving and managing rooms.
    Rooms = 4,
    /// The user's own profile, password, sessions and tokens.
    Account = 8,
    /// What administrators may do, when the user is one.
    Admin = 16,
}

impl Scope {
    /// All of them.
    pub const ALL: [Scope; 5] =
        [Scope::Read, Scope::Post, Scope::Rooms, Scope::Account, Scope::Admin];

    /// Its name, on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Post => "post",
            Scope::Rooms => "rooms",
            Scope::Account => "account",
            Scope::Admin => "admin",
        }
    }
}

impl Scopes {
    /// Everything that the user may do, what later releases add included.
    pub const ALL: Scopes = Scopes(u32::MAX);

    /// The set of these.
    pub fn of(scopes: impl IntoIterator<Item = Scope>) -> Scopes {
        Scopes(scopes.into_iter().fold(0, |set, scope| set | scope as u32))
    }

    /// Whether a scope is in the set.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope as u32 != 0
    }

    /// The scopes in the set.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }

    /// The number on disk: 0 stands for all.
    pub fn number(self) -> u32 {
        if self == Scopes::ALL { 0 } else { self.0 }
    }

    /// The set with this number; `None` when it has what this release does not know.
    pub fn from_number(number: u32) -> Option<Scopes> {
        let known = Scopes::of(Scope::ALL);
        match number {
            0 => Some(Scopes::ALL),
            some if some & !known.0 == 0 => Some(Scopes(some)),
            _ => None,
        }
    }

    /// The set with these names; none at all stands for all.
    ///
    /// # Errors
    /// The name that is none.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Scopes, String> {
        let mut set = 0;
        for name in names {
            match Scope::ALL.into_iter().find(|scope| scope.as_str() == name) {
                Some(scope) => set |= scope as u32,
                None => return Err(name.to_owned()),
            }
        }
        Ok(if set == 0 { Scopes::ALL } else { Scopes(set) })
    }
}

/// A change of a user, beside those that have commands of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets the password, and ends all sessions but one.
    SetPassword {
        /// The new one.
        password: Password,
        /// The one that it replaces, of which the user has shown that they know it. Not heeded
        /// when an administrator sets another user's.
        previous: Option<PasswordTag>,
        /// The session that goes on.
        keep: Option<Hash>,
    },
    /// Begins a session.
    OpenSession {
        /// blake3 of its secret.
        hash: Hash,
        /// The password that was shown.
        password: PasswordTag,
        /// What the client said it is.
        user_agent: String,
        /// From where.
        address: String,
        /// It ends after so much time, in milliseconds.
        ttl_ms: u64,
        /// It ends after so much time without use, in milliseconds.
        idle_ms: u64,
    },
    /// Says that a session is used.
    TouchSession {
        /// blake3 of its secret.
        hash: Hash,
        /// From where; empty when that is not known.
        address: String,
    },
    /// Ends all sessions but one.
    EndSessions {
        /// The one that goes on.
        keep: Option<Hash>,
    },
    /// Locks the user out, or lets them in again.
    SetDisabled {
        /// Whether they are locked out.
        disabled: bool,
    },
    /// Changes what people see of the user.
    SetProfile {
        /// The name; `None` leaves it.
        display_name: Option<String>,
        /// The status; `None` leaves it.
        status: Option<String>,
    },
    /// Adds a token that is not good for everything, or not for ever.
    IssueToken {
        /// blake3 of its secret.
        hash: Hash,
        /// What it is for.
        label: String,
        /// What it is good for.
        scopes: Scopes,
        /// For how long, in milliseconds; `None`: for ever.
        ttl_ms: Option<u64>,
    },
    /// Creates the user, by themselves.
    Register {
        /// The name that people see; the id when empty.
        display_name: String,
        /// By which they sign in.
        password: Password,
    },
    /// Makes an invite of the user's.
    MakeInvite {
        /// blake3 of its secret.
        hash: Hash,
        /// How many it lets in.
        uses_max: u32,
        /// For how long, in milliseconds.
        ttl_ms: u64,
    },
    /// Takes an invite back.
    DropInvite {
        /// blake3 of its secret.
        hash: Hash,
    },
    /// Lets somebody in by an invite of the user's: once, however often it is asked.
    UseInvite {
        /// blake3 of its secret.
        hash: Hash,
        /// Who is let in.
        guest: UserId,
        /// They were not, in the end: another may be.
        give_back: bool,
    },
    /// Says whose an account of a provider is, for good: in that account's row.
    ClaimSubject {
        /// The account.
        link: Link,
        /// Whose it is.
        user: UserId,
    },
    /// Creates the user, who signs in by a provider.
    RegisterLinked {
        /// The name that people see; the id when empty.
        display_name: String,
        /// By which they sign in.
        link: Link,
    },
    /// Begins a session of a user who has signed in by a provider.
    OpenLinkedSession {
        /// blake3 of its secret.
        hash: Hash,
        /// The account that was shown.
        link: Link,
        /// Whether they administer the cluster from now on; `None`: as before.
        admin: Option<bool>,
        /// What the client said it is.
        user_agent: String,
        /// From where.
        address: String,
        /// It ends after so much time, in milliseconds.
        ttl_ms: u64,
        /// It ends after so much time without use, in milliseconds.
        idle_ms: u64,
    },
    /// Lets the user sign in by a provider.
    SetLink {
        /// The account there.
        link: Link,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_have_numbers_and_names() {
        assert_eq!(Scopes::from_number(0), Some(Scopes::ALL));
        assert_eq!(Scopes::from_number(32), None);
        let some = Scopes::of([Scope::Read, Scope::Post]);
        assert_eq!(Scopes::from_number(some.number()), Some(some));
        assert_eq!(Scopes::from_names(["post", "read"]), Ok(some));
        assert_eq!(Scopes::from_names([]), Ok(Scopes::ALL));
        assert_eq!(Scopes::from_names(["read", "fly"]), Err("fly".into()));
        assert!(some.has(Scope::Read) && !some.has(Scope::Admin));
        assert!(Scope::ALL.into_iter().all(|scope| Scopes::ALL.has(scope)));
        assert_eq!(Scopes::of(Scope::ALL).iter().count(), 5);
    }

    #[test]
    fn a_password_is_an_argon2id_hash_and_not_shown() {
        let phc = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaA";
        let password = Password::parse(phc).unwrap();
        assert_eq!(password.phc(), phc);
        assert!(!format!("{password:?}").contains("salt"));
        for bad in ["", "hunter2", "$argon2i$v=19$x", "$argon2id$a b", "$argon2id$\n"] {
            assert_eq!(Password::parse(bad), None, "{bad}");
        }
        assert_eq!(Password::parse(&format!("$argon2id${}", "a".repeat(300))), None);
    }

    #[test]
    fn what_is_public_has_no_secrets() {
        let id = UserId::parse("ann").unwrap();
        let mut user = User::new(id, "Ann".into(), true, 5);
        user.status = "away".into();
        let public = user.clone();
        user.tokens.push(Token::new([1; 32], "laptop".into(), 6));
        user.password = Password::parse("$argon2id$v=19$x");
        assert_eq!(user.public(), public);
    }
}
