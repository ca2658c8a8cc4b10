//! docs/errors.md lists every error code, in the order of `src/error.rs`, with what the gateway
//! makes of it (`src/gateway/status.rs`), and nothing else.

use folkmoot::error::Code;
use folkmoot::gateway::status;

/// Each row's cells, of the table whose first column is a code.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// A gRPC status as the protocol writes it: `NOT_FOUND` for `NotFound`.
fn grpc_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

#[test]
fn the_table_is_that_of_the_code() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut documented = Vec::new();
    for row in rows(&text) {
        let [code, http, grpc, temporary, meaning] = row[..] else {
            panic!("five columns: {row:?}")
        };
        assert!(meaning.ends_with('.'), "{meaning}");
        documented.push([code, http, grpc, temporary].map(str::to_owned));
    }
    let defined = Code::ALL.iter().map(|code| {
        let (http, grpc) = status::row(*code);
        let temporary = if code.temporary() { "yes" } else { "no" };
        [
            format!("`{}`", code.as_str()),
            http.as_u16().to_string(),
            grpc_name(grpc),
            temporary.into(),
        ]
    });
    assert_eq!(documented, defined.collect::<Vec<_>>());
}
