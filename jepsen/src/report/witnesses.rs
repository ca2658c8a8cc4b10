//! What is wrong: a table of anomalies, and for each witness a picture with its operations.

use crate::check::Anomaly;
use crate::report::facts::strings;
use crate::report::html::{Text, count, millis, sentence};
use crate::report::store::Run;
use crate::report::timeline::{Rooms, Timeline, Violation};

/// What an anomaly means to whoever uses the cluster.
fn meaning(anomaly: Anomaly) -> &'static str {
    match anomaly {
        Anomaly::LostWrite => "An acknowledged message is gone, or another is in its place.",
        Anomaly::Unseen => {
            "An acknowledged message was never shown, though its room was read to the end."
        }
        Anomaly::Duplicate => "One message is at two places.",
        Anomaly::InconsistentOffsets => "Two messages are at one place.",
        Anomaly::AbortedRead => "A message was shown that had been refused for certain.",
        Anomaly::Phantom => "A message was shown that nobody had sent.",
        Anomaly::Gap => "There are places without a message.",
        Anomaly::PollSkip => "A subscription passed over messages.",
        Anomaly::NonmonotonicPoll => "A subscription went back, or repeated itself.",
        Anomaly::NonmonotonicSend => {
            "A message came before one that had been acknowledged before it was sent."
        }
        Anomaly::StaleRead => "A read missed what was there before it began.",
        Anomaly::Diverged => "Two replicas hold different logs.",
        Anomaly::Unavailable => "A room was not served in time after all faults had ended.",
    }
}

/// The section, and the pictures that the page's script is to draw.
pub(super) fn section(run: &Run) -> (String, Vec<Timeline>) {
    let violations = run.violations();
    let found: Vec<(Anomaly, u64)> = Anomaly::ALL
        .into_iter()
        .map(|anomaly| (anomaly, run.anomaly(anomaly.as_str())))
        .filter(|(_, n)| *n > 0)
        .collect();
    let findings: String = strings(&run.results["findings"])
        .map(|finding| format!("<li>{}</li>\n", Text(sentence(&finding))))
        .collect();
    if found.is_empty() && violations.is_empty() && findings.is_empty() {
        return (String::new(), vec![]);
    }
    let mut out = String::from(
        "<section aria-labelledby=\"anomalies\">\n<h2 id=\"anomalies\">What is wrong</h2>\n",
    );
    if !findings.is_empty() {
        out.push_str(&format!("<p>What no client saw:</p>\n<ul>\n{findings}</ul>\n"));
    }
    if found.is_empty() {
        out.push_str("</section>\n");
        return (out, vec![]);
    }
    out.push_str(
        "<div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">Anomaly</th>\
         <th scope=\"col\" class=\"n\">Times</th><th scope=\"col\">What it means</th>\
         <th scope=\"col\">Lines in the history</th></tr></thead>\n<tbody>\n",
    );
    for (anomaly, times) in &found {
        out.push_str(&format!(
            "<tr><th scope=\"row\"><code>{anomaly}</code></th><td class=\"n\">{}</td><td class=\"long\">{}</td>\
             <td class=\"long\">{}</td></tr>\n",
            count(*times),
            meaning(*anomaly),
            lines(&violations, anomaly.as_str(), *times)
        ));
    }
    out.push_str("</tbody>\n</table></div>\n");
    out.push_str(
        "<p class=\"hint\">In the pictures each lane is a process, and each bar an operation from the \
         line that begins it to the line that ends it. Lines are evenly spaced, in their order; the \
         times are below, and in brackets are the numbers of the lines. An arrow goes from the end of \
         one to the beginning of the next, where that came later.</p>\n",
    );
    let rooms = Rooms::of(&run.history, &violations);
    let timelines: Vec<Timeline> =
        violations.iter().map(|violation| rooms.timeline(violation)).collect();
    let mut last = "";
    for (number, (violation, timeline)) in violations.iter().zip(&timelines).enumerate() {
        // The first of each anomaly is open; the others are there for those who want them.
        out.push_str(&article(number, violation, timeline, violation.anomaly != last));
        last = &violation.anomaly;
    }
    out.push_str("</section>\n");
    (out, timelines)
}

/// The lines of the witnesses of an anomaly, each a link to its picture.
fn lines(violations: &[Violation], anomaly: &str, times: u64) -> String {
    let these = violations.iter().enumerate().filter(|(_, v)| v.anomaly == anomaly);
    let links: Vec<String> = these
        .map(|(number, violation)| {
            let lines = violation.witness.iter().flat_map(|witness| &witness.operations);
            let lines: Vec<String> = lines.map(usize::to_string).collect();
            format!("<a href=\"#witness-{}\">{}</a>", number + 1, lines.join(", "))
        })
        .collect();
    let more = times.saturating_sub(links.len() as u64);
    let more = (more > 0).then(|| format!("{} more, not shown", count(more)));
    links.into_iter().chain(more).collect::<Vec<_>>().join("; ")
}

fn article(number: usize, violation: &Violation, timeline: &Timeline, open: bool) -> String {
    let shown = number + 1;
    let room = match &violation.room {
        Some(room) => format!(" in room <bdi>{}</bdi>", Text(sentence(room))),
        None => String::new(),
    };
    let mut out = format!(
        "<article class=\"witness\" aria-labelledby=\"witness-{shown}\">\n<details{}>\n\
         <summary><h3 id=\"witness-{shown}\"><code>{}</code>{room}</h3></summary>\n<p>{}</p>\n\
         <ol class=\"letters\">\n",
        if open { " open" } else { "" },
        Text(&violation.anomaly),
        Text(sentence(&violation.what))
    );
    for (letter, witness) in ('A'..='Z').zip(&violation.witness) {
        out.push_str(&format!(
            "<li><b class=\"letter\">{letter}</b> {}</li>\n",
            Text(sentence(&witness.text))
        ));
    }
    out.push_str("</ol>\n");
    if timeline.bars.is_empty() && timeline.marks.is_empty() {
        out.push_str("<p>These lines are not in the history beside this report.</p>\n</details>\n</article>\n");
        return out;
    }
    if !timeline.active.is_empty() {
        let faults = Text(timeline.active.join(", "));
        out.push_str(&format!("<p>Faults between the first and the last: {faults}.</p>\n"));
    }
    out.push_str(&format!(
        "<figure><div class=\"timeline\" data-timeline=\"{number}\"></div></figure>\n{}</details>\n</article>\n",
        table(timeline)
    ));
    out
}

/// The operations of a picture, as a table.
fn table(timeline: &Timeline) -> String {
    let mut out = format!(
        "<details><summary>The {} operations of this picture as a table</summary>\n\
         <div class=\"wide\"><table>\n<thead><tr><th scope=\"col\"></th><th scope=\"col\">Operation\
         </th><th scope=\"col\">Outcome</th><th scope=\"col\" class=\"n\">From</th>\
         <th scope=\"col\" class=\"n\">To</th></tr></thead>\n<tbody>\n",
        timeline.bars.len()
    );
    let at = |place: usize| timeline.times_ms.get(place).copied().map_or("–".into(), millis);
    for bar in &timeline.bars {
        let letter = bar.witness.map_or(String::new(), |c| format!("<b class=\"letter\">{c}</b>"));
        out.push_str(&format!(
            "<tr{}><td>{letter}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
            if bar.witness.is_some() { " class=\"lit\"" } else { "" },
            Text(&bar.text),
            bar.outcome,
            at(bar.from),
            bar.to.map_or("never".into(), at)
        ));
    }
    out.push_str("</tbody>\n</table></div></details>\n");
    out
}
