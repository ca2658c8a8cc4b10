//! How each type of setting is written: in TOML, in the environment and in flags.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A type that a setting can have.
pub trait Setting: Sized {
    /// Reads it as people write it in the environment and in flags.
    ///
    /// # Errors
    /// What was expected.
    fn parse(text: &str) -> Result<Self, String>;

    /// Reads it from TOML; a string stands for itself.
    ///
    /// # Errors
    /// What was expected.
    fn from_toml(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => Self::parse(&text),
            other => Err(format!("expected a string, not {other}")),
        }
    }

    /// Writes it as a TOML value.
    fn to_toml(&self) -> String;
}

fn quoted(text: impl fmt::Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

impl Setting for String {
    fn parse(text: &str) -> Result<String, String> {
        Ok(text.to_string())
    }
    fn to_toml(&self) -> String {
        quoted(self)
    }
}

impl Setting for PathBuf {
    fn parse(text: &str) -> Result<PathBuf, String> {
        if text.is_empty() { Err("expected a path".into()) } else { Ok(text.into()) }
    }
    fn to_toml(&self) -> String {
        quoted(self.display())
    }
}

impl Setting for SocketAddr {
    fn parse(text: &str) -> Result<SocketAddr, String> {
        text.parse().map_err(|_| {
            format!("expected an IP address and a port, like \"127.0.0.1:7400\", not {text:?}")
        })
    }
    fn to_toml(&self) -> String {
        quoted(self)
    }
}

impl Setting for Duration {
    fn parse(text: &str) -> Result<Duration, String> {
        humantime::parse_duration(text)
            .map_err(|_| format!("expected a duration, like \"150ms\" or \"3s\", not {text:?}"))
    }
    fn to_toml(&self) -> String {
        quoted(humantime::format_duration(*self))
    }
}

/// A number of bytes, written like `64MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Longest name first, so that "MiB" is not taken for "B".
const UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

impl Size {
    /// The number of bytes as `usize`.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Size {
    /// Exact: the largest binary unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = UNITS.iter().filter(|(name, _)| name.contains('i') || *name == "B");
        for (name, bytes) in binary {
            if self.0.is_multiple_of(*bytes) && self.0 >= *bytes || *name == "B" {
                return write!(f, "{}{name}", self.0 / bytes);
            }
        }
        Ok(())
    }
}

impl Setting for Size {
    fn parse(text: &str) -> Result<Size, String> {
        let expected = || format!("expected a size, like \"64MiB\" or \"4096\", not {text:?}");
        let text = text.trim();
        let unit = UNITS.iter().find(|(name, _)| text.ends_with(name));
        let (number, bytes) = unit.map_or((text, 1), |(name, bytes)| {
            (text.strip_suffix(name).unwrap_or(text).trim_end(), *bytes)
        });
        let whole = number.bytes().all(|b| b.is_ascii_digit());
        let number: u64 = number.parse().ok().filter(|_| whole).ok_or_else(expected)?;
        number.checked_mul(bytes).map(Size).ok_or_else(expected)
    }
    fn from_toml(value: toml::Value) -> Result<Size, String> {
        match value {
            toml::Value::String(text) => Size::parse(&text),
            toml::Value::Integer(n) => Size::parse(&n.to_string()),
            other => Err(format!("expected a size, like \"64MiB\", not {other}")),
        }
    }
    fn to_toml(&self) -> String {
        quoted(self)
    }
}

