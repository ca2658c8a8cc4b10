//! Tidiness: what rustc and clippy do not see. Layers, sizes, `//!`, and nothing of the machine
//! that a file was written on.
//!
//! Each rule is a function from a file to complaints; a test shows for each one that it fires. A
//! file that must break a rule says so in a line of its own: `// tidy: allow RULE: why`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "tidy/lexer.rs"]
mod lexer;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lexer::{code_only, paths_from_crate, word_positions};

const LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Modules of the crate, from the bottom up. A module may import those of lower rank, and of its
/// own rank those that come before it here.
const LAYERS: &[(u8, &[&str])] = &[
    (0, &["mutants", "testing", "limits", "clock", "id", "error", "proto", "config", "telemetry"]),
    (1, &["chat", "meta"]),
    (2, &["store"]),
    (3, &["shard"]),
    (4, &["presence", "delivery", "router"]),
    (5, &["client", "gateway"]),
    (6, &["node", "cli", "main", "lib"]),
];

/// External crates that only one module may name.
const OWNED_CRATES: &[(&str, &str)] =
    &[("openraft", "shard"), ("sled", "store"), ("raft_engine", "store")];

/// What a module must not name, and why.
const FORBIDDEN: &[(&[&str], &[&str], &str)] = &[
    (
        &["chat", "meta"],
        &[
            "tokio",
            "futures_util",
            "rand",
            "Instant",
            "SystemTime",
            "HashMap",
            "HashSet",
            "f32",
            "f64",
            "std::fs",
            "std::net",
            "std::thread",
        ],
        "the rules are pure and deterministic",
    ),
    (
        &["store", "shard", "presence", "delivery", "router"],
        &["tokio::time", "tokio::spawn", "SystemTime::now", "rand::rng", "rand::random"],
        "it must run in the simulator: take the runtime, the clock or the seed as a parameter",
    ),
];

/// Where the real world is meant to come in; a simulator has its own instead.
const EDGES: &[&str] = &["src/shard/transport/tcp"];

struct File {
    /// Relative to the repository, with forward slashes.
    path: String,
    text: String,
    /// `text` with comments and literals blanked, of the same shape; empty unless Rust.
    code: String,
}

