//! Text that goes into a page. Names of rooms, errors and whatever else a history has may be
//! hostile: nothing of it is markup, and nothing of it moves the text around it.

use std::fmt;

/// Names are cut at so many characters.
const NAME_MAX: usize = 120;
/// Sentences are cut at so many: they have several names.
const SENTENCE_MAX: usize = 600;

/// Text as HTML shows it, between tags and in quoted attributes.
pub(super) struct Text<T>(pub T);

impl<T: fmt::Display> fmt::Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in plain(&self.0.to_string()).chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// Without control characters, and marks that reorder what is read.
fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        '\u{7f}' => '\u{2421}',
        c if (c as u32) < 0x20 => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
        '\u{80}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' => '\u{fffd}',
        '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// A name, plain and not endless.
pub(super) fn name(text: &str) -> String {
    cut(text, NAME_MAX)
}

/// A sentence, plain and not endless.
pub(super) fn sentence(text: &str) -> String {
    cut(text, SENTENCE_MAX)
}

fn cut(text: &str, max: usize) -> String {
    let mut short: String = text.chars().take(max).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    plain(&short)
}

/// JSON for a script element: what could end the element is escaped.
pub(super) fn json(value: &impl serde::Serialize) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string(value)?.replace('<', "\\u003c").replace('>', "\\u003e"))
}

/// A count with a thin space for each three digits.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Milliseconds for people: three digits that matter.
pub(super) fn millis(ms: f64) -> String {
    match ms {
        _ if !ms.is_finite() => "–".into(),
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms if ms < 60_000.0 => format!("{:.2} s", ms / 1e3),
        ms => format!("{} min {:.0} s", (ms / 60e3) as u64, ms % 60e3 / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_markup() {
        let hostile = "</script><b onclick='x()'>\"&\u{202e}\u{0}\n";
        let shown =
            "&lt;/script&gt;&lt;b onclick=&#39;x()&#39;&gt;&quot;&amp;\u{fffd}\u{2400}\u{240a}";
        assert_eq!(Text(hostile).to_string(), shown);
        let json = json(&hostile).unwrap();
        assert!(!json.contains(['<', '>']), "{json}");
        let back: String = serde_json::from_str(&json).unwrap();
        assert_eq!(back, hostile);
        let long = name(&"x".repeat(10_000));
        assert_eq!(long.chars().count(), NAME_MAX + 1);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(count).join(" "),
            "0 999 1\u{202f}000 1\u{202f}234\u{202f}567"
        );
        let shown = [0.123, 12.34, 123.4, 1_234.0, 61_000.0].map(millis).join(", ");
        assert_eq!(shown, "0.12 ms, 12.3 ms, 123 ms, 1.23 s, 1 min 1 s");
    }
}
