//! The tests' own servers and proxies. They must fail on request, or the tests that use them prove
//! nothing.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use dlock_tests::proxy::Proxy;
use dlock_tests::servers::{MariaDbServer, PostgresServer, RedisServer, free_port};
use dlock_tests::trials::Trials;
use redis::aio::MultiplexedConnection;
use sqlx::{Connection, MySqlConnection, PgConnection};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

pub(super) fn add(trials: &mut Trials) {
    trials.add("free_ports_are_all_different", free_ports_are_all_different);
    trials.needs("redis-server", "redis_keeps_its_data", redis_keeps_its_data);
    trials.needs("redis-server", "redis_pauses", redis_pauses);
    trials.needs("initdb", "postgres_keeps_its_data", postgres_keeps_its_data);
    trials.needs("initdb", "postgres_pauses", postgres_pauses);
    trials.needs("initdb", "postgres_takes_settings", postgres_takes_settings);
    trials.needs("initdb", "a_server_that_cannot_start_says_why", cannot_start);
    trials.needs("initdb", "postgres_counts_statements", postgres_counts_statements);
    trials.needs("initdb", "postgres_leaves_nothing_behind", postgres_leaves_nothing_behind);
    trials.needs("initdb", "postgres_servers_are_independent", postgres_servers_are_independent);
    trials.needs("mariadbd", "mariadb_keeps_its_data", mariadb_keeps_its_data);
    trials.needs("mariadbd", "mariadb_pauses", mariadb_pauses);
    trials.needs("mariadbd", "mariadb_takes_settings", mariadb_takes_settings);
    trials.add("a_proxy_passes_and_ends", a_proxy_passes_and_ends);
    trials.add("a_cut_proxy_heals", a_cut_proxy_heals);
    trials.add("a_stalled_proxy_resumes", a_stalled_proxy_resumes);
    trials.add("a_stalled_proxy_delays_an_end", a_stalled_proxy_delays_an_end);
    trials.add("a_proxy_stalls_answers_only", a_proxy_stalls_answers_only);
    trials.add("a_cut_discards_delayed_data", a_cut_discards_delayed_data);
}

/// Asserts that the future does not resolve for a while.
async fn silent<T: Debug>(future: impl Future<Output = T>) {
    let answer = timeout(Duration::from_millis(300), future).await;
    assert!(answer.is_err(), "expected no answer, got {answer:?}");
}

/// Asserts that nobody listens on the port.
async fn refused(port: u16) {
    let connected = TcpStream::connect(("127.0.0.1", port)).await;
    assert_eq!(
        connected.expect_err("nobody listens").kind(),
        std::io::ErrorKind::ConnectionRefused
    );
}

async fn free_ports_are_all_different() {
    let ports: std::collections::HashSet<_> =
        (0..100).map(|_| free_port().expect("a port")).collect();
    assert_eq!(ports.len(), 100);
}

async fn redis(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("a URL");
    // The client must not time out: this tests the server.
    let config =
        redis::AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    connection.expect("the server runs")
}

async fn get(connection: &mut MultiplexedConnection) -> redis::RedisResult<Option<i64>> {
    redis::cmd("GET").arg("n").query_async(connection).await
}

async fn redis_keeps_its_data() {
    let mut server = RedisServer::start_durable();
    let mut before = redis(&server.url()).await;
    let set = redis::cmd("SET").arg("n").arg(7).exec_async(&mut before).await;
    set.expect("the server runs");
    server.kill();
    refused(server.port()).await;
    get(&mut before).await.expect_err("the server is gone");
    server.restart();
    assert_eq!(get(&mut redis(&server.url()).await).await.expect("the server runs"), Some(7));
}

async fn redis_pauses() {
    let mut server = RedisServer::start();
    let url = server.url();
    let mut connection = redis(&url).await;
    server.pause();
    {
        let (mut old, mut new) = (pin!(get(&mut connection)), pin!(redis(&url)));
        silent(&mut old).await;
        silent(async { drop((&mut new).await) }).await;
        server.resume();
        assert_eq!(old.await.expect("the server goes on"), None);
        new.await;
    }
    server.pause();
    server.kill();
    refused(server.port()).await;
}

async fn postgres(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("the server runs")
}

async fn mariadb(url: &str) -> MySqlConnection {
    MySqlConnection::connect(url).await.expect("the server runs")
}

