//! URLs: the scheme and options of every form, and the nodes of the forms that name several.

use redis::{Client, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

use crate::error::BackendError;

/// A parsed URL: `scheme://[user:password@]host:port[,…][/path][?name=value&…]`.
#[derive(Debug)]
pub(in crate::stores) struct Address {
    pub(in crate::stores) scheme: Scheme,
    pub(in crate::stores) nodes: Vec<ConnectionInfo>,
    /// What follows the nodes, without the slash.
    pub(in crate::stores) path: String,
    pub(in crate::stores) options: Options,
}

/// The options after the question mark. Those that no form takes are unknown, and refused.
#[derive(Debug)]
pub(in crate::stores) struct Options(Vec<(String, String)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stores) struct Scheme {
    pub(in crate::stores) form: Form,
    pub(in crate::stores) tls: bool,
}

/// The form in which Redis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stores) enum Form {
    Server,
    Cluster,
    Sentinel,
    /// Independent servers: Redlock.
    Quorum,
}

const SCHEMES: [(&str, Form, bool); 8] = [
    ("redis", Form::Server, false),
    ("rediss", Form::Server, true),
    ("redis+cluster", Form::Cluster, false),
    ("rediss+cluster", Form::Cluster, true),
    ("redis+sentinel", Form::Sentinel, false),
    ("rediss+sentinel", Form::Sentinel, true),
    ("redlock", Form::Quorum, false),
    ("redlocks", Form::Quorum, true),
];

impl Address {
    /// Reads a URL with several nodes. The `redis` crate reads URLs that name one server.
    pub(in crate::stores) fn parse(url: &str) -> Result<Self, BackendError> {
        let (scheme, rest) = split_scheme(url)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (nodes, path) = rest.split_once('/').unwrap_or((rest, ""));
        let nodes = nodes.split(',').map(|node| connection(node, scheme.tls));
        let mut nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        share_credentials(&mut nodes);
        Ok(Self { scheme, nodes, path: path.to_owned(), options: Options::read(query) })
    }

    /// Selects the database with this number, if any, on every node.
    pub(in crate::stores) fn select_database(&mut self, number: &str) -> Result<(), BackendError> {
        if number.is_empty() {
            return Ok(());
        }
        let problem = "the path must be the number of a database";
        let number = number.parse().map_err(|_| unreadable(problem))?;
        for node in &mut self.nodes {
            let settings = node.redis_settings().clone().set_db(number);
            *node = node.clone().set_redis_settings(settings);
        }
        Ok(())
    }
}

impl Options {
    fn read(query: &str) -> Self {
        let options = query.split('&').filter(|option| !option.is_empty());
        let options = options.map(|option| {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            (name.to_owned(), value.to_owned())
        });
        Self(options.collect())
    }

    /// Removes an option and returns its value.
    pub(in crate::stores) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }

    /// Refuses options that nobody has taken. The error shows no value, which may be a secret.
    pub(in crate::stores) fn nothing_left(&self, known: &str) -> Result<(), BackendError> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                let problem = format!("a redis URL has no option `{name}`; known options: {known}");
                Err(BackendError::permanent(problem).not_sent())
            }
        }
    }
}

/// Reads the options of a URL that names one server.
pub(in crate::stores) fn options(url: &str) -> Options {
    let url = url.split_once('#').map_or(url, |(url, _)| url);
    Options::read(url.split_once('?').map_or("", |(_, query)| query))
}

/// Splits a URL into its scheme, which must be a known one, and the rest.
pub(in crate::stores) fn split_scheme(url: &str) -> Result<(Scheme, &str), BackendError> {
    let (name, rest) = url.split_once("://").unwrap_or(("", url));
    let known = SCHEMES.iter().find(|(known, ..)| *known == name);
    let problem = "it must begin with redis://, redis+cluster://, redis+sentinel:// or redlock://";
    let (_, form, tls) = known.ok_or_else(|| unreadable(problem))?;
    Ok((Scheme { form: *form, tls: *tls }, rest))
}

fn connection(node: &str, tls: bool) -> Result<ConnectionInfo, BackendError> {
    // A port is easily forgotten. The `redis` crate would silently use the default, which is right
    // for a server but wrong for a Sentinel.
    let host = node.rsplit_once('@').map_or(node, |(_, host)| host);
    if host.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        return Err(unreadable("write every node as host:port, separated by commas"));
    }
    let url = format!("{}://{node}", if tls { "rediss" } else { "redis" });
    url.into_connection_info().map_err(|error| unreadable(&error.to_string()))
}

/// Applies the credentials of the first node to nodes without any.
fn share_credentials(nodes: &mut [ConnectionInfo]) {
    let Some(first) = nodes.first().map(|node| node.redis_settings().clone()) else { return };
    let has_none = |settings: &RedisConnectionInfo| settings.password().is_none();
    for node in nodes {
        if has_none(node.redis_settings()) {
            *node = node.clone().set_redis_settings(first.clone());
        }
    }
}

pub(in crate::stores) fn unreadable(problem: &str) -> BackendError {
    BackendError::permanent(format!(
        "not a redis URL (redis://user:password@host:port/db, redis+cluster://host:port,host:port, redis+sentinel://host:port,host:port/master-name, redlock://host:port,host:port,host:port): {problem}"
    ))
    .not_sent()
}

/// The hosts and ports, for messages.
pub(in crate::stores) fn shown(nodes: &[ConnectionInfo]) -> String {
    let hosts: Vec<_> = nodes.iter().map(|node| node.addr().to_string()).collect();
    hosts.join(",")
}

pub(in crate::stores) fn client(node: &ConnectionInfo) -> Result<Client, BackendError> {
    Client::open(node.clone()).map_err(|error| unreadable(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_nodes_are_read_with_their_credentials() {
        let url = "redis+sentinel://u:p%2Fw@a:1,b:2/main?replicas=2";
        let mut address = Address::parse(url).unwrap();
        assert_eq!(address.scheme, Scheme { form: Form::Sentinel, tls: false });
        assert_eq!(shown(&address.nodes), "a:1,b:2");
        let passwords = address.nodes.iter().map(|node| node.redis_settings().password());
        assert!(passwords.eq([Some("p/w"), Some("p/w")]));
        assert_eq!(address.path, "main");
        assert_eq!(address.options.take("replicas").as_deref(), Some("2"));
        address.options.nothing_left("").unwrap();
    }

    #[test]
    fn mistakes_are_reported_without_the_password() {
        for url in [
            "redis+cluster://:secret@a:1,b",
            "redis+cluster://:secret@a:x",
            "redis+other://:secret@a:1",
            "redis+cluster://:secret@",
        ] {
            let message = Address::parse(url).unwrap_err().to_string();
            assert!(!message.contains("secret"), "{message}");
        }
        let address = Address::parse("redis+cluster://a:1?colour=red").unwrap();
        assert!(
            address.options.nothing_left("replicas").unwrap_err().to_string().contains("`colour`")
        );
    }
}
