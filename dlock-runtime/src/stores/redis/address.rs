//! URLs that name several nodes.

use redis::{Client, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

use crate::error::BackendError;

/// What a URL says: `scheme://[user:password@]host:port[,…][/path][?name=value&…]`.
#[derive(Debug)]
pub(in crate::stores) struct Address {
    pub(in crate::stores) scheme: Scheme,
    pub(in crate::stores) nodes: Vec<ConnectionInfo>,
    /// Behind the nodes, without its slash.
    pub(in crate::stores) path: String,
    pub(in crate::stores) options: Options,
}

/// What stands behind the question mark; what is left over in the end is unknown.
#[derive(Debug)]
pub(in crate::stores) struct Options(Vec<(String, String)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stores) struct Scheme {
    pub(in crate::stores) form: Form,
    pub(in crate::stores) tls: bool,
}

/// In which form Redis is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stores) enum Form {
    Server,
    Cluster,
    Sentinel,
    /// Servers that know nothing of each other: Redlock.
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
    /// Reads a URL with several nodes. Those who name one server are for the `redis` crate to read.
    pub(in crate::stores) fn parse(url: &str) -> Result<Self, BackendError> {
        let (scheme, rest) = split_scheme(url)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (nodes, path) = rest.split_once('/').unwrap_or((rest, ""));
        let nodes = nodes.split(',').map(|node| connection(node, scheme.tls));
        let mut nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        share_credentials(&mut nodes);
        Ok(Self { scheme, nodes, path: path.to_owned(), options: Options::read(query) })
    }

    /// Sets the database whose number is the path.
    pub(in crate::stores) fn select_database(&mut self, number: &str) -> Result<(), BackendError> {
        if number.is_empty() {
            return Ok(());
        }
        let problem = "at the end stands the number of a database";
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

    /// The value of an option.
    pub(in crate::stores) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }

    /// Refuses what is unknown by its name. Its value may be a secret.
    pub(in crate::stores) fn nothing_left(&self, known: &str) -> Result<(), BackendError> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                let problem = format!("a redis URL has no option `{name}` (there is {known})");
                Err(BackendError::permanent(problem).not_sent())
            }
        }
    }
}

/// The options of a URL that names one server.
pub(in crate::stores) fn options(url: &str) -> Options {
    let url = url.split_once('#').map_or(url, |(url, _)| url);
    Options::read(url.split_once('?').map_or("", |(_, query)| query))
}

/// Its form, if the scheme is one of ours, and what stands behind it.
pub(in crate::stores) fn split_scheme(url: &str) -> Result<(Scheme, &str), BackendError> {
    let (name, rest) = url.split_once("://").unwrap_or(("", url));
    let known = SCHEMES.iter().find(|(known, ..)| *known == name);
    let problem =
        "it begins with none of redis://, redis+cluster://, redis+sentinel://, redlock://";
    let (_, form, tls) = known.ok_or_else(|| unreadable(problem))?;
    Ok((Scheme { form: *form, tls: *tls }, rest))
}

fn connection(node: &str, tls: bool) -> Result<ConnectionInfo, BackendError> {
    // Its own port is what one forgets; the reader of URLs would take the default silently, which is
    // as good for a server as it is wrong for a Sentinel.
    let host = node.rsplit_once('@').map_or(node, |(_, host)| host);
    if host.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        return Err(unreadable("every node is host:port, with commas between them"));
    }
    let url = format!("{}://{node}", if tls { "rediss" } else { "redis" });
    url.into_connection_info().map_err(|error| unreadable(&error.to_string()))
}

/// Credentials that only the first node has are those of all.
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

/// Host and port: what messages show.
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
    fn mistakes_are_told_without_the_password() {
        for url in [
            "redis+cluster://:secret@a:1,b",
            "redis+cluster://:secret@a:x",
            "redis+other://:secret@a:1",
            "redis+cluster://:secret@",
        ] {
            let told = Address::parse(url).unwrap_err().to_string();
            assert!(!told.contains("secret"), "{told}");
        }
        let address = Address::parse("redis+cluster://a:1?colour=red").unwrap();
        assert!(
            address.options.nothing_left("replicas").unwrap_err().to_string().contains("`colour`")
        );
    }
}
