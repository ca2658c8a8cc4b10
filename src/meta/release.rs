//! Which releases may be in one cluster: those of one series, or of neighbouring ones.
//!
//! A rolling upgrade goes through one series after another, `0.3` to `0.4`, or `2` to `3` from `1.0`
//! on (Semantic Versioning 2.0.0, sections 4 and 8); nodes of both work together meanwhile. Only
//! newer releases can have a newer format, so a node that is two series away is refused.

use crate::chat::command::Rejection;
use crate::meta::ClusterMap;

/// A series of releases that work together: `(0, minor)` or `(major, 0)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Series(u64, u64);

impl Series {
    /// Of a version such as `0.3.1` or `1.2.0-rc.1`; `None` when it is none.
    fn of(version: &str) -> Option<Series> {
        let mut numbers = version.split('.').map(str::parse::<u64>);
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(if major == 0 { Series(0, minor) } else { Series(major, 0) })
    }

    /// Whether one is the other's next, or they are the same. `0` has no last series, so `1` is taken
    /// for the next of each.
    fn works_with(self, other: Series) -> bool {
        let (low, high) = (self.min(other), self.max(other));
        if low.0 == high.0 { high.1 - low.1 <= 1 } else { high.0 - low.0 == 1 }
    }
}

/// Whether a node of one release may be of a cluster that another one is of. One that does not say
/// what it is may.
pub fn work_together(a: &str, b: &str) -> bool {
    match (Series::of(a), Series::of(b)) {
        (Some(a), Some(b)) => a.works_with(b),
        _ => true,
    }
}

impl ClusterMap {
    /// Whether a node of this release may be of the cluster, beside all others. A node that did not
    /// say what it is passes, and so does everybody else beside it.
    ///
    /// # Errors
    /// Which other node it does not work with, and what to do.
    pub(super) fn check_release(&self, id: u64, version: &str) -> Result<(), Rejection> {
        if version.is_empty() {
            return Ok(());
        }
        let Some(series) = Series::of(version) else {
            return Err(Rejection::InvalidArgument(format!("{version:?} is no version")));
        };
        let others = self.0.nodes.iter().filter(|node| node.id != id);
        for other in others {
            let Some(theirs) = Series::of(&other.version) else { continue };
            if !series.works_with(theirs) {
                let (how, what) = if series < theirs {
                    ("old", "start a newer release of folkmoot there")
                } else {
                    ("new", "upgrade the other nodes first, one series of releases after another")
                };
                return Err(Rejection::Forbidden(format!(
                    "release {version} is too {how}, for node {} runs {}: {what}",
                    other.id, other.version
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_work_together() {
        for (a, b, works) in [
            ("0.1.0", "0.1.9", true),
            ("0.1.0", "0.2.0", true),
            ("0.1.0", "0.3.0", false),
            ("0.9.0", "1.0.0", true),
            ("1.0.0", "1.7.2", true),
            ("1.9.0", "2.0.0-rc.1", true),
            ("1.0.0", "3.0.0", false),
            ("0.9.0", "2.0.0", false),
        ] {
            let series = [a, b].map(|version| Series::of(version).unwrap());
            assert_eq!(series[0].works_with(series[1]), works, "{a} {b}");
            assert_eq!(series[1].works_with(series[0]), works, "{b} {a}");
        }
        for bad in ["", "1", "x.1", "1.x", "-1.0", "99999999999999999999.0"] {
            assert_eq!(Series::of(bad), None, "{bad}");
        }
    }
}
