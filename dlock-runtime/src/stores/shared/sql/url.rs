//! Checks the parameters of a database URL. sqlx ignores an unknown parameter, or logs it with its value: a typo could
//! mean a connection without TLS, or a password in a log.

use percent_encoding::percent_decode_str;

use crate::error::BackendError;
use crate::nearest::nearest;

/// Refuses a URL with an unknown parameter. The error shows the parameter's name, never its value.
pub(crate) fn check_parameters(kind: &str, url: &str, known: &[&str]) -> Result<(), BackendError> {
    let Some((_, parameters)) = url.split_once('?') else { return Ok(()) };
    let parameters = parameters.split_once('#').map_or(parameters, |(parameters, _)| parameters);
    let refuse =
        |problem: String| Err(BackendError::permanent(format!("{kind}: {problem}")).not_sent());
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let name = parameter.split('=').next().unwrap_or_default();
        let name = percent_decode_str(name).decode_utf8_lossy();
        if known.iter().any(|known| matches_name(&name, known)) {
            continue;
        }
        // A `?` in a password turns the rest of the URL into parameters.
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if parameters.contains('@') || name.len() > 32 || !name.bytes().all(is_name) {
            return refuse(
                "the URL has an invalid parameter; write a `?` in its password as `%3F`".to_owned(),
            );
        }
        return refuse(match nearest(&name, known) {
            Some(near) => {
                format!("the URL has an unknown parameter `{name}`; did you mean `{near}`?")
            }
            None => {
                format!(
                    "the URL has an unknown parameter `{name}`; known parameters: {}",
                    known.join(", ")
                )
            }
        });
    }
    Ok(())
}

/// Matches a parameter's name. `options[…]` stands for a family of names.
fn matches_name(name: &str, known: &str) -> bool {
    match known.strip_suffix("[…]") {
        Some(family) => {
            let rest = name.strip_prefix(family).and_then(|rest| rest.strip_prefix('['));
            rest.is_some_and(|rest| rest.ends_with(']'))
        }
        None => name == known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["sslmode", "application_name", "options", "options[…]"];

    #[test]
    fn known_parameters_pass() {
        for url in [
            "postgres://h/d",
            "postgres://h/d?",
            "postgres://h/d?sslmode=require&application_name=a%26b#x",
            "postgres://h/d?options=-c%20a=b&options[search_path]=locks&options%5Ba%5D=b",
        ] {
            check_parameters("postgres", url, KNOWN).unwrap();
        }
    }

    #[test]
    fn a_password_in_the_wrong_place_is_not_repeated() {
        for url in [
            "postgres://u:pa?s3cret@h/d",
            "postgres://u:pa?s3cret=x@h/d?sslmode=require",
            "postgres://h/d?s3cret%20s3cret=1",
            "postgres://h/d?passwd=s3cret",
        ] {
            let message = check_parameters("postgres", url, KNOWN).unwrap_err().to_string();
            assert!(!message.contains("s3cret"), "{message}");
        }
    }
}
