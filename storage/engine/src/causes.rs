//! Errors for one line of a log.

use std::error::Error;

/// An error with all its causes, in one line.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::OpenError;
    use crate::error::EngineError;

    #[test]
    fn each_cause_is_told_once_and_the_innermost_last() {
        let error = OpenError::Engine(EngineError::unavailable("cut"));
        let source = Error::source(&error).expect("it has a cause").to_string();
        assert_eq!(with_causes(&error), format!("storage engine failed: {source}"));
        assert_eq!(with_causes(&OpenError::Missing), "no such log");
    }
}
