//! Placeholder until the next edit.
