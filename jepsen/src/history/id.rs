//! What names things in a history: message ids, nodes and rooms, processes.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A `client_msg_id`: a UUID, or in histories written by hand a word of at most 15 bytes.
///
/// It takes 16 bytes, since a history has one for each event of each read. A word is kept in the
/// bytes of a UUID of version 0, which nobody mints: its length is where the version would be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    high: u64,
    low: u64,
}

/// Longest word that an [`Id`] holds.
const WORD_LEN_MAX: usize = 15;

/// The byte that has a UUID's version in its upper half.
const VERSION: usize = 6;

impl Id {
    /// The id with the bits of this UUID.
    #[must_use]
    pub const fn from_u128(bits: u128) -> Id {
        Id { high: (bits >> 64) as u64, low: bits as u64 }
    }

    /// The bits of the UUID.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        (self.high as u128) << 64 | self.low as u128
    }

    /// Parses a hyphenated UUID or a word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Id> {
        if let Some(bits) = parse_uuid(text.as_bytes()) {
            // Version 0 with something in the lower half of its byte would be taken for a word.
            let version = bits.to_be_bytes()[VERSION];
            return (version == 0 || version > 0x0f).then_some(Id::from_u128(bits));
        }
        let (len, bytes) = (text.len(), text.as_bytes());
        if len == 0 || len > WORD_LEN_MAX {
            return None;
        }
        let mut packed = [0; 16];
        let before = len.min(VERSION);
        packed[..before].copy_from_slice(&bytes[..before]);
        packed[VERSION] = len as u8;
        packed[VERSION + 1..VERSION + 1 + len - before].copy_from_slice(&bytes[before..]);
        Some(Id::from_u128(u128::from_be_bytes(packed)))
    }
}

/// What a hexadecimal digit stands for; [`NO_DIGIT`] for other bytes. A history has an id in each
/// event of each read: a table halves the time that they take.
const DIGITS: [u8; 256] = digits();

const NO_DIGIT: u8 = 0x10;

const fn digits() -> [u8; 256] {
    let mut digits = [NO_DIGIT; 256];
    let mut digit = 0;
    while digit < 16 {
        digits[b"0123456789abcdef"[digit] as usize] = digit as u8;
        digits[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    digits
}

fn parse_uuid(text: &[u8]) -> Option<u128> {
    let text: &[u8; 36] = text.try_into().ok()?;
    if [8, 13, 18, 23].iter().any(|at| text[*at] != b'-') {
        return None;
    }
    let (mut bits, mut all) = (0_u128, 0);
    for group in [0..8, 9..13, 14..18, 19..23, 24..36] {
        let mut part = 0_u64;
        for byte in &text[group.clone()] {
            let digit = DIGITS[*byte as usize];
            all |= digit;
            part = part << 4 | u64::from(digit);
        }
        bits = bits << (4 * group.len()) | u128::from(part);
    }
    (all & NO_DIGIT == 0).then_some(bits)
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.as_u128().to_be_bytes();
        let len = bytes[VERSION] as usize;
        if (1..=WORD_LEN_MAX).contains(&len) {
            let mut word = bytes.to_vec();
            word.remove(VERSION);
            return f.write_str(&String::from_utf8_lossy(&word[..len]));
        }
        let (a, b, c) = (self.high >> 32, self.high >> 16 & 0xffff, self.high & 0xffff);
        let (d, e) = (self.low >> 48, self.low & 0xffff_ffff_ffff);
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Id;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an id: a UUID, or a word of at most {WORD_LEN_MAX} bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Id, E> {
                Id::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The name of a node or a room. Clones share the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Name {
        Name(text.into())
    }
}

impl From<String> for Name {
    fn from(text: String) -> Name {
        Name(text.into())
    }
}

impl From<&Name> for Name {
    fn from(name: &Name) -> Name {
        name.clone()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A logical thread of a client: it does one thing after another. Once an outcome of its was
/// unknown (`info`) it does nothing more; whoever ran it goes on under a new number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(pub u32);

impl Process {
    /// What injects the faults; `"nemesis"` in JSON.
    pub const NEMESIS: Process = Process(u32::MAX);
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Process::NEMESIS { f.write_str("nemesis") } else { write!(f, "{}", self.0) }
    }
}

impl Serialize for Process {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if *self == Process::NEMESIS {
            serializer.serialize_str("nemesis")
        } else {
            serializer.serialize_u32(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Process {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Process, D::Error> {
        struct NumberOrNemesis;
        impl Visitor<'_> for NumberOrNemesis {
            type Value = Process;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a process: a number below 2147483648, or \"nemesis\"")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Process, E> {
                let process = i32::try_from(number).ok();
                process
                    .map(|number| Process(number.unsigned_abs()))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Process, E> {
                if text == "nemesis" {
                    return Ok(Process::NEMESIS);
                }
                Err(E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(NumberOrNemesis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        let texts = [
            "018f3c1a-7b2c-7d3e-8f40-123456789abc",
            "00000000-0000-0000-0000-000000000001",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "a",
            "m12",
            "sixsix",
            "7letters",
            " 15 bytes long ",
            "é",
        ];
        let mut ids: Vec<Id> = texts.iter().map(|text| Id::parse(text).unwrap()).collect();
        for (text, id) in texts.iter().zip(&ids) {
            assert_eq!(*text, id.to_string());
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), texts.len());
        let upper = Id::parse("018F3C1A-7B2C-7D3E-8F40-123456789ABC");
        assert_eq!(upper, Id::parse(texts[0]));
        let odd = [
            "018f3c1a-7b2c-7d3e-8f40-123456789abg",
            "",
            "sixteen bytes ok",
            "018f3c1a-7b2c-0d3e-8f40-123456789abc",
            "018f3c1a-7b2c-7d3e-8f40_123456789abc",
        ];
        for text in odd {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_word_is_another_id() {
        let mut seen = std::collections::HashSet::new();
        for len in 1..=WORD_LEN_MAX {
            for text in [&"abcdefghijklmno"[..len], &"aaaaaaaaaaaaaaa"[..len]] {
                let id = Id::parse(text).unwrap();
                assert_eq!(id.to_string(), text);
                seen.insert(id);
            }
        }
        assert_eq!(seen.len(), 2 * WORD_LEN_MAX - 1); // "a" is in both
    }
}