async fn postgres_keeps_its_data() {
    let mut server = PostgresServer::start();
    let mut before = postgres(&server.url()).await;
    let made = sqlx::raw_sql("CREATE TABLE t (n bigint); INSERT INTO t VALUES (7)");
    made.execute(&mut before).await.expect("the server runs");
    // A busy backend process is killed too.
    let mut busy = postgres(&server.url()).await;
    let busy = tokio::spawn(async move {
        let endless = sqlx::raw_sql("DO $$ BEGIN LOOP END LOOP; END $$");
        endless.execute(&mut busy).await.expect_err("it is killed");
    });
    until_running(&mut before, "DO").await;
    server.kill();
    refused(server.port()).await;
    busy.await.expect("no panic");
    sqlx::raw_sql("SELECT 1").execute(&mut before).await.expect_err("the server is gone");
    server.restart();
    let kept: i64 = sqlx::query_scalar("SELECT n FROM t")
        .fetch_one(&mut postgres(&server.url()).await)
        .await
        .expect("the server runs");
    assert_eq!(kept, 7);
}

/// Waits until another connection runs a statement that starts like this.
async fn until_running(connection: &mut PgConnection, statement: &str) {
    loop {
        let busy: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_stat_activity
                WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE $1 || '%')",
        )
        .bind(statement)
        .fetch_one(&mut *connection)
        .await
        .expect("the server runs");
        if busy {
            return;
        }
    }
}

async fn postgres_pauses() {
    let mut server = PostgresServer::start();
    let url = server.url();
    let mut connection = postgres(&url).await;
    let query = || sqlx::query_scalar::<_, i32>("SELECT 7");
    assert_eq!(query().fetch_one(&mut connection).await.expect("the server runs"), 7);
    server.pause();
    {
        let mut old = pin!(query().fetch_one(&mut connection));
        let mut new = pin!(postgres(&url));
        silent(&mut old).await;
        silent(&mut new).await;
        server.resume();
        assert_eq!(old.await.expect("the server goes on"), 7);
        new.await;
    }
    server.pause();
    server.kill();
    refused(server.port()).await;
    server.restart();
    postgres(&server.url()).await;
}

async fn postgres_takes_settings() {
    let server = PostgresServer::start_with(&[("max_connections", "20"), ("work_mem", "128kB")]);
    let mut connection = postgres(&server.url()).await;
    let shown = sqlx::query_scalar::<_, String>(
        "SELECT current_setting('max_connections') || ' ' || current_setting('work_mem')",
    );
    assert_eq!(shown.fetch_one(&mut connection).await.expect("the server runs"), "20 128kB");
    let made = sqlx::raw_sql("CREATE ROLE other LOGIN PASSWORD 'secret'; CREATE DATABASE d");
    // Two statements in one message are a transaction, in which no database can be created.
    made.execute(&mut connection).await.expect_err("not in a transaction");
    for statement in ["CREATE ROLE other LOGIN PASSWORD 'secret'", "CREATE DATABASE d"] {
        sqlx::raw_sql(statement).execute(&mut connection).await.expect("the server runs");
    }
    let url = server.url_of("other", Some("secret"), "d");
    PgConnection::connect(&url).await.expect("a known user");
}

async fn cannot_start() {
    let start = || PostgresServer::start_with(&[("work_mem", "much")]);
    let problem = tokio::task::spawn_blocking(start).await.expect_err("a wrong setting");
    let message = problem.into_panic().downcast::<String>().expect("a message");
    assert!(message.contains(r#"invalid value for parameter "work_mem": "much""#), "{message}");
}

async fn postgres_counts_statements() {
    let server = PostgresServer::start();
    let mut connection = postgres(&server.url()).await;
    let mut run = async |statement| {
        sqlx::raw_sql(statement).execute(&mut connection).await.expect("the server runs");
    };
    run("CREATE EXTENSION pg_stat_statements").await;
    run("SELECT 7 AS counted").await;
    run("SELECT 8 AS counted").await;
    let calls: i64 = sqlx::query_scalar(
        "SELECT calls FROM pg_stat_statements WHERE query = 'SELECT $1 AS counted'",
    )
    .fetch_one(&mut connection)
    .await
    .expect("the extension is there");
    assert_eq!(calls, 2);
}

/// Neither a process nor a shared memory segment is left, however the server ends.
async fn postgres_leaves_nothing_behind() {
    let mut server = PostgresServer::start();
    let folder = server.folder().display().to_string();
    let pid_file = std::fs::read_to_string(server.folder().join("postmaster.pid"));
    let pid_file = pid_file.expect("the server's file");
    let segment = pid_file.lines().nth(6).and_then(|line| line.split_whitespace().next_back());
    let segment = segment.expect("an id").to_owned();
    assert!(segments().contains(&segment), "{segments:?}", segments = segments());
    assert!(processes().any(|process| process.contains(&folder)));
    server.kill();
    assert!(!segments().contains(&segment), "{segment} is left");
    assert!(!processes().any(|process| process.contains(&folder)));
    server.restart();
    drop(server);
    assert!(!processes().any(|process| process.contains(&folder)));
    assert!(!std::path::Path::new(&folder).exists());
}

/// The ids of the machine's System V shared memory segments.
fn segments() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/sysvipc/shm").expect("a table");
    let ids = table.lines().filter_map(|line| line.split_whitespace().nth(1));
    ids.map(str::to_owned).collect()
}

/// The command lines of the machine's processes.
fn processes() -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir("/proc").expect("Linux").flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned())
}

