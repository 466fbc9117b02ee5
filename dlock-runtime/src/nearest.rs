//! Suggestions for misspelt names.

/// The known name closest to `name` by edit distance, if at most one character in three differs. Case is ignored, and
/// `-` equals `_`.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let name = plain(name);
    let candidates = known.iter().map(|known| (distance(&name, &plain(known)), *known));
    let (distance, known) = candidates.min_by_key(|(distance, _)| *distance)?;
    (distance * 3 <= name.len().min(known.len())).then_some(known)
}

/// The edit distance in bytes: insertions, deletions, substitutions and swaps of neighbours.
fn distance(one: &str, other: &str) -> usize {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut before = vec![];
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, byte) in one.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, against) in other.iter().enumerate() {
            let wrong = last[column] + usize::from(byte != against);
            let mut fewest = wrong.min(last[column + 1] + 1).min(next[column] + 1);
            let swapped =
                row > 0 && column > 0 && one[row - 1] == *against && other[column - 1] == *byte;
            if swapped {
                let before: &Vec<usize> = &before;
                fewest = fewest.min(before[column - 1] + 1);
            }
            next.push(fewest);
        }
        before = std::mem::replace(&mut last, next);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_are_distinguished_from_other_names() {
        let known = ["ssl-mode", "ssl-ca", "charset", "password"];
        assert_eq!(nearest("ssl_mode", &known), Some("ssl-mode"));
        assert_eq!(nearest("sslmdoe", &known), Some("ssl-mode"));
        assert_eq!(nearest("pasword", &known), Some("password"));
        assert_eq!(nearest("Charste", &known), Some("charset"));
        assert_eq!(nearest("timeout", &known), None);
        assert_eq!(nearest("", &known), None);
        assert_eq!(distance("abcd", "badc"), 2);
        assert_eq!(distance("", "abc"), 3);
    }
}
