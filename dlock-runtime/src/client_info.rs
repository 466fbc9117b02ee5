//! Human-readable information about a lock's client, stored beside the random owner id.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// Characters with a meaning in this format, or in the statement or record that contains it.
const STRUCTURE: &AsciiSet =
    &CONTROLS.add(b' ').add(b'%').add(b',').add(b'|').add(b'"').add(b'\'').add(b'\\');

/// The longest host name and label that are stored, in bytes.
const LONGEST_HOST: usize = 63;
const LONGEST_LABEL: usize = 127;

static HOST: LazyLock<String> =
    LazyLock::new(|| gethostname::gethostname().to_string_lossy().into_owned());

/// A system call to find out, so it is made once.
static PROCESS_ID: LazyLock<u32> = LazyLock::new(std::process::id);

/// The client that holds a lock or waits for it, as shown to operators by
/// [`Registry::inspect`](crate::Registry::inspect).
///
/// It is for information only: no decision depends on it. The process itself reports it, with times
/// from its own clock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ClientInfo {
    host: Cow<'static, str>,
    process_id: u32,
    label: Cow<'static, str>,
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialized::time_of_day"))]
    since: SystemTime,
}

impl ClientInfo {
    /// Describes this process, as of now, with this label.
    #[must_use]
    pub fn new(label: impl Into<Cow<'static, str>>) -> Self {
        Self::since_about(label.into(), SystemTime::now())
    }

    /// Describes this process, as of then.
    pub(crate) fn since_about(label: Cow<'static, str>, since: SystemTime) -> Self {
        Self { host: Cow::Borrowed(&HOST), process_id: *PROCESS_ID, label, since }
    }

    /// Returns the host name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the process id on that host.
    #[must_use]
    pub const fn process_id(&self) -> u32 {
        self.process_id
    }

    /// Returns what the lock is for: the annotated function with its module, or the
    /// [`Lock::label`](crate::Lock::label).
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Returns since when it has held the lock or waited for it. On ZooKeeper and etcd, where a
    /// waiter becomes the holder without another write, a holder shows when it began to wait.
    #[must_use]
    pub const fn since(&self) -> SystemTime {
        self.since
    }

    /// Does it describe this process?
    pub(crate) fn is_this_process(&self) -> bool {
        self.process_id == *PROCESS_ID && self.host == *HOST
    }

    pub(crate) fn set_label(&mut self, label: &'static str) {
        self.label = Cow::Borrowed(label);
    }

    pub(crate) fn restart(&mut self, since: SystemTime) {
        self.since = since;
    }

    /// Encodes it for stores as `host,process id,µs since 1970,label`.
    ///
    /// The text is percent-encoded printable ASCII without spaces, quotes, bars and backslashes, and
    /// at most about 600 bytes long.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write_to(&mut text);
        text
    }

    pub(crate) fn write_to(&self, text: &mut String) {
        let since = self.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        text.extend(utf8_percent_encode(shortened(&self.host, LONGEST_HOST), STRUCTURE));
        // Writing into a `String` does not fail.
        let _ = write!(text, ",{},{},", self.process_id, since.as_micros());
        text.extend(utf8_percent_encode(shortened(&self.label, LONGEST_LABEL), STRUCTURE));
    }

    /// Parses the output of [`to_text`](Self::to_text).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(',').collect();
        let [host, process_id, since, label] = words[..] else { return None };
        let plain = |word| Some(percent_decode_str(word).decode_utf8().ok()?.into_owned());
        let since = Duration::from_micros(since.parse().ok()?);
        Some(Self {
            host: plain(host)?.into(),
            process_id: process_id.parse().ok()?,
            label: plain(label)?.into(),
            since: SystemTime::UNIX_EPOCH.checked_add(since)?,
        })
    }
}

/// `host/process id label`.
impl fmt::Display for ClientInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.host, self.process_id, self.label)
    }
}

fn shortened(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_text_parses_back() {
        let mut client_info = ClientInfo::new("shop::purchase, 100 % 'quoted' | Grüße");
        client_info.since = SystemTime::UNIX_EPOCH + Duration::from_micros(1 << 50);
        let text = client_info.to_text();
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
        assert!(!text.contains(['|', '\'', '"', '\\', ' ']), "{text}");
        assert_eq!(ClientInfo::parse(&text), Some(client_info));
    }

    #[test]
    fn a_long_label_is_cut_between_characters() {
        let client_info = ClientInfo::new("ü".repeat(1_000));
        let read = ClientInfo::parse(&client_info.to_text()).unwrap();
        assert_eq!(read.label, "ü".repeat(LONGEST_LABEL / 2));
        assert!(client_info.to_text().len() < 700);
    }

    #[test]
    fn foreign_text_does_not_parse() {
        for text in ["", "10.0.0.1", "a,b,c,d", "a,1,2", "%FF,1,2,x"] {
            assert_eq!(ClientInfo::parse(text), None, "{text}");
        }
    }
}
