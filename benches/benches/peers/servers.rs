//! Readings of servers.

use std::time::Duration;

use dlock_benches::contest::Reading;
use dlock_tests::servers::{Kind, RedisServer, Server, cpu_time};

/// The CPU time of these servers.
pub fn cpu_of<'a, K: Kind + 'a>(
    servers: impl IntoIterator<Item = &'a Server<K>>,
) -> impl FnMut() -> Reading + Send + 'static {
    let processes: Vec<_> = servers.into_iter().map(Server::process_id).collect();
    move || Reading {
        cpu: processes.iter().map(|process| cpu_time(*process)).sum(),
        ..Reading::default()
    }
}

/// The CPU time of a Redis server and the commands that it has executed, from `INFO`.
pub fn info_of(server: &RedisServer) -> impl FnMut() -> Reading + Send + 'static {
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut connection = client.get_connection().expect("the server runs");
    move || {
        let info: String = redis::cmd("INFO").arg("all").query(&mut connection).expect("it runs");
        let seconds = |name| number(&info, name).expect("INFO has it");
        let cpu = seconds("used_cpu_user") + seconds("used_cpu_sys");
        let (commands, scripts) = (calls(&info, |_| true), calls(&info, |name| name == "evalsha"));
        Reading {
            cpu: Duration::from_secs_f64(cpu),
            commands: Some(commands),
            scripts: Some(scripts),
        }
    }
}

/// A number of `INFO`.
pub fn number(info: &str, name: &str) -> Option<f64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok();
    info.lines().find_map(value)
}

/// How often these commands were executed, inside scripts too.
fn calls(info: &str, counts: impl Fn(&str) -> bool) -> f64 {
    let calls = info.lines().filter_map(|line| {
        let (name, statistics) = line.strip_prefix("cmdstat_")?.split_once(':')?;
        let calls = statistics.strip_prefix("calls=")?.split(',').next()?;
        (name != "info" && counts(name)).then(|| calls.parse::<f64>().ok())?
    });
    calls.sum()
}
