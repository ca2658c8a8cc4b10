//! Who may do what, in which kind of room: the one table. `access` asks it for every command and
//! every query; docs/permissions.md shows it, and a test compares the two.
//!
//! The table says yes. What a no looks like follows from [`ask`]: whoever may not see a room gets
//! the answer that a missing room gives, whatever they asked for.

use crate::chat::state::RoomKind;

/// Somebody, as one room sees them at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Who {
    /// Not signed in. The gateway refuses them before the rules are asked.
    Stranger,
    /// Signed in, and without a part in the room.
    Outsider,
    /// Asked to join, and not in yet.
    Invited,
    /// Kept out.
    Banned,
    /// In, and must not speak.
    Muted,
    /// In.
    Member,
    /// In, with a say over members.
    Moderator,
    /// In, with a say over everything in the room.
    Owner,
    /// An administrator of the cluster, in the room or not.
    Admin,
}

impl Who {
    /// All, in the order of the table.
    pub const ALL: [Who; 9] = [
        Who::Stranger,
        Who::Outsider,
        Who::Invited,
        Who::Banned,
        Who::Muted,
        Who::Member,
        Who::Moderator,
        Who::Owner,
        Who::Admin,
    ];
}

/// What somebody may want of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the table describes each")]
pub enum Action {
    See,
    Read,
    Join,
    Leave,
    Post,
    React,
    EditOwn,
    RedactOwn,
    RedactOthers,
    SetTopic,
    Pin,
    Invite,
    Kick,
    Mute,
    Ban,
    SetRole,
    SetRetention,
    Archive,
    MarkRead,
    SeePresence,
    Import,
    Export,
}

/// A no, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// Sign in first.
    Unauthenticated,
    /// As far as they may know, there is no such room.
    Hidden,
    /// They are banned from a room that everybody knows of.
    Banned,
    /// They must join first.
    NotParticipant,
    /// They are muted.
    Muted,
    /// Their role does not allow it; this says whose does.
    Forbidden(&'static str),
    /// Nobody may in this kind of room.
    WrongRoomKind,
    /// Nobody may while the room is archived.
    Archived,
}

/// Some of [`Who`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Whos(u16);

impl Whos {
    const fn with(self, who: Who) -> Whos {
        Whos(self.0 | 1 << who as u8)
    }

    const fn has(self, who: Who) -> bool {
        self.0 & 1 << who as u8 != 0
    }
}

const NOBODY: Whos = Whos(0);
const ADMINS: Whos = NOBODY.with(Who::Admin);
const OWNERS: Whos = ADMINS.with(Who::Owner);
const MODERATORS: Whos = OWNERS.with(Who::Moderator);
const MEMBERS: Whos = MODERATORS.with(Who::Member);
const INSIDE: Whos = MEMBERS.with(Who::Muted);
const ASKED: Whos = INSIDE.with(Who::Invited);
const SIGNED_IN: Whos = ASKED.with(Who::Outsider);

/// A row of the table.
struct Row {
    action: Action,
    /// For people: what it is, to complete "may …".
    what: &'static str,
    public: Whos,
    private: Whos,
    group: Whos,
    direct: Whos,
    /// Also while the room is archived.
    archived: bool,
    /// Said to those who are refused.
    reason: &'static str,
}

impl Row {
    const fn whos(&self, kind: RoomKind) -> Whos {
        match kind {
            RoomKind::Public => self.public,
            RoomKind::Private => self.private,
            RoomKind::Group => self.group,
            RoomKind::Direct => self.direct,
        }
    }
}

macro_rules! table {
    ($($action:ident $what:literal:
        $public:ident $private:ident $group:ident $direct:ident $archived:literal $reason:literal;)*) => {
        const TABLE: &[Row] = &[$(Row {
            action: Action::$action,
            what: $what,
            public: $public,
            private: $private,
            group: $group,
            direct: $direct,
            archived: $archived,
            reason: $reason,
        },)*];

        impl Action {
            /// All, in the order of the table.
            pub const ALL: &[Action] = &[$(Action::$action,)*];
        }
    };
}