async fn postgres_servers_are_independent() {
    let (one, other) = (PostgresServer::start(), PostgresServer::start());
    let created = sqlx::raw_sql("CREATE TABLE t ()");
    created.execute(&mut postgres(&one.url()).await).await.expect("the server runs");
    let query = sqlx::raw_sql("SELECT * FROM t");
    query.execute(&mut postgres(&other.url()).await).await.expect_err("no such table there");
}

async fn mariadb_keeps_its_data() {
    let mut server = MariaDbServer::start();
    let mut before = mariadb(&server.url()).await;
    let made = sqlx::raw_sql("CREATE TABLE t (n bigint); INSERT INTO t VALUES (7)");
    made.execute(&mut before).await.expect("the server runs");
    server.kill();
    refused(server.port()).await;
    sqlx::raw_sql("SELECT 1").execute(&mut before).await.expect_err("the server is gone");
    server.restart();
    let kept: i64 = sqlx::query_scalar("SELECT n FROM t")
        .fetch_one(&mut mariadb(&server.url()).await)
        .await
        .expect("the server runs");
    assert_eq!(kept, 7);
}

async fn mariadb_pauses() {
    let mut server = MariaDbServer::start();
    let url = server.url();
    let mut connection = mariadb(&url).await;
    let query = || sqlx::query_scalar::<_, i32>("SELECT 7");
    assert_eq!(query().fetch_one(&mut connection).await.expect("the server runs"), 7);
    server.pause();
    {
        let mut old = pin!(query().fetch_one(&mut connection));
        let mut new = pin!(mariadb(&url));
        silent(&mut old).await;
        silent(&mut new).await;
        server.resume();
        assert_eq!(old.await.expect("the server goes on"), 7);
        new.await;
    }
    server.pause();
    server.kill();
    refused(server.port()).await;
    server.restart();
    mariadb(&server.url()).await;
}

async fn mariadb_takes_settings() {
    let server = MariaDbServer::start_with(&[("max-connections", "20")]);
    let mut connection = mariadb(&server.url()).await;
    let query = sqlx::query_scalar::<_, i64>("SELECT CAST(@@max_connections AS SIGNED)");
    assert_eq!(query.fetch_one(&mut connection).await.expect("the server runs"), 20);
    for statement in [
        "CREATE USER other@'127.0.0.1' IDENTIFIED BY 'secret'",
        "CREATE DATABASE d",
        "GRANT ALL ON d.* TO other@'127.0.0.1'",
    ] {
        sqlx::raw_sql(statement).execute(&mut connection).await.expect("the server runs");
    }
    let url = server.url_of("other", Some("secret"), "d");
    MySqlConnection::connect(&url).await.expect("a known user");
    let url = server.url_of("other", Some("wrong"), "d");
    MySqlConnection::connect(&url).await.expect_err("a wrong password");
}

/// A server that echoes each line and reports it to the test.
struct Echo {
    port: u16,
    heard: tokio::sync::mpsc::UnboundedReceiver<String>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let (tell, heard) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let tell = tell.clone();
                tokio::spawn(async move {
                    let (read, mut write) = stream.split();
                    let mut lines = BufReader::new(read).lines();
                    while let Ok(Some(line)) = lines.next_line().await {
                        let _ = tell.send(line.clone());
                        let _ = write.write_all(format!("{line}\n").as_bytes()).await;
                    }
                    let _ = tell.send("the end".into());
                });
            }
        });
        Self { port, heard }
    }

    async fn hears(&mut self) -> String {
        self.heard.recv().await.expect("the server runs")
    }
}

