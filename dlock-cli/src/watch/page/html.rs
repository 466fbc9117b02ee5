//! Text in a page.

use std::time::{Duration, SystemTime};

use crate::top::text::{plain, shortened};

/// Keys may be longer than anybody reads.
const LONGEST: usize = 160;

/// Keys, labels and hosts are any text: nothing of it is read as HTML, as an attribute's end or as a control character.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in shortened(&plain(text), LONGEST).chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// `2026-11-28`, in UTC.
pub fn date(at: SystemTime) -> String {
    stamp(at)[..10].to_owned()
}

/// `17:45:10.120`, in UTC.
pub fn time(at: SystemTime) -> String {
    stamp(at)[11..23].to_owned()
}

/// `17:45:10`, in UTC.
pub fn seconds(at: SystemTime) -> String {
    stamp(at)[11..19].to_owned()
}

fn stamp(at: SystemTime) -> String {
    // Years of four digits only.
    let year_9999 = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let at = at.clamp(SystemTime::UNIX_EPOCH, year_9999);
    humantime::format_rfc3339_millis(at).to_string()
}

/// Milliseconds, as positions on the timeline are counted.
pub fn millis(duration: Duration) -> String {
    let tenths = (duration.as_micros() + 50) / 100;
    if tenths.is_multiple_of(10) {
        (tenths / 10).to_string()
    } else {
        format!("{}.{}", tenths / 10, tenths % 10)
    }
}

/// `1 hold`, `2 holds`.
pub fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_key_is_html() {
        let key = "<script>alert('x')</script> & \"quotes\"\n\u{202e}";
        let safe = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;quotes&quot;\\u{a}\\u{202e}";
        assert_eq!(escaped(key), safe);
        assert!(escaped(&"<".repeat(10_000)).len() < 1_000);
    }

    #[test]
    fn times_are_those_of_the_day() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_887_910_120);
        assert_eq!((date(at), time(at)), ("2026-11-28".to_owned(), "17:45:10.120".to_owned()));
        assert_eq!(seconds(at), "17:45:10");
        assert_eq!(millis(Duration::from_micros(12_340)), "12.3");
        assert_eq!(millis(Duration::from_secs(2)), "2000");
    }
}
