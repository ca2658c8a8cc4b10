//! A configuration file: TOML of which every setting is known by its line, so that whatever is
//! wrong with it can be pointed at.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::config::{Config, oidc};

/// From which likeness on (Jaro and Winkler's, 0 to 1) a name is taken for another, misspelt.
const LIKENESS_MIN: f64 = 0.8;

/// Something that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// From 1; `None` where no line is to blame.
    pub line: Option<usize>,
    /// What is wrong, and the fix.
    pub text: String,
}

impl Problem {
    /// As editors and compilers write it.
    pub fn in_file(&self, path: &Path) -> String {
        match self.line {
            Some(line) => format!("{}:{line}: {}", path.display(), self.text),
            None => format!("{}: {}", path.display(), self.text),
        }
    }
}

/// The line of each setting that a file has, by `section.field`.
#[derive(Debug, Default)]
pub(super) struct Lines(BTreeMap<String, usize>);

impl Lines {
    /// Takes note that a setting comes from elsewhere after all.
    pub fn forget(&mut self, section: &str, field: &str) {
        self.0.remove(&format!("{section}.{field}"));
    }

    /// Says where the first setting stands that a problem names.
    pub fn blame(&self, text: String) -> Problem {
        let named = self.0.iter().filter_map(|(name, line)| Some((position(&text, name)?, *line)));
        Problem { line: named.min().map(|(_, line)| line), text }
    }
}

/// Where a text has a whole word.
fn position(text: &str, word: &str) -> Option<usize> {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    text.match_indices(word).map(|(at, _)| at).find(|at| {
        let before = text[..*at].chars().next_back();
        // A name may end a sentence.
        let after = text[at + word.len()..].chars().next().filter(|c| *c != '.');
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}

/// Takes a file's settings over into `config`.
///
/// # Errors
/// What is wrong: all of it, but for what follows a break of TOML's own rules.
pub(super) fn read(text: &str, config: &mut Config) -> Result<Lines, Vec<Problem>> {
    let reader = &mut Reader { text, config, lines: Lines::default(), problems: Vec::new() };
    match DeTable::parse(text) {
        Ok(root) => root.get_ref().iter().for_each(|(name, value)| reader.section(name, value)),
        Err(error) => {
            let line = error.span().map(|span| line(text, span.start));
            reader.problems.push(Problem { line, text: format!("not TOML: {}", error.message()) });
        }
    }
    if reader.problems.is_empty() {
        return Ok(std::mem::take(&mut reader.lines));
    }
    reader.problems.sort_by_key(|problem| problem.line);
    Err(std::mem::take(&mut reader.problems))
}

struct Reader<'a> {
    text: &'a str,
    config: &'a mut Config,
    lines: Lines,
    problems: Vec<Problem>,
}

type Name<'a> = Spanned<std::borrow::Cow<'a, str>>;

impl Reader<'_> {
    fn refuse(&mut self, at: usize, text: String) {
        self.problems.push(Problem { line: Some(line(self.text, at)), text });
    }

    fn section(&mut self, name: &Name<'_>, value: &Spanned<DeValue<'_>>) {
        let (section, at) = (name.get_ref().as_ref(), name.span().start);
        if section == oidc::SECTION {
            return self.providers(at, value);
        }
        let Some((_, fields)) = Config::TABLE.iter().find(|(known, _)| *known == section) else {
            let sections: Vec<&str> = Config::TABLE.iter().map(|(known, _)| *known).collect();
            let fix = match (sections_with(section), nearest(section, &sections)) {
                (Some(owner), _) => format!("it belongs below [{owner}]"),
                (None, Some(known)) => format!("do you mean [{known}]?"),
                (None, None) => format!("there are {}", sections.join(", ")),
            };
            return self.refuse(at, format!("there is no section {section}: {fix}"));
        };
        let DeValue::Table(table) = value.get_ref() else {
            let text = format!("{section} is a section: write [{section}], and its settings below");
            return self.refuse(at, text);
        };
        for (name, value) in table.iter() {
            let (field, at) = (name.get_ref().as_ref(), name.span().start);
            if !fields.contains(&field) {
                let fix = match (nearest(field, fields), sections_with(field)) {
                    (_, Some(owner)) => format!("it belongs below [{owner}]"),
                    (Some(known), None) => format!("do you mean {known}?"),
                    (None, None) => format!("there are {}", fields.join(", ")),
                };
                self.refuse(at, format!("there is no setting {section}.{field}: {fix}"));
                continue;
            }
            self.lines.0.insert(format!("{section}.{field}"), line(self.text, at));
            let value = toml::Value::deserialize(ValueDeserializer::from(value.clone()));
            let set = value
                .map_err(|error| error.message().to_owned())
                .and_then(|value| self.config.set_toml(section, field, value).unwrap_or(Ok(())));
            if let Err(why) = set {
                self.refuse(at, format!("{section}.{field}: {why}"));
            }
        }
    }
}

