//! Histories round trip, and malformed ones are refused at the right line.
