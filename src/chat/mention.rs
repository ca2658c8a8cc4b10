//! Mentions: the users that a text names, as `@user`.
//!
//! A pure function of the text, so every replica, every node and every later count agrees, and a
//! redaction takes the mentions with the text. A mention says nothing of the room to anybody: who
//! is counted is the room's business.

use crate::id::UserId;
use crate::limits;

/// The users that a text mentions, each once, in the order in which they first occur; at most
/// [`limits::MENTIONS_MAX`].
///
/// A mention is an `@` at the beginning or after a character that is neither a letter nor a digit,
/// and a user's id after it. Its case does not count. Points and dashes at its end are punctuation.
pub fn mentions(text: &str) -> Vec<UserId> {
    let mut found: Vec<UserId> = Vec::new();
    let mut before = None;
    for (at, char) in text.char_indices() {
        let begins = char == '@' && !before.is_some_and(char::is_alphanumeric);
        before = Some(char);
        if !begins {
            continue;
        }
        let rest = &text[at + 1..];
        let in_id = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let length = rest.bytes().take(limits::SLUG_BYTES_MAX + 1).take_while(in_id).count();
        let name = rest[..length].trim_end_matches(['.', '-']).to_ascii_lowercase();
        let Ok(user) = UserId::parse(&name) else { continue };
        if !found.contains(&user) {
            found.push(user);
        }
        if found.len() == limits::MENTIONS_MAX {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(text: &str) -> Vec<String> {
        mentions(text).iter().map(UserId::to_string).collect()
    }

    #[test]
    fn users_are_found_where_people_name_them() {
        let cases: &[(&str, &[&str])] = &[
            ("@ann", &["ann"]),
            ("hi @ann, and (@bob)!", &["ann", "bob"]),
            ("@Ann @ann @ANN", &["ann"]),
            ("ask @ann.", &["ann"]),
            ("ask @ann.b-c_d...", &["ann.b-c_d"]),
            ("a@b.example and ä@ann", &[]),
            ("@ @. @-ann @_x", &[]),
            ("@@ann", &["ann"]),
            ("\u{1f600}@ann\u{1f600}", &["ann"]),
            ("", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(names(text), *expected, "{text:?}");
        }
        assert_eq!(names(&format!("@{}", "a".repeat(64))).len(), 1);
        assert!(names(&format!("@{}", "a".repeat(65))).is_empty(), "longer than any id");
    }

    #[test]
    fn they_are_bounded() {
        let many: String = (0..1000).map(|n| format!("@u{n} ")).collect();
        assert_eq!(mentions(&many).len(), limits::MENTIONS_MAX);
        assert_eq!(mentions(&many)[0].as_str(), "u0");
    }

    proptest! {
        #[test]
        fn whatever_the_text_each_is_there_once(text in "(@|[a-zA-Z.é -]){0,200}") {
            let found = mentions(&text);
            for (place, user) in found.iter().enumerate() {
                prop_assert!(!found[..place].contains(user));
                let named = format!("@{}", user.as_str());
                prop_assert!(text.to_ascii_lowercase().contains(&named));
            }
        }
    }
}
