//! Events as lines for people.

use crate::cli::output::{printable, role, time_short};
use crate::proto::v1 as pb;

/// One event as a line (more when its text has more); what it says cannot drive the terminal.
pub(super) fn render(event: &pb::Event) -> String {
    let at = if event.original_at_ms > 0 { event.original_at_ms } else { event.at_ms };
    let head = format!("#{} {} ", event.seq, time_short(at));
    let indent = format!("\n{}", " ".repeat(head.len()));
    format!("{head}{}", printable(&what(event)).replace('\n', &indent))
}

fn what(event: &pb::Event) -> String {
    let sender =
        if event.original_sender.is_empty() { &event.sender } else { &event.original_sender };
    let subject = if event.subject.is_empty() { sender } else { &event.subject };
    let (text, target) = (&event.text, event.target);
    let why = if text.is_empty() { String::new() } else { format!(": {text}") };
    if event.redacted {
        return format!("{sender} (redacted)");
    }
    let mut line = match event.kind() {
        pb::EventKind::Message if target > 0 => format!("{sender} (to #{target}): {text}"),
        pb::EventKind::Message => format!("{sender}: {text}"),
        pb::EventKind::Action => format!("* {sender} {text}"),
        pb::EventKind::Notice => format!("-- {text}"),
        pb::EventKind::Edit => format!("{sender} edited #{target}: {text}"),
        pb::EventKind::Redaction => format!("{sender} redacted #{target}"),
        pb::EventKind::Reaction if event.withdrawn => {
            format!("{sender} took {text} back from #{target}")
        }
        pb::EventKind::Reaction => format!("{sender} reacted {text} to #{target}"),
        pb::EventKind::Join => format!("{subject} joined"),
        pb::EventKind::Leave if subject != sender => format!("{sender} removed {subject}{why}"),
        pb::EventKind::Leave => format!("{subject} left"),
        pb::EventKind::Role if event.withdrawn => {
            format!("{sender} made {subject} no longer {}", role(event.role()))
        }
        pb::EventKind::Role => {
            let until = match event.until_ms {
                0 => String::new(),
                ms => format!(" until {}", time_short(ms)),
            };
            format!("{sender} made {subject} {}{until}{why}", role(event.role()))
        }
        pb::EventKind::Invite => format!("{sender} invited {subject}"),
        pb::EventKind::Pin if event.withdrawn => format!("{sender} unpinned #{target}"),
        pb::EventKind::Pin => format!("{sender} pinned #{target}"),
        pb::EventKind::Archive if event.withdrawn => format!("{sender} unarchived the room"),
        pb::EventKind::Archive => format!("{sender} archived the room"),
        pb::EventKind::Retention => format!("{sender} has the room keep {text}"),
        pb::EventKind::Trim => "-- older events are gone".into(),
        pb::EventKind::Topic if text.is_empty() => format!("{sender} took the topic away"),
        pb::EventKind::Topic => format!("{sender} set the topic: {text}"),
        pb::EventKind::Unspecified => format!("{sender} did something this version cannot show"),
    };
    if event.edited_at_ms > 0 {
        line.push_str(" (edited)");
    }
    for reaction in &event.reactions {
        line.push_str(&format!(" [{} {}]", reaction.symbol, reaction.users.len()));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_read_as_sentences() {
        let event = |kind: pb::EventKind| pb::Event {
            seq: 7,
            at_ms: 1_700_000_000_123,
            sender: "ann".into(),
            kind: kind as i32,
            text: "hi\nthere\x1b".into(),
            ..pb::Event::default()
        };
        let shown = render(&event(pb::EventKind::Message));
        let pad = " ".repeat("#7 2023-11-14 22:13:20 ".len());
        assert_eq!(shown, format!("#7 2023-11-14 22:13:20 ann: hi\n{pad}there␛"));
        let ban = pb::Event {
            subject: "bob".into(),
            role: pb::Role::Banned as i32,
            until_ms: 1_700_000_060_000,
            text: "spam".into(),
            ..event(pb::EventKind::Role)
        };
        let shown_ban = render(&ban);
        assert!(shown_ban.ends_with("ann made bob banned until 2023-11-14 22:14:20: spam"));
        let lifted = pb::Event { withdrawn: true, ..ban };
        assert!(render(&lifted).ends_with("ann made bob no longer banned"));
        let shown = render(&pb::Event { redacted: true, ..event(pb::EventKind::Action) });
        assert!(shown.ends_with("ann (redacted)"), "{shown}");
        assert!(render(&event(pb::EventKind::Join)).ends_with("ann joined"));
    }
}
