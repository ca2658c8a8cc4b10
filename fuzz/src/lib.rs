//! What the fuzz targets do with one input, without a fuzzer: so that `tests/fuzz_corpus.rs` can run the
//! kept inputs through the same code with a stable compiler.
//!
//! Each target is a module of its own; [`world`] is the small world that `bodies` and `frames` play in. A
//! target panics when something is not as it should be.

pub mod backend;
pub mod bodies;
pub mod frames;
pub mod input;
pub mod socket;
pub mod stored;
pub mod world;
