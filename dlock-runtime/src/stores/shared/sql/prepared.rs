//! Statements that are sent so often that the server keeps their plans.
//!
//! They are prepared and executed by statements of their own (`PREPARE`, `EXECUTE`) rather than by the protocol. So the
//! settings that bound a statement go into the same message, and the name of a statement is made from its text: behind
//! a proxy that assigns connections by transaction, a name means the same statement on every connection, or none.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A statement with the parameters `$1` to `$9`.
pub(crate) struct Prepared {
    pub(crate) name: String,
    pub(crate) text: String,
    /// The types of the parameters.
    pub(crate) types: &'static [&'static str],
}

/// A statement and its arguments, which are literals.
pub(crate) struct Call<'a> {
    pub(crate) statement: &'a Prepared,
    pub(crate) arguments: Vec<String>,
}

impl Prepared {
    /// `purpose` is the part of the name for people.
    pub(crate) fn new(purpose: &str, types: &'static [&'static str], text: String) -> Self {
        let [one, two] = [0u8, 1].map(|seed| {
            let mut hasher = DefaultHasher::new();
            (seed, types, &text).hash(&mut hasher);
            hasher.finish()
        });
        Self { name: format!("dlock_{purpose}_{one:016x}{two:016x}"), text, types }
    }

    pub(crate) fn prepare(&self) -> String {
        let Self { name, text, types } = self;
        format!("PREPARE {name}({}) AS {text}", types.join(", "))
    }
}

impl Call<'_> {
    pub(crate) fn execute(&self) -> String {
        format!("EXECUTE {}({})", self.statement.name, self.arguments.join(", "))
    }

    /// The statement with its arguments in it, for connections on which nothing is prepared.
    pub(crate) fn in_one(&self) -> String {
        let Prepared { text, types, .. } = self.statement;
        let mut parts = text.split('$');
        let mut whole = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let digit = part.chars().next().and_then(|digit| digit.to_digit(10));
            let number = digit.and_then(|digit| usize::try_from(digit).ok()?.checked_sub(1));
            let parameter = number.and_then(|at| Some((self.arguments.get(at)?, types.get(at)?)));
            // Writing into a `String` does not fail.
            let _ = match parameter {
                Some((argument, kind)) => write!(whole, "{argument}::{kind}{}", &part[1..]),
                None => write!(whole, "${part}"),
            };
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_can_be_written_in_one() {
        let text = "SELECT $2 FROM t WHERE k = $1 AND o = $2".to_owned();
        let statement = Prepared::new("read", &["text", "int"], text);
        let arguments = vec!["'a $2'".to_owned(), "7".to_owned()];
        let call = Call { statement: &statement, arguments };
        assert_eq!(call.in_one(), "SELECT 7::int FROM t WHERE k = 'a $2'::text AND o = 7::int");
        assert!(call.execute().ends_with("('a $2', 7)"), "{}", call.execute());
    }

    #[test]
    fn a_name_means_one_statement() {
        let name = |text: &str| Prepared::new("read", &[], text.to_owned()).name;
        assert_eq!(name("SELECT 1"), name("SELECT 1"));
        assert_ne!(name("SELECT 1"), name("SELECT 2"));
        // PostgreSQL cuts off longer names.
        assert!(name("SELECT 1").len() < 63);
    }
}