impl Setting for usize {
    fn parse(text: &str) -> Result<usize, String> {
        text.parse().map_err(|_| format!("expected a whole number, not {text:?}"))
    }
    fn from_toml(value: toml::Value) -> Result<usize, String> {
        match value {
            toml::Value::Integer(n) => usize::parse(&n.to_string()),
            other => Err(format!("expected a whole number, not {other}")),
        }
    }
    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl Setting for bool {
    fn parse(text: &str) -> Result<bool, String> {
        text.parse().map_err(|_| format!("expected true or false, not {text:?}"))
    }
    fn from_toml(value: toml::Value) -> Result<bool, String> {
        match value {
            toml::Value::Boolean(value) => Ok(value),
            other => Err(format!("expected true or false, not {other}")),
        }
    }
    fn to_toml(&self) -> String {
        self.to_string()
    }
}

/// `""` stands for `None`.
impl Setting for Option<String> {
    fn parse(text: &str) -> Result<Option<String>, String> {
        Ok((!text.is_empty()).then(|| text.to_string()))
    }
    fn to_toml(&self) -> String {
        quoted(self.as_deref().unwrap_or(""))
    }
}

/// Separated by commas in the environment and in flags.
impl Setting for Vec<String> {
    fn parse(text: &str) -> Result<Vec<String>, String> {
        Ok(text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(String::from).collect())
    }
    fn from_toml(value: toml::Value) -> Result<Vec<String>, String> {
        let expected = |got| format!("expected a list of strings, not {got}");
        let toml::Value::Array(items) = value else { return Err(expected(value)) };
        let string = |item| match item {
            toml::Value::String(text) => Ok(text),
            other => Err(expected(other)),
        };
        items.into_iter().map(string).collect()
    }
    fn to_toml(&self) -> String {
        let items: Vec<String> = self.iter().map(quoted).collect();
        format!("[{}]", items.join(", "))
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Setting for LogFormat {
    fn parse(text: &str) -> Result<LogFormat, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("expected \"text\" or \"json\", not {text:?}")),
        }
    }
    fn to_toml(&self) -> String {
        quoted(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

/// Who may make an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Nobody.
    Closed,
    /// Whoever has an invite.
    Invite,
    /// Everybody.
    Open,
}

impl Setting for Registration {
    fn parse(text: &str) -> Result<Registration, String> {
        match text {
            "closed" => Ok(Registration::Closed),
            "invite" => Ok(Registration::Invite),
            "open" => Ok(Registration::Open),
            _ => Err(format!("expected \"closed\", \"invite\" or \"open\", not {text:?}")),
        }
    }
    fn to_toml(&self) -> String {
        quoted(match self {
            Registration::Closed => "closed",
            Registration::Invite => "invite",
            Registration::Open => "open",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What is read back of a setting in a configuration file.
    fn reread<T: Setting>(setting: &T) -> Result<T, String> {
        let text = format!("x = {}", setting.to_toml());
        let mut table: toml::Table = toml::from_str(&text).map_err(|error| error.to_string())?;
        T::from_toml(table.remove("x").ok_or("no value")?)
    }

    fn sizes() -> impl Strategy<Value = Size> {
        let unit = proptest::sample::select(UNITS).prop_map(|(_, bytes)| bytes);
        prop_oneof![any::<u64>(), (0..5000u64, unit).prop_map(|(n, unit)| n * unit)].prop_map(Size)
    }

    fn durations() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (0..100_000u64).prop_map(Duration::from_millis),
            any::<u64>().prop_map(Duration::from_nanos),
            (any::<u64>(), 0..1_000_000_000u32).prop_map(|(s, nanos)| Duration::new(s, nanos)),
        ]
    }

    proptest! {
        #[test]
        fn sizes_and_durations_round_trip(size in sizes(), duration in durations()) {
            prop_assert_eq!(Size::parse(&size.to_string()), Ok(size));
            prop_assert_eq!(reread(&size), Ok(size));
            let text = humantime::format_duration(duration).to_string();
            prop_assert_eq!(Duration::parse(&text), Ok(duration));
            prop_assert_eq!(reread(&duration), Ok(duration));
        }

        #[test]
        fn other_settings_round_trip(
            text in any::<String>(), texts in vec(any::<String>(), 0..4),
            number in 0..=i64::MAX as usize, truth in any::<bool>(), address in any::<(std::net::IpAddr, u16)>(),
        ) {
            prop_assert_eq!(reread(&text), Ok(text.clone()));
            prop_assert_eq!(reread(&texts), Ok(texts));
            prop_assert_eq!(reread(&number), Ok(number));
            prop_assert_eq!(reread(&truth), Ok(truth));
            let address = SocketAddr::from(address);
            prop_assert_eq!(reread(&address), Ok(address));
            let optional = Some(text.clone()).filter(|text| !text.is_empty());
            prop_assert_eq!(reread(&optional), Ok(optional));
            if !text.is_empty() {
                prop_assert_eq!(reread(&PathBuf::from(&text)), Ok(PathBuf::from(text)));
            }
        }

        #[test]
        fn arbitrary_text_gives_an_error_or_a_setting(
            text in prop_oneof![
                any::<String>(), "[0-9]{1,25} ?[kKMGT]?i?B?", "([0-9]{1,20} ?[a-zµ]{1,3} ?){1,3}",
            ],
        ) {
            if let Ok(size) = Size::parse(&text) {
                prop_assert_eq!(Size::parse(&size.to_string()), Ok(size));
            }
            if let Ok(duration) = Duration::parse(&text) {
                prop_assert_eq!(reread(&duration), Ok(duration));
            }
            let _ = (SocketAddr::parse(&text), usize::parse(&text), LogFormat::parse(&text));
            let _ = (PathBuf::parse(&text), Vec::<String>::parse(&text));
        }
    }

    #[test]
    fn sizes_are_read_and_written_exactly() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("4KiB", 4096),
            ("64 MiB", 64 << 20),
            ("10GiB", 10 << 30),
            ("1TiB", 1 << 40),
            ("2kB", 2000),
            ("3MB", 3_000_000),
        ] {
            assert_eq!(Size::parse(text), Ok(Size(bytes)), "{text}");
            assert_eq!(Size::parse(&Size(bytes).to_string()), Ok(Size(bytes)), "{text}");
        }
        assert_eq!(Size(64 << 20).to_string(), "64MiB");
        for bad in ["", "MiB", "-1", "+1", "1.5MiB", "1mib", "1 M", "99999999TiB"] {
            assert!(Size::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn registration_is_one_of_three() {
        for some in [Registration::Closed, Registration::Invite, Registration::Open] {
            assert_eq!(reread(&some), Ok(some));
        }
        assert!(Registration::parse("opne").is_err());
    }

    #[test]
    fn durations_are_as_people_write_them() {
        assert_eq!(Duration::parse("150ms"), Ok(Duration::from_millis(150)));
        assert_eq!(Duration::from_secs(90).to_toml(), "\"1m 30s\"");
        assert!(Duration::parse("150").is_err());
    }
}