impl File {
    fn new(path: &str, text: &str) -> File {
        let code = if path.ends_with(".rs") { code_only(text) } else { String::new() };
        File { path: path.into(), text: text.into(), code }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The top module of a file in src/.
    fn module(&self) -> Option<&str> {
        let path = self.path.strip_prefix("src/")?;
        Some(path.split('/').next()?.trim_end_matches(".rs"))
    }

    /// The code outside test modules; nothing for a file of tests.
    fn product_code(&self) -> &str {
        let path = self.path.strip_prefix("jepsen/").unwrap_or(&self.path);
        let Some(path) = path.strip_prefix("src/") else { return "" };
        let name = path.rsplit('/').next().unwrap_or_default();
        if ["tests.rs", "model.rs", "schedules.rs"].contains(&name) || path.contains("/tests/") {
            return "";
        }
        self.code.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default()
    }
}

type Rule = (&'static str, fn(&File) -> Vec<String>);

const RULES: &[Rule] = &[
    ("layers", layers),
    ("crates", owned_crates),
    ("seams", forbidden_names),
    ("docs", opening_docs),
    ("lines", file_length),
    ("functions", function_length),
    ("unfinished", unfinished),
    ("reasons", attribute_reasons),
    ("machine", machine_traces),
    ("space", white_space),
];

fn layers(file: &File) -> Vec<String> {
    let Some(module) = file.module() else { return vec![] };
    if module == "lib" {
        return vec![];
    }
    let place = |name: &str| {
        LAYERS
            .iter()
            .find_map(|(rank, modules)| modules.iter().position(|m| *m == name).map(|i| (*rank, i)))
    };
    let Some(here) = place(module) else {
        return vec![format!("module {module} has no layer: add it to LAYERS in tests/tidy.rs")];
    };
    let mut found = vec![];
    for (line, target) in paths_from_crate(&file.code) {
        let Some(there) = place(&target) else { continue };
        let client = module == "client" && there.0 > 0 && target != "client";
        if target != module && (there > here || client) {
            found.push(format!("line {line}: {module} imports crate::{target}, which is above it"));
        }
    }
    found
}

fn owned_crates(file: &File) -> Vec<String> {
    let Some(module) = file.module() else { return vec![] };
    let mut found = vec![];
    for (name, owner) in OWNED_CRATES.iter().filter(|(_, owner)| *owner != module) {
        for line in word_positions(&file.code, name) {
            found.push(format!("line {line}: only {owner} names {name}"));
        }
    }
    found
}

fn forbidden_names(file: &File) -> Vec<String> {
    let module = file.module().unwrap_or_default();
    let mut found = vec![];
    if EDGES.iter().any(|edge| file.path.starts_with(edge)) {
        return found;
    }
    for (modules, names, why) in FORBIDDEN {
        for name in names.iter().filter(|_| modules.contains(&module)) {
            for line in word_positions(file.product_code(), name) {
                found.push(format!("line {line}: {module} names {name}: {why}"));
            }
        }
    }
    found
}

fn opening_docs(file: &File) -> Vec<String> {
    if file.is_rust() && !file.text.starts_with("//! ") {
        return vec!["does not open with //! docs".into()];
    }
    vec![]
}

fn file_length(file: &File) -> Vec<String> {
    let lines = file.text.lines().count();
    if file.is_rust() && lines > LINES_MAX {
        return vec![format!("{lines} lines; at most {LINES_MAX}: split by noun")];
    }
    vec![]
}

/// Counts from `fn` to the brace in the same column: rustfmt makes this exact.
fn function_length(file: &File) -> Vec<String> {
    let mut found = vec![];
    let mut open: Option<(usize, String, String)> = None;
    for (i, line) in file.product_code().lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if let Some((start, name, end)) = &open {
            if line == end {
                let length = i + 1 - start;
                if length > FUNCTION_LINES_MAX {
                    found.push(format!("line {}: fn {name} has {length} lines", start + 1));
                }
                open = None;
            } else if indent + 1 == end.len()
                && line[indent..].starts_with(')')
                && line.ends_with(';')
            {
                open = None; // declared, without a body
            }
        } else if let Some(at) = line.find("fn ")
            && !line.trim_end().ends_with([';', '}'])
            && (at == indent || line[..at].ends_with(' '))
        {
            let name = line[at + 3..].split(['(', '<']).next().unwrap_or_default();
            open = Some((i, name.into(), format!("{}}}", " ".repeat(indent))));
        }
    }
    found
}

fn unfinished(file: &File) -> Vec<String> {
    let mut found = vec![];
    for name in ["todo", "unimplemented", "dbg"] {
        for line in word_positions(&file.code, name) {
            if file.code.lines().nth(line - 1).is_some_and(|l| l.contains(&format!("{name}!"))) {
                found.push(format!("line {line}: {name}!"));
            }
        }
    }
    found
}

fn attribute_reasons(file: &File) -> Vec<String> {
    let mut found = vec![];
    for (at, _) in file.code.match_indices("#") {
        let rest = file.code[at + 1..].trim_start_matches('!');
        if !(rest.starts_with("[allow(") || rest.starts_with("[expect(")) {
            continue;
        }
        let attribute = rest.split(")]").next().unwrap_or_default();
        if !attribute.contains("reason =") {
            let line = file.code[..at].matches('\n').count() + 1;
            found.push(format!("line {line}: an allow or expect without a reason"));
        }
    }
    found
}

/// Absolute paths of a developer's machine, and registries other than crates.io.
fn machine_traces(file: &File) -> Vec<String> {
    let paths = ["wo\u{72}k/", "tmp/w\u{74}/", "ro\u{6f}t/", "hom\u{65}/"].map(|p| format!("/{p}"));
    let mut found = vec![];
    for (i, line) in file.text.lines().enumerate() {
        for path in &paths {
            let starts = |at: usize| {
                at == 0
                    || !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-$}/".contains(c))
            };
            if line.match_indices(path.as_str()).any(|(at, _)| starts(at)) {
                found.push(format!("line {}: an absolute path {path}", i + 1));
            }
        }
        let source = line.strip_prefix("source = \"");
        let crates_io = "registry+https://github.com/rust-lang/crates.io-index";
        if file.path.ends_with("Cargo.lock") && source.is_some_and(|s| !s.starts_with(crates_io)) {
            found.push(format!("line {}: a source other than crates.io", i + 1));
        }
    }
    found
}

fn white_space(file: &File) -> Vec<String> {
    let mut found = vec![];
    for (i, line) in file.text.lines().enumerate() {
        if line.ends_with([' ', '\t']) || line.ends_with('\r') {
            found.push(format!("line {}: white space at the end", i + 1));
        }
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        found.push("does not end with a newline".into());
    }
    found
}

/// Complaints about one file, but for those that it allows itself, with a reason.
fn complaints(file: &File) -> Vec<String> {
    let allowed = |rule: &str| {
        let mark = format!("// tidy: allow {rule}: ");
        file.text.lines().any(|l| l.trim().strip_prefix(&mark).is_some_and(|why| why.len() > 10))
    };
    let broken = RULES.iter().filter(|(name, _)| !allowed(name));
    broken
        .flat_map(|(name, rule)| rule(file).into_iter().map(move |c| format!("{name}: {c}")))
        .collect()
}

fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap()).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let skipped = ["target", ".git", "folkmoot-data", "proptest-regressions", "node_modules"];
        let texts = [
            ".rs", ".toml", ".md", ".proto", ".lock", ".sh", ".yml", ".js", ".css", ".html", ".svg",
        ];
        let script =
            path.components().any(|c| [".ci", "scripts"].map(OsStr::new).contains(&c.as_os_str()));
        if entry.file_type().unwrap().is_dir() {
            if !skipped.contains(&&*name) {
                files_below(&path, found);
            }
        } else if script || texts.iter().any(|end| name.ends_with(end)) {
            found.push(path);
        }
    }
}

