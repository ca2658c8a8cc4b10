//! `folkmoot-sim`: runs simulated lives of a cluster, and judges them.

fn main() {}
