//! Takes an input apart.

/// The rest of an input.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next byte; 0 when there is none.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    /// What comes before the next `end`, or all.
    pub fn until(&mut self, end: u8) -> &'a [u8] {
        match self.0.iter().position(|byte| *byte == end) {
            Some(at) => {
                let part = &self.0[..at];
                self.0 = &self.0[at + 1..];
                part
            }
            None => std::mem::take(&mut self.0),
        }
    }

    /// A part with its length before it, in two bytes; all when there is not so much.
    pub fn part(&mut self) -> &'a [u8] {
        let length = usize::from(u16::from_be_bytes([self.byte(), self.byte()]));
        let (part, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        part
    }

    /// Whether there is nothing more.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
