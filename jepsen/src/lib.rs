//! Histories of what clients of a Folkmoot cluster saw, and the checkers that judge them.

pub mod check;
pub mod export;
pub mod history;
