//! Snapshots between two bases, and compaction.