// action, what it is: who may in public, private, group and direct rooms; in archived ones too?
table! {
    See "see the room and who is in it":
        SIGNED_IN ASKED ASKED INSIDE true "you may not see this room";
    Read "read history, threads and pins, and follow live":
        SIGNED_IN INSIDE INSIDE INSIDE true "you may not read this room";
    Join "join":
        SIGNED_IN ASKED ASKED NOBODY false "you may not join this room";
    Leave "leave, or decline an invitation":
        ASKED ASKED ASKED NOBODY true "you may not leave this room";
    Post "post, and reply":
        MEMBERS MEMBERS MEMBERS MEMBERS false "only members post";
    React "react, and take a reaction back":
        MEMBERS MEMBERS MEMBERS MEMBERS false "only members react";
    EditOwn "edit their own messages":
        MEMBERS MEMBERS MEMBERS MEMBERS false "only members edit";
    RedactOwn "redact their own messages":
        SIGNED_IN INSIDE INSIDE INSIDE true "you may not redact in this room";
    RedactOthers "redact others' messages":
        MODERATORS MODERATORS ADMINS ADMINS true
        "only its sender and moderators redact a message";
    SetTopic "set the topic":
        MODERATORS MODERATORS MEMBERS MEMBERS false "only moderators and owners set the topic";
    Pin "pin and unpin messages":
        MODERATORS MODERATORS MEMBERS MEMBERS false "only moderators and owners pin messages";
    Invite "invite somebody":
        MEMBERS MODERATORS MEMBERS NOBODY false "only moderators and owners invite";
    Kick "remove somebody, or take back an invitation":
        MODERATORS MODERATORS ADMINS NOBODY true "only moderators and owners remove people";
    Mute "mute and unmute somebody":
        MODERATORS MODERATORS NOBODY NOBODY false "only owners and moderators mute";
    Ban "ban somebody, and lift a ban":
        MODERATORS MODERATORS NOBODY NOBODY true "only owners and moderators ban";
    SetRole "make owners, moderators and members":
        OWNERS OWNERS NOBODY NOBODY false "only owners set roles";
    SetRetention "say how long history is kept":
        OWNERS OWNERS ADMINS ADMINS true "only owners say how long history is kept";
    Archive "archive and unarchive the room":
        OWNERS OWNERS ADMINS ADMINS true "only owners archive a room";
    MarkRead "mark what they have read":
        INSIDE INSIDE INSIDE INSIDE true "only those in the room mark what they have read";
    SeePresence "see who is there, who types, and how far others have read":
        INSIDE INSIDE INSIDE INSIDE true "only those in the room see who is there";
    Import "import history":
        ADMINS ADMINS ADMINS NOBODY false "only administrators import history";
    Export "export the room's log":
        ADMINS ADMINS ADMINS ADMINS true "only administrators export rooms";
}

/// Whether somebody may do something in a room of this kind.
///
/// # Errors
/// The first that applies: not signed in; the room is hidden from them, or they are banned from it;
/// nobody may in such a room; they are muted, must join first, or have not the role; the room is
/// archived.
pub fn ask(kind: RoomKind, archived: bool, who: Who, action: Action) -> Result<(), Denial> {
    let row = &TABLE[action as usize];
    let whos = row.whos(kind);
    if who == Who::Stranger {
        return Err(Denial::Unauthenticated);
    }
    if who == Who::Banned || who == Who::Outsider && kind != RoomKind::Public {
        let banned = kind == RoomKind::Public;
        return Err(if banned { Denial::Banned } else { Denial::Hidden });
    }
    if whos == NOBODY {
        return Err(Denial::WrongRoomKind);
    }
    if !whos.has(who) {
        return Err(match who {
            Who::Outsider | Who::Invited if whos.has(Who::Member) => Denial::NotParticipant,
            Who::Outsider if action == Action::Leave => Denial::NotParticipant,
            Who::Muted if whos.has(Who::Member) => Denial::Muted,
            _ => Denial::Forbidden(row.reason),
        });
    }
    if archived && !row.archived {
        return Err(Denial::Archived);
    }
    Ok(())
}

/// Whether `actor` has a say over `target`: moderators over members and those who are not in,
/// owners and administrators over everybody.
pub fn outranks(actor: Who, target: Who) -> bool {
    match actor {
        Who::Admin | Who::Owner => true,
        Who::Moderator => !matches!(target, Who::Moderator | Who::Owner | Who::Admin),
        _ => false,
    }
}

/// Whether there can be such people in rooms of a kind.
pub fn occurs(kind: RoomKind, who: Who) -> bool {
    match kind {
        RoomKind::Public | RoomKind::Private => true,
        RoomKind::Group => !matches!(who, Who::Banned | Who::Muted | Who::Moderator | Who::Owner),
        RoomKind::Direct => {
            matches!(who, Who::Stranger | Who::Outsider | Who::Member | Who::Admin)
        }
    }
}

