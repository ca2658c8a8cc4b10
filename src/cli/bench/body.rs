//! What a message of the load says: when it was sent, by whom, its number, and noise.

/// The fewest bytes of a message.
pub(super) const SIZE_MIN: usize = SENT_DIGITS + CLIENT_DIGITS + NUMBER_DIGITS;

const SENT_DIGITS: usize = 11;
const CLIENT_DIGITS: usize = 5;
const NUMBER_DIGITS: usize = 8;

/// What identifies a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Mark {
    /// Which client sent it.
    pub client: usize,
    /// Its number among the client's messages, from 0.
    pub number: u64,
}

/// A message of exactly `size` bytes of printable ASCII.
pub(super) fn write(sent_ns: u64, mark: Mark, size: usize) -> String {
    let mut text = String::with_capacity(size);
    push(&mut text, sent_ns, SENT_DIGITS);
    push(&mut text, mark.client as u64, CLIENT_DIGITS);
    push(&mut text, mark.number, NUMBER_DIGITS);
    // Not compressible to nothing, and not the same for all.
    let mut x = (mark.client as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ mark.number;
    for _ in SIZE_MIN..size {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        text.push((b' ' + (x % 95) as u8) as char);
    }
    text
}

/// When a message was sent, and what identifies it.
pub(super) fn read(text: &str) -> Option<(u64, Mark)> {
    let bytes = text.as_bytes();
    let (sent, rest) = bytes.split_at_checked(SENT_DIGITS)?;
    let (client, rest) = rest.split_at_checked(CLIENT_DIGITS)?;
    let (number, _) = rest.split_at_checked(NUMBER_DIGITS)?;
    let client = usize::try_from(value(client)?).ok()?;
    Some((value(sent)?, Mark { client, number: value(number)? }))
}

/// Six bits a digit, the highest first.
fn push(text: &mut String, value: u64, digits: usize) {
    for digit in (0..digits).rev() {
        let shift = 6 * digit as u32;
        let six = value.checked_shr(shift).unwrap_or(0) & 63;
        text.push((b'0' + six as u8) as char);
    }
}

fn value(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |value, digit| {
        let six = digit.checked_sub(b'0').filter(|six| *six < 64)?;
        Some(value << 6 | u64::from(six))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_who_sent_it_and_when() {
        for (sent, client, number) in
            [(0, 0, 0), (u64::MAX >> 1, 1023, 1 << 40), (86_400_000_000_000, 255, 77)]
        {
            let mark = Mark { client, number };
            for size in [SIZE_MIN, 256] {
                let text = write(sent, mark, size);
                assert_eq!(text.len(), size);
                assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text}");
                assert_eq!(read(&text), Some((sent, mark)));
            }
        }
        assert_eq!(read("short"), None);
        assert_eq!(read(&" ".repeat(30)), None);
    }
}
