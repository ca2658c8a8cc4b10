//! Just enough Rust lexing for `tests/tidy.rs`: code without comments and literals, and the names
//! in it.

/// `source` with comments and the contents of literals blanked; line and column stay.
pub fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut i = 0;
    while i < chars.len() {
        let end = match chars[i] {
            '/' if chars.get(i + 1) == Some(&'/') => line_end(&chars, i),
            '/' if chars.get(i + 1) == Some(&'*') => block_end(&chars, i),
            '"' => string_end(&chars, i),
            'r' if raw_hashes(&chars, i).is_some() => raw_end(&chars, i),
            '\'' => char_end(&chars, i),
            _ => i,
        };
        if end == i {
            out.push(chars[i]);
            i += 1;
        }
        while i < end.min(chars.len()) {
            out.push(if chars[i] == '\n' { '\n' } else { ' ' });
            i += 1;
        }
    }
    out
}

fn line_end(chars: &[char], from: usize) -> usize {
    chars[from..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| from + n)
}

fn block_end(chars: &[char], from: usize) -> usize {
    let mut depth = 0;
    let mut i = from;
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], from: usize) -> usize {
    let mut i = from + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// How many `#` follow the `r` of a raw string that begins here.
fn raw_hashes(chars: &[char], at: usize) -> Option<usize> {
    let before = at.checked_sub(1).map(|i| chars[i]);
    if before.is_some_and(|c| (c.is_alphanumeric() && c != 'b') || c == '_') {
        return None;
    }
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    (chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

fn raw_end(chars: &[char], from: usize) -> usize {
    let hashes = raw_hashes(chars, from).unwrap_or(0);
    let mut i = from + hashes + 2;
    while i < chars.len() {
        let closes = chars[i] == '"' && chars[i + 1..].iter().take(hashes).all(|c| *c == '#');
        if closes {
            return i + 1 + hashes;
        }
        i += 1;
    }
    chars.len()
}

/// A character literal's end; a lifetime is left alone.
fn char_end(chars: &[char], from: usize) -> usize {
    match (chars.get(from + 1), chars.get(from + 2)) {
        (Some('\\'), _) => {
            let close = chars[from + 3..].iter().position(|c| *c == '\'');
            close.map_or(chars.len(), |n| from + 4 + n)
        }
        (Some(_), Some('\'')) => from + 3,
        _ => from,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Lines, from 1, on which `name` (a word, or a path of words) stands by itself.
pub fn word_positions(code: &str, name: &str) -> Vec<usize> {
    let alone = |at: &usize| {
        let before = code[..*at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    };
    let hits = code.match_indices(name).map(|(at, _)| at).filter(alone);
    hits.map(|at| code[..at].matches('\n').count() + 1).collect()
}

/// The first segment of each path that begins with `crate::`, with its line from 1.
pub fn paths_from_crate(code: &str) -> Vec<(usize, String)> {
    let mut found = vec![];
    for (at, start) in code.match_indices("crate::") {
        // `$crate::` in a macro is this crate too; `my_crate::` is not.
        if code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + start.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(first_segments(group).into_iter().map(|segment| (line, segment)));
        } else {
            found.push((line, rest.chars().take_while(|c| is_word(*c)).collect()));
        }
    }
    found
}

/// The first segments of a `use` group's members, at its outermost level.
fn first_segments(group: &str) -> Vec<String> {
    let mut segments = vec![String::new()];
    let (mut depth, mut taken) = (0, false);
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                segments.push(String::new());
                taken = false;
            }
            c if is_word(c) && depth == 0 && !taken => {
                if let Some(segment) = segments.last_mut() {
                    segment.push(c);
                }
            }
            c if !c.is_whitespace() => taken = true,
            _ => {}
        }
    }
    segments.retain(|s| !s.is_empty());
    segments
}
