//! The formats on disk, pinned.
