//! Checks of what people write: texts, names, symbols. Used by the verbs.

use crate::chat::command::Rejection;
use crate::limits;

/// Checks what a message or an edit says: something, within the limit, without NUL. Other control
/// characters are the reader's to show or not (formatting codes of IRC, for one).
pub(super) fn text(text: &str) -> Result<(), Rejection> {
    if text.is_empty() {
        return Err(Rejection::InvalidArgument("the text is empty".into()));
    }
    if text.len() > limits::TEXT_BYTES_MAX {
        return Err(Rejection::TooLarge { max: limits::TEXT_BYTES_MAX });
    }
    if text.as_bytes().contains(&0) {
        return Err(Rejection::InvalidArgument("the text contains a NUL character".into()));
    }
    Ok(())
}

/// Checks a title, name, label or symbol: within the limit, on one line. May be empty.
pub(super) fn line(what: &str, line: &str, bytes_max: usize) -> Result<(), Rejection> {
    if line.len() > bytes_max {
        return Err(Rejection::InvalidArgument(format!(
            "the {what} is longer than {bytes_max} bytes"
        )));
    }
    if line.chars().any(char::is_control) {
        return Err(Rejection::InvalidArgument(format!("the {what} has control characters")));
    }
    Ok(())
}
