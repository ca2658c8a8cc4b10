//! Builds and joins every layer.
