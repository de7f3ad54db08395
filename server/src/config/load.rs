//! From TOML to [`Config`], with errors that name the place, and the key that was probably meant.

use anyhow::anyhow;

use super::Config;

/// Parses a configuration file.
pub(crate) fn parse(text: &str) -> anyhow::Result<Config> {
    let document =
        toml::Deserializer::parse(text).map_err(|error| anyhow!("{}", error.to_string().trim_end()))?;
    serde_path_to_error::deserialize(document).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        let line = inner.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        anyhow!("{place}{}", explain(&path, inner.message()))
    })
}

/// What is wrong at a path. For an unknown key serde lists the known ones; the nearest of them is suggested.
fn explain(path: &str, message: &str) -> String {
    let Some(rest) =
        message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `"))
    else {
        return format!("{path}: {message}");
    };
    let what = if message.starts_with("unknown field") { "key" } else { "value" };
    let mut quoted = rest.split('`');
    let given = quoted.next().unwrap_or_default();
    // What stands between backquotes after the given one: every second piece.
    let known = quoted.skip(1).step_by(2);
    let nearest = known
        .map(|known| (strsim::damerau_levenshtein(given, known), known))
        .filter(|(distance, known)| *distance <= known.chars().count().div_ceil(2))
        .min();
    // The path of an unknown key ends with that key already.
    let place = if path.rsplit('.').next() == Some(given) || path == "." || path.is_empty() {
        path.trim_matches('.').to_owned()
    } else {
        format!("{path}.{given}")
    };
    let place = match what {
        "key" => place,
        _ => format!("{path} = {given:?}"),
    };
    let place = if place.is_empty() { given.to_owned() } else { place };
    match nearest {
        Some((_, nearest)) => format!("unknown {what} {place}, did you mean {nearest}?"),
        None => format!("unknown {what} {place}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(parse(text).unwrap_err().to_string(), expected);
    }

    #[test]
    fn nothing_is_the_default() {
        assert_eq!(parse("").unwrap(), Config::default());
        let text = toml::to_string(&Config::default()).unwrap();
        assert_eq!(parse(&text).unwrap(), Config::default());
    }

    #[test]
    fn unknown_keys_are_named_with_the_nearest() {
        refused("hostnam = \"x\"", "line 1: unknown key hostnam, did you mean hostname?");
        refused(
            "hostname = \"x\"\n[directory.throttle_network]\nfailure_burst = 1\nrefill_seconds = 1\n",
            "line 3: unknown key directory.throttle_network.failure_burst, did you mean failures_burst?",
        );
        refused("[directory]\nxyzzy = 1", "line 2: unknown key directory.xyzzy");
        refused("[log]\nformat = \"jso\"", "line 2: unknown value log.format = \"jso\", did you mean json?");
    }

    #[test]
    fn wrong_values_are_named() {
        refused(
            "shutdown_seconds = \"long\"",
            "line 1: shutdown_seconds: invalid type: string \"long\", expected u64",
        );
        let error = parse("a = [").unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
    }
}