/// The table as docs/permissions.md has it, in Markdown: one part for each kind of room.
pub fn shown() -> String {
    let mut out = String::new();
    for (kind, title) in [
        (RoomKind::Public, "Public"),
        (RoomKind::Private, "Private"),
        (RoomKind::Group, "Group"),
        (RoomKind::Direct, "Direct"),
    ] {
        let present: Vec<Who> = Who::ALL.into_iter().filter(|who| occurs(kind, *who)).collect();
        out.push_str(&format!("### {title} rooms\n\n| may … |"));
        for who in &present {
            out.push_str(&format!(" {} |", format!("{who:?}").to_lowercase()));
        }
        out.push_str(" when archived |\n|---|");
        out.push_str(&"---|".repeat(present.len() + 1));
        out.push('\n');
        for row in TABLE {
            out.push_str(&format!("| {} |", row.what));
            for who in &present {
                out.push_str(&format!(" {} |", answer(kind, *who, row.action)));
            }
            let archived = row.archived && row.whos(kind) != NOBODY;
            out.push_str(if archived { " yes |\n" } else { " no |\n" });
        }
        out.push('\n');
    }
    out
}

/// What somebody is answered, as the shown table has it.
fn answer(kind: RoomKind, who: Who, action: Action) -> &'static str {
    match ask(kind, false, who, action) {
        Ok(()) => "**yes**",
        Err(Denial::Unauthenticated) => "`unauthenticated`",
        Err(Denial::Hidden) => "`room_not_found`",
        Err(Denial::Banned) => "`banned`",
        Err(Denial::NotParticipant) => "`not_participant`",
        Err(Denial::Muted) => "`muted`",
        Err(Denial::Forbidden(_)) => "`forbidden`",
        Err(Denial::WrongRoomKind) => "`wrong_room_kind`",
        Err(Denial::Archived) => "`archived`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [RoomKind; 4] =
        [RoomKind::Public, RoomKind::Private, RoomKind::Group, RoomKind::Direct];

    #[test]
    fn the_table_has_a_row_for_each_action_in_its_place() {
        for (place, row) in TABLE.iter().enumerate() {
            assert_eq!(row.action as usize, place, "{:?}", row.action);
        }
        assert_eq!(TABLE.len(), Action::Export as usize + 1);
    }

    #[test]
    fn whoever_may_not_see_a_room_is_told_the_same_whatever_they_ask() {
        for kind in KINDS {
            for who in Who::ALL.into_iter().filter(|who| occurs(kind, *who)) {
                let sight = ask(kind, false, who, Action::See);
                if matches!(sight, Ok(()) | Err(Denial::Forbidden(_))) {
                    continue;
                }
                for action in Action::ALL {
                    for archived in [false, true] {
                        assert_eq!(ask(kind, archived, who, *action), sight, "{kind:?} {who:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn more_rank_never_means_less() {
        let ranks = [Who::Muted, Who::Member, Who::Moderator, Who::Owner, Who::Admin];
        for kind in KINDS {
            for action in Action::ALL {
                let may: Vec<bool> =
                    ranks.iter().map(|who| ask(kind, false, *who, *action).is_ok()).collect();
                assert!(may.is_sorted(), "{kind:?} {action:?} {may:?}");
            }
        }
    }

    #[test]
    fn an_archived_room_takes_nothing_that_adds_to_it() {
        for action in [Action::Post, Action::React, Action::EditOwn, Action::Join, Action::Import] {
            let asked = ask(RoomKind::Public, true, Who::Admin, action);
            assert_eq!(asked, Err(Denial::Archived), "{action:?}");
        }
        for action in [Action::Read, Action::Leave, Action::RedactOwn, Action::Archive] {
            assert_eq!(ask(RoomKind::Public, true, Who::Owner, action), Ok(()), "{action:?}");
        }
    }

    #[test]
    fn moderators_have_a_say_over_members_only() {
        for who in Who::ALL {
            let low = !matches!(who, Who::Moderator | Who::Owner | Who::Admin);
            assert_eq!(outranks(Who::Moderator, who), low, "{who:?}");
            assert!(outranks(Who::Owner, who) && !outranks(Who::Member, who));
        }
    }

    #[test]
    fn the_documentation_shows_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/permissions.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (head, rest) = text.split_once("<!-- table -->\n").expect("a mark before the table");
        let (_, tail) = rest.split_once("<!-- end -->").expect("a mark after the table");
        let wanted = format!("{head}<!-- table -->\n{}<!-- end -->{tail}", shown());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &wanted).unwrap();
        }
        let shown = std::fs::read_to_string(path).unwrap();
        assert_eq!(shown, wanted, "UPDATE=1 rewrites {path}");
    }
}
