//! What the state costs: printed, not asserted. `cargo test --release --lib store::tests::speed -- --nocapture --ignored`
