//! Tests of the rules as a whole: golden scripts, and what holds for every history.

mod accounts;
mod linked;
mod pages;
mod permissions;
mod properties;
mod scripts;
