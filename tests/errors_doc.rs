//! docs/errors.md lists every error code, in the order of `src/error.rs`, and nothing else.

use folkmoot::error::Code;

/// Each row's cells, of the table whose first column is a code.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_table_lists_every_code() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = rows(&text);
    let documented: Vec<_> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    let defined: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(documented, defined);
    for (row, code) in rows.iter().zip(Code::ALL) {
        let [_, http, grpc, temporary, meaning] = row[..] else { panic!("five columns: {row:?}") };
        assert_eq!(temporary, if code.temporary() { "yes" } else { "no" }, "{code:?}");
        let status: u16 = http.parse().unwrap();
        assert_eq!(status >= 500, code.temporary() || *code == Code::Internal, "{code:?}");
        assert!(grpc.chars().all(|c| c.is_ascii_uppercase() || c == '_'), "{grpc}");
        assert!(meaning.ends_with('.'), "{meaning}");
    }
}