/// A client of the echo server.
struct Client(BufReader<TcpStream>);

impl Client {
    async fn of(proxy: &Proxy) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", proxy.port())).await;
        Self(BufReader::new(stream.expect("the proxy listens")))
    }

    async fn says(&mut self, line: &str) {
        self.0.write_all(format!("{line}\n").as_bytes()).await.expect("an open connection");
    }

    async fn hears(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.expect("an open connection");
        line.trim_end().to_owned()
    }

    /// Asserts that the connection has ended.
    async fn ended(&mut self) {
        // Whether it ends or is reset is the kernel's choice.
        assert_eq!(self.0.read(&mut [0; 16]).await.unwrap_or(0), 0);
    }
}

async fn a_proxy_passes_and_ends() {
    let mut echo = Echo::start().await;
    let proxy = Proxy::start(echo.port).await;
    let (mut one, mut other) = (Client::of(&proxy).await, Client::of(&proxy).await);
    for client in [&mut one, &mut other] {
        client.says("hello").await;
        assert_eq!(client.hears().await, "hello");
        assert_eq!(echo.hears().await, "hello");
    }
    drop(one);
    assert_eq!(echo.hears().await, "the end");
    drop(proxy);
    other.ended().await;
    assert_eq!(echo.hears().await, "the end");
}

async fn a_cut_proxy_heals() {
    let mut echo = Echo::start().await;
    let mut proxy = Proxy::start(echo.port).await;
    let mut client = Client::of(&proxy).await;
    client.says("before").await;
    assert_eq!(client.hears().await, "before");
    assert_eq!(echo.hears().await, "before");
    proxy.cut().await;
    client.ended().await;
    assert_eq!(echo.hears().await, "the end");
    refused(proxy.port()).await;
    proxy.cut().await;
    proxy.heal().await;
    let mut client = Client::of(&proxy).await;
    client.says("after").await;
    assert_eq!(client.hears().await, "after");
}

async fn a_stalled_proxy_resumes() {
    let mut echo = Echo::start().await;
    let proxy = Proxy::start(echo.port).await;
    let mut old = Client::of(&proxy).await;
    old.says("before").await;
    assert_eq!(old.hears().await, "before");
    assert_eq!(echo.hears().await, "before");
    proxy.stall();
    let mut new = Client::of(&proxy).await;
    old.says("kept").await;
    new.says("kept").await;
    silent(old.hears()).await;
    silent(new.hears()).await;
    silent(echo.hears()).await;
    proxy.resume();
    assert_eq!(old.hears().await, "kept");
    assert_eq!(new.hears().await, "kept");
}

async fn a_stalled_proxy_delays_an_end() {
    let mut echo = Echo::start().await;
    let proxy = Proxy::start(echo.port).await;
    let mut client = Client::of(&proxy).await;
    client.says("before").await;
    assert_eq!(client.hears().await, "before");
    assert_eq!(echo.hears().await, "before");
    proxy.stall();
    drop(client);
    silent(echo.hears()).await;
    proxy.resume();
    assert_eq!(echo.hears().await, "the end");
}

async fn a_proxy_stalls_answers_only() {
    let mut echo = Echo::start().await;
    let proxy = Proxy::start(echo.port).await;
    proxy.stall_answers();
    let mut client = Client::of(&proxy).await;
    client.says("done").await;
    assert_eq!(echo.hears().await, "done");
    silent(client.hears()).await;
    proxy.resume();
    assert_eq!(client.hears().await, "done");
}

async fn a_cut_discards_delayed_data() {
    let mut echo = Echo::start().await;
    let mut proxy = Proxy::start(echo.port).await;
    let mut client = Client::of(&proxy).await;
    client.says("before").await;
    assert_eq!(client.hears().await, "before");
    assert_eq!(echo.hears().await, "before");
    proxy.stall();
    client.says("kept").await;
    proxy.cut().await;
    client.ended().await;
    assert_eq!(echo.hears().await, "the end");
    proxy.heal().await;
    let mut client = Client::of(&proxy).await;
    client.says("after").await;
    assert_eq!(client.hears().await, "after");
    assert_eq!(echo.hears().await, "after");
}
