//! What follows the scheme of a URL that lists several servers.

use percent_encoding::percent_decode_str;

/// The parts of `[credentials@]servers[?query]`, as they are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UrlParts<'a> {
    pub(crate) credentials: Option<&'a str>,
    /// The servers, and the path if there is one.
    pub(crate) servers: &'a str,
    pub(crate) query: &'a str,
}

impl<'a> UrlParts<'a> {
    /// Splits what follows `scheme://`.
    pub(crate) fn split(rest: &'a str) -> Self {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (credentials, servers) = match rest.rsplit_once('@') {
            Some((credentials, servers)) => (Some(credentials), servers),
            None => (None, rest),
        };
        Self { credentials, servers, query }
    }
}

/// Checks that servers are written as `host:port,host:port,…`, and returns them.
///
/// # Errors
/// What is wrong, without a part of the URL: it may be a password.
pub(crate) fn checked_hosts(servers: &str) -> Result<String, &'static str> {
    let is_host = |host: &str| {
        host.rsplit_once(':')
            .is_some_and(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok())
    };
    if servers.split(',').all(is_host) {
        Ok(servers.to_owned())
    } else {
        Err("servers must be written as host:port, separated by commas")
    }
}

/// The credentials of a URL are not readable.
pub(crate) const NOT_CREDENTIALS: &str = "credentials must be user:password";

/// Percent-decodes credentials, or a part of them.
///
/// # Errors
/// What is wrong, without the credentials.
pub(crate) fn decoded(credentials: &str) -> Result<String, &'static str> {
    let plain = percent_decode_str(credentials).decode_utf8();
    plain.map(String::from).map_err(|_| "the credentials are not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_into_its_parts() {
        let parts = UrlParts::split("u:p@a:1,b:2/x/y?z=1");
        assert_eq!((parts.credentials, parts.servers), (Some("u:p"), "a:1,b:2/x/y"));
        assert_eq!(parts.query, "z=1");
        let parts = UrlParts::split("a:1");
        assert_eq!((parts.credentials, parts.servers, parts.query), (None, "a:1", ""));
    }

    #[test]
    fn every_server_has_a_host_and_a_port() {
        for servers in ["a:1", "a:1,b:2", "[::1]:2"] {
            assert_eq!(checked_hosts(servers).as_deref(), Ok(servers));
        }
        for servers in ["", "a", ":1", "a:", "a:x", "a:65536", "a:1,", "a:1,b", ",a:1", "a:1/x"] {
            assert!(checked_hosts(servers).is_err(), "{servers}");
        }
    }

    #[test]
    fn credentials_are_percent_decoded() {
        assert_eq!(decoded("u:p%40w").as_deref(), Ok("u:p@w"));
        assert!(decoded("u:%ff").is_err());
    }
}
