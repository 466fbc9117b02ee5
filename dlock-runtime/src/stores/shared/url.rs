//! The options in a URL, after its `?`. `sql/url.rs` checks those of a database URL, which sqlx reads itself.

use crate::error::BackendError;

/// Returns the names and values of the options. Accepts only the `known` names.
///
/// # Errors
/// An option that is unknown, given twice or without a value. The error shows its name but never its value, and not
/// even the name if that may be a part of credentials that were not percent-encoded.
pub(crate) fn options<'a>(
    kind: &str,
    query: &'a str,
    known: &[&str],
) -> Result<Vec<(&'a str, &'a str)>, BackendError> {
    let mut options: Vec<(&str, &str)> = vec![];
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if query.contains('@') || !is_name(name) || !option.contains('=') {
            return Err(refused(format!(
                "the options in a URL of {kind} are written name=value, separated by `&` (in credentials, write `?` as %3F)"
            )));
        }
        if !known.contains(&name) {
            return Err(refused(match known {
                [] => format!("a URL of {kind} has no option `{name}`; it takes no options"),
                known => format!(
                    "a URL of {kind} has no option `{name}`; known options: `{}`",
                    known.join("`, `")
                ),
            }));
        }
        if options.iter().any(|(other, _)| *other == name) {
            return Err(refused(format!("a URL of {kind} has the option `{name}` twice")));
        }
        options.push((name, value));
    }
    Ok(options)
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !name.is_empty() && name.bytes().all(fits)
}

fn refused(problem: String) -> BackendError {
    BackendError::permanent(problem).not_sent()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["limit_ms", "other"];

    fn refusal(query: &str) -> String {
        options("a store", query, KNOWN).unwrap_err().to_string()
    }

    #[test]
    fn known_options_are_read() {
        assert_eq!(options("a store", "", KNOWN).unwrap(), []);
        let both = options("a store", "limit_ms=1&other=a=b", KNOWN).unwrap();
        assert_eq!(both, [("limit_ms", "1"), ("other", "a=b")]);
    }

    #[test]
    fn an_unknown_option_is_reported_without_its_value() {
        for query in ["colour=secret", "limit_ms=1&colour=secret", "colour=secret&limit_ms=1"] {
            let message = refusal(query);
            assert!(message.contains("`colour`") && message.contains("`limit_ms`"), "{message}");
            assert!(!message.contains("secret"), "{message}");
        }
        assert!(refusal("limit_ms=1&limit_ms=2").contains("twice"));
        let none = options("a store", "colour=secret", &[]).unwrap_err().to_string();
        assert!(none.contains("`colour`") && !none.contains("secret"), "{none}");
    }

    #[test]
    fn a_piece_of_a_password_is_never_shown() {
        for query in ["secret", "secret@host:1", "secret=secret@host:1", "=secret", "a secret=1"] {
            assert!(!refusal(query).contains("secret"), "{}", refusal(query));
        }
    }
}
