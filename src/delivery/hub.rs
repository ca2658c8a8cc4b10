//! The live end of every room that somebody on this node follows.
