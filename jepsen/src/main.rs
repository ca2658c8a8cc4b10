//! `folkmoot-jepsen`: checks histories of a Folkmoot cluster.

fn main() {}
