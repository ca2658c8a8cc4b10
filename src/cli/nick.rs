//! From names of elsewhere to slugs: deterministic, and different for different names.

use crate::limits;

/// Hex digits of the name's hash that tell apart names which clean up to the same slug.
const HASH_DIGITS: usize = 8;

/// The slug for a name: the name itself when it is one, else what can be kept of it, `-`, and the
/// first 8 hex digits of blake3 of the name.
///
/// ```text
/// seveas → seveas    Seveas → seveas-5c1f…    [foo] → foo-9a01…    ^^ → x-77e2…
/// ```
pub(super) fn slug(name: &str) -> String {
    let kept = clean(name);
    if kept == name && name.len() <= limits::SLUG_BYTES_MAX { kept } else { hashed(name) }
}

/// The slug for a name that always has the hash: when the plain one belongs to somebody else.
pub(super) fn hashed(name: &str) -> String {
    let mut slug = clean(name);
    slug.truncate(limits::SLUG_BYTES_MAX - HASH_DIGITS - 1); // ASCII: any cut is a character's
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!("{slug}-{}", &hash[..HASH_DIGITS])
}

fn clean(name: &str) -> String {
    let keep = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '.' | '_' | '-') => c,
        _ => '_',
    };
    let kept: String = name.chars().map(keep).collect();
    let kept = kept.trim_start_matches(['.', '_', '-']);
    if kept.is_empty() { "x".into() } else { kept.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::UserId;

    #[test]
    fn slugs_stay_and_other_names_get_a_hash() {
        for same in ["seveas", "0x1", "a.b_c-d", &"a".repeat(64)] {
            assert_eq!(slug(same), same);
        }
        for (name, start) in
            [("Seveas", "seveas-"), ("[foo]", "foo_-"), ("__", "x-"), ("é", "x-"), ("", "x-")]
        {
            assert!(slug(name).starts_with(start), "{name} {}", slug(name));
        }
        assert_ne!(slug("Seveas"), slug("SEVEAS"));
        assert_eq!(hashed("seveas").len(), "seveas".len() + 9);
    }

    #[test]
    fn every_name_becomes_a_slug() {
        for name in ["Seveas", "^^", "a|away", "ünï", &"A".repeat(300), &"ß".repeat(40), "-a", ""]
        {
            for slug in [slug(name), hashed(name)] {
                UserId::parse(&slug).unwrap_or_else(|_| panic!("{name} {slug}"));
            }
        }
    }
}