/// The sections `[oidc.<name>]`.
impl Reader<'_> {
    fn providers(&mut self, at: usize, value: &Spanned<DeValue<'_>>) {
        let DeValue::Table(table) = value.get_ref() else {
            let text = "oidc has a section for each provider: write [oidc.<name>]".to_owned();
            return self.refuse(at, text);
        };
        for (name, value) in table.iter() {
            let (provider, at) = (name.get_ref().as_ref(), name.span().start);
            let DeValue::Table(table) = value.get_ref() else {
                let text = format!("oidc.{provider}: write [oidc.<name>], and its settings below");
                self.refuse(at, text);
                continue;
            };
            if let Err(why) = oidc::check_name(provider) {
                self.refuse(at, format!("oidc.{provider}: {why}"));
                continue;
            }
            self.config.oidc.entry(provider.to_owned()).or_default();
            table.iter().for_each(|(name, value)| self.of_provider(provider, name, value));
        }
    }

    fn of_provider(&mut self, provider: &str, name: &Name<'_>, value: &Spanned<DeValue<'_>>) {
        let (field, at) = (name.get_ref().as_ref(), name.span().start);
        let known = oidc::Provider::FIELDS;
        let full = format!("oidc.{provider}.{field}");
        if !known.contains(&field) {
            let fix = match nearest(field, known) {
                Some(known) => format!("do you mean {known}?"),
                None => format!("there are {}", known.join(", ")),
            };
            return self.refuse(at, format!("there is no setting {full}: {fix}"));
        }
        self.lines.0.insert(full.clone(), line(self.text, at));
        let value = toml::Value::deserialize(ValueDeserializer::from(value.clone()));
        let set = value.map_err(|error| error.message().to_owned()).and_then(|value| {
            let settings = self.config.oidc.entry(provider.to_owned()).or_default();
            settings.set_toml(field, value).unwrap_or(Ok(()))
        });
        if let Err(why) = set {
            self.refuse(at, format!("{full}: {why}"));
        }
    }
}

/// The section that has a setting of this name, if just one has.
fn sections_with(field: &str) -> Option<&'static str> {
    let mut owners = Config::TABLE.iter().filter(|(_, fields)| fields.contains(&field));
    let (owner, _) = owners.next()?;
    owners.next().is_none().then_some(*owner)
}

/// The name that another one was most likely meant to be.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |known: &&str| strsim::jaro_winkler(name, known);
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) >= LIKENESS_MIN).then_some(*best)
}

/// The line, from 1, of a byte.
fn line(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(usize, String)> {
        let problems = read(text, &mut Config::default()).err().unwrap_or_default();
        problems.into_iter().map(|problem| (problem.line.unwrap_or(0), problem.text)).collect()
    }

    #[test]
    fn every_problem_is_found_with_its_line_and_the_fix() {
        let text = "cache = 1\n\
                    sled_cache = \"1MiB\"\n\
                    [rafts]\n\
                    [raft]\n\
                    heartbeat = \"1s\"\n\
                    ballast = \"64MiB\"\n\
                    election_timeout_min = \"soon\"\n\
                    colour = \"red\"\n\
                    [limits]\n\
                    sessions_max = \"many\"\n";
        let found = problems(text);
        let expected = [
            (1, "there is no section cache: there are node, limits, accounts, raft, placement,"),
            (2, "there is no section sled_cache: it belongs below [store]"),
            (3, "there is no section rafts: do you mean [raft]?"),
            (5, "there is no setting raft.heartbeat: do you mean heartbeat_interval?"),
            (6, "there is no setting raft.ballast: it belongs below [store]"),
            (7, "raft.election_timeout_min: expected a duration"),
            (8, "there is no setting raft.colour: there are heartbeat_interval"),
            (10, "limits.sessions_max: expected a whole number"),
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for ((line, said), (expected_line, expected)) in found.iter().zip(expected) {
            assert_eq!(*line, expected_line, "{said}");
            assert!(said.starts_with(expected), "{said}\n{expected}");
        }
    }

    #[test]
    fn what_is_no_toml_has_a_line_too() {
        for (text, at) in [("\n[node\n", 2), ("[raft]\n\nx = = 1\n", 3), ("[log]\n[log]\n", 2)] {
            let found = problems(text);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].0, at, "{found:?}");
        }
        assert_eq!(problems("raft = 3\n").len(), 1);
        assert_eq!(problems("[[raft]]\n").len(), 1);
        assert_eq!(problems("raft.heartbeat_interval = \"90ms\"\n"), []);
    }

    #[test]
    fn a_problem_is_blamed_on_the_first_setting_it_names_that_is_there() {
        let text = "[raft]\nelection_timeout_max = \"6s\"\nelection_timeout_min = \"5s\"\n";
        let mut lines = read(text, &mut Config::default()).unwrap();
        let blamed = |lines: &Lines, text: &str| lines.blame(text.into()).line;
        assert_eq!(blamed(&lines, "a: twice raft.election_timeout_max."), Some(2));
        assert_eq!(
            blamed(&lines, "raft.election_timeout_min: under raft.election_timeout_max"),
            Some(3)
        );
        assert_eq!(blamed(&lines, "raft.election_timeout_max_of_all: x"), None);
        lines.forget("raft", "election_timeout_max");
        assert_eq!(blamed(&lines, "a: twice raft.election_timeout_max."), None);
    }
}
