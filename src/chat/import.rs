//! Import: lines of foreign history become events. Admins only.
//!
//! Resumable and idempotent without any horizon: a permanent mark for each (room, source) says up
//! to which line it has been imported, and lines at or below it are skipped. So the request id is
//! neither checked against log time nor remembered; each event gets an id of its own, derived from
//! the request's time and the line.

use std::sync::Arc;

use crate::chat::access;
use crate::chat::append::{self, Call, Draft};
use crate::chat::command::{Done, ImportLine, Imported, Rejection, Reply};
use crate::chat::event::Salt;
use crate::chat::permission::Action;
use crate::chat::state::StateMut;
use crate::id::RoomId;
use crate::limits;

/// Appends the lines above the source's mark, and moves it. Senders need not be participants, and
/// are not made such.
pub(super) fn apply<S: StateMut>(
    call: &mut Call<'_, S>,
    room: &RoomId,
    source: &str,
    lines: Vec<ImportLine>,
    salt: &Salt,
) -> Reply {
    let row = access::may(call.state, call.actor, room, Action::Import)?.room;
    if source.is_empty() || source.len() > limits::SOURCE_BYTES_MAX {
        return Err(Rejection::InvalidArgument(format!(
            "a source's name has 1 to {} bytes",
            limits::SOURCE_BYTES_MAX
        )));
    }
    check(&lines)?;

    let mark = call.state.import_mark(room, source);
    let skipped = lines.partition_point(|line| line.line <= mark);
    let imported = Imported {
        line: lines.last().map_or(mark, |last| last.line.max(mark)),
        count: (lines.len() - skipped) as u64,
    };
    if imported.count == 0 {
        let nothing = call.nothing_to_do(&row, call.now_ms);
        return Ok(Done { imported: Some(imported), ..nothing });
    }
    let drafts: Vec<Draft> =
        lines.into_iter().skip(skipped).map(|line| draft(call, room, source, line, salt)).collect();
    let done = call.append_all(Arc::unwrap_or_clone(row), drafts);
    call.state.put_import_mark(room, source, imported.line);
    Ok(Done { imported: Some(imported), ..done })
}

/// Checks what does not depend on the room. Texts may be empty and hold any character: this is
/// what was said elsewhere.
fn check(lines: &[ImportLine]) -> Result<(), Rejection> {
    let invalid = |reason: String| Err(Rejection::InvalidArgument(reason));
    if lines.len() > limits::IMPORT_LINES_MAX {
        return invalid(format!("an import has at most {} lines", limits::IMPORT_LINES_MAX));
    }
    let (mut previous, mut bytes) = (0, 0);
    for line in lines {
        if line.line <= previous {
            return invalid(format!("line {} does not rise above {previous}", line.line));
        }
        if !line.kind.is_message() {
            return invalid(format!("line {} is not something said", line.line));
        }
        if line.original_sender.len() > limits::SOURCE_BYTES_MAX {
            return invalid(format!(
                "the original sender of line {} is longer than {} bytes",
                line.line,
                limits::SOURCE_BYTES_MAX
            ));
        }
        if line.text.len() > limits::TEXT_BYTES_MAX {
            return Err(Rejection::TooLarge { max: limits::TEXT_BYTES_MAX });
        }
        previous = line.line;
        bytes += line.text.len() + line.original_sender.len();
    }
    if bytes > limits::IMPORT_BYTES_MAX {
        return Err(Rejection::TooLarge { max: limits::IMPORT_BYTES_MAX });
    }
    Ok(())
}

fn draft<S: StateMut>(
    call: &Call<'_, S>,
    room: &RoomId,
    source: &str,
    line: ImportLine,
    salt: &Salt,
) -> Draft {
    let ImportLine { line, original_at_ms, sender, original_sender, kind, text } = line;
    Draft {
        sender,
        request_id: append::derived_id(call.id, room, source, line),
        // Zero and empty mean "unknown"; stored events cannot tell them from absent ones.
        original_at_ms: Some(original_at_ms).filter(|ms| *ms != 0),
        original_sender: Some(original_sender).filter(|name| !name.is_empty()),
        text,
        ..call.draft(kind, append::derived_salt(salt, line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::event::EventKind;
    use crate::id::UserId;

    fn lines(count: usize, bytes: usize) -> Vec<ImportLine> {
        let line = |line: usize| ImportLine {
            line: line as u64,
            original_at_ms: 0,
            sender: UserId::parse("ann").unwrap(),
            original_sender: String::new(),
            kind: EventKind::Message,
            text: "x".repeat(bytes),
        };
        (1..=count).map(line).collect()
    }

    #[test]
    fn an_import_is_bounded_in_lines_and_bytes() {
        assert_eq!(check(&lines(limits::IMPORT_LINES_MAX, 1)), Ok(()));
        let many = check(&lines(limits::IMPORT_LINES_MAX + 1, 1));
        assert!(matches!(many, Err(Rejection::InvalidArgument(_))));
        assert_eq!(check(&lines(12, limits::TEXT_BYTES_MAX)), Ok(()));
        let mut large = lines(12, limits::TEXT_BYTES_MAX);
        large[0].original_sender = "x".into();
        assert_eq!(check(&large), Err(Rejection::TooLarge { max: limits::IMPORT_BYTES_MAX }));
    }
}