#[test]
fn the_repository_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![];
    files_below(root, &mut paths);
    assert!(paths.len() > 30, "found too few files");
    let mut report = String::new();
    for path in paths {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
        let file = File::new(&name, &text);
        for complaint in complaints(&file) {
            writeln!(report, "{name}: {complaint}").unwrap();
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn every_rule_fires_on_a_planted_file() {
    let long = format!("//! Doc.\n{}", "// x\n".repeat(LINES_MAX));
    let function = format!("//! Doc.\nfn f(\n) {{\n{}}}\n", "    x();\n".repeat(70));
    let path = format!("//! See /{}repo.\n", "wo\u{72}k/");
    let planted: &[(&str, &str, &str)] = &[
        ("layers", "src/chat/a.rs", "//! Doc.\nuse crate::store::Base;\n"),
        ("layers", "src/shard/a.rs", "//! Doc.\nuse crate::{chat, delivery::hub};\n"),
        ("layers", "src/id.rs", "//! Doc.\nfn f() { crate::error::g() }\n"),
        ("layers", "src/client/a.rs", "//! Doc.\nuse crate::chat::event;\n"),
        ("layers", "src/delivery/a.rs", "//! Doc.\nuse crate::router::Router;\n"),
        ("layers", "src/novel/a.rs", "//! Doc.\n"),
        ("crates", "src/router/a.rs", "//! Doc.\nuse openraft::Raft;\n"),
        ("crates", "src/shard/a.rs", "//! Doc.\nfn f(db: sled::Db) {}\n"),
        ("crates", "src/node.rs", "//! Doc.\nuse raft_engine::Engine;\n"),
        ("seams", "src/chat/a.rs", "//! Doc.\nuse tokio::sync::Notify;\n"),
        ("seams", "src/delivery/a.rs", "//! Doc.\nfn f() { tokio::spawn(g()); }\n"),
        ("docs", "src/id.rs", "use std::fmt;\n"),
        ("lines", "src/id.rs", &long),
        ("lines", "jepsen/tests/a.rs", &long),
        ("functions", "src/id.rs", &function),
        ("functions", "jepsen/src/check/log.rs", &function),
        ("unfinished", "src/id.rs", "//! Doc.\nfn f() { todo!() }\n"),
        ("unfinished", "tests/a.rs", "//! Doc.\nfn f() { unimplemented!(\"x\") }\n"),
        ("reasons", "src/id.rs", "//! Doc.\n#[allow(dead_code)]\nfn f() {}\n"),
        ("reasons", "src/id.rs", "//! Doc.\n#![expect(\n    dead_code,\n)]\n"),
        ("machine", "README.md", &path),
        ("machine", "Cargo.lock", "source = \"registry+https://example.org/index\"\n"),
        ("space", "docs/a.md", "words \n"),
        ("space", "docs/a.md", "no newline"),
    ];
    for (rule, path, text) in planted {
        let found = complaints(&File::new(path, text));
        let fired = found.len() == 1 && found[0].starts_with(&format!("{rule}: "));
        assert!(fired, "{rule} on {path}: {found:?}\n{text}");
    }
    for (rule, _) in RULES {
        assert!(planted.iter().any(|(name, ..)| name == rule), "{rule} is never shown to fire");
    }
}

#[test]
fn tidy_files_pass() {
    let fine: &[(&str, &str)] = &[
        ("src/delivery/a.rs", "//! Doc of crate::router.\nuse crate::chat;\n// crate::shard\n"),
        ("src/delivery/b.rs", "//! Doc.\nfn f() -> &'static str { \"crate::router openraft\" }\n"),
        ("src/client/a.rs", "//! Doc.\nuse crate::client::retry;\nuse crate::{id, proto};\n"),
        ("src/cli/a.rs", "//! Doc.\nuse crate::node::Node;\nuse crate::client::Client;\n"),
        ("src/router/a.rs", "//! Doc.\nuse crate::delivery::subscription;\n"),
        ("src/id.rs", "//! Doc.\n#[allow(dead_code, reason = \"planted\")]\nfn f() {}\n"),
        (
            "src/shard/a.rs",
            "//! Doc.\n// tidy: allow seams: it is the edge.\nfn f() { tokio::spawn(g) }\n",
        ),
        ("src/id.rs", "//! Doc.\nfn f() -> char { let todo = '\"'; todo }\n"),
        ("docs/a.md", "See /etc/folkmoot, $HOME/work/x and work/.\n"),
    ];
    for (path, text) in fine {
        assert_eq!(complaints(&File::new(path, text)), Vec::<String>::new(), "{path}:\n{text}");
    }
}
