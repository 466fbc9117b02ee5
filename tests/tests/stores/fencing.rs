//! Fencing checks on the protected resource, for each kind of store.

use dlock_runtime::FencingToken;
use dlock_runtime::fencing::{self, FencingError};
use dlock_tests::servers::{MariaDbServer, PostgresServer, RedisServer};
use dlock_tests::trials::Trials;
use redis::AsyncCommands;
use sqlx::{Connection, MySqlConnection, PgConnection, SqliteConnection};

pub(super) fn add(trials: &mut Trials) {
    trials.add("a_stale_update_is_refused_by_sqlite", sqlite);
    trials.needs("postgres", "a_stale_update_is_refused_by_postgres", postgres);
    trials.needs("mariadbd", "a_stale_update_is_refused_by_mysql", mysql);
    trials.needs("redis-server", "a_stale_value_is_refused_by_redis", redis);
}

const OLD: FencingToken = FencingToken::new(41);
const NEW: FencingToken = FencingToken::new((1 << 62) + 1);

/// A macro, because each database has its own connection type.
macro_rules! a_stale_update_is_refused {
    ($connection:expr) => {{
        let mut connection = $connection;
        let setup = "CREATE TABLE products (id BIGINT PRIMARY KEY, shop VARCHAR(9), stock BIGINT, fence BIGINT)";
        sqlx::raw_sql(setup).execute(&mut connection).await.expect("a table");
        let rows = "INSERT INTO products VALUES (7, 'here', 5, NULL), (8, 'here', 5, NULL)";
        sqlx::raw_sql(rows).execute(&mut connection).await.expect("rows");
        macro_rules! sell {
            ($token:expr, $id:expr) => {
                fencing::update(&mut connection, "products", $token)
                    .column("fence")
                    .set_expression("stock = stock - 1")
                    .filter("id", $id)
                    .filter("shop", "here".to_owned())
                    .execute()
                    .await
            };
        }
        macro_rules! stock {
            ($id:expr) => {{
                let stock = concat!("SELECT stock FROM products WHERE id = ", $id);
                let stock = sqlx::query_scalar::<_, i64>(stock).fetch_one(&mut connection).await;
                stock.expect("a row")
            }};
        }
        sell!(OLD, 7_i64).expect("the first");
        sell!(OLD, 7_i64).expect("the same holder again");
        sell!(NEW, 7_i64).expect("the next holder");
        assert_eq!(stock!(7), 2);
        let refused = sell!(OLD, 7_i64).expect_err("a stale holder");
        let FencingError::Stale { presented, newest, .. } = refused else { panic!("{refused}") };
        assert_eq!((presented, newest), (OLD, NEW));
        assert_eq!(stock!(7), 2, "the refused update was written");

        // Each row has its own fence.
        sell!(OLD, 8_i64).expect("nobody has written it");
        let missing = sell!(NEW, 9_i64).expect_err("no such row");
        assert!(matches!(missing, FencingError::NoSuchRow), "{missing}");

        // A rolled-back transaction writes nothing, not even the fence.
        let mut transaction = connection.begin().await.expect("a transaction");
        let update = fencing::update(&mut *transaction, "products", NEW).column("fence");
        update.set("stock", 0_i64).filter("id", 8_i64).execute().await.expect("the next holder");
        transaction.rollback().await.expect("a rollback");
        sell!(OLD, 8_i64).expect("nobody has written it since");
        assert_eq!(stock!(8), 3);
    }};
}

async fn sqlite() {
    let connection = SqliteConnection::connect("sqlite::memory:").await;
    a_stale_update_is_refused!(connection.expect("a database"));
}

async fn postgres() {
    let server = PostgresServer::start();
    let connection = PgConnection::connect(&server.url()).await;
    a_stale_update_is_refused!(connection.expect("the server runs"));
}

async fn mysql() {
    let server = MariaDbServer::start();
    let connection = MySqlConnection::connect(&server.url()).await;
    a_stale_update_is_refused!(connection.expect("the server runs"));
}

async fn redis() {
    let server = RedisServer::start();
    let client = ::redis::Client::open(server.url()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("the server runs");
    fencing::set(&mut connection, "stock:7", 5, OLD).await.expect("the first");
    fencing::set(&mut connection, "stock:7", 4, OLD).await.expect("the same holder again");
    fencing::set(&mut connection, "stock:7", 3, NEW).await.expect("the next holder");
    let stale = fencing::set(&mut connection, "stock:7", 9, OLD).await.expect_err("a stale holder");
    let FencingError::Stale { presented, newest, .. } = stale else { panic!("{stale}") };
    assert_eq!((presented, newest), (OLD, NEW));
    // Two tokens that are equal as floating-point numbers.
    let before = FencingToken::new(NEW.get() - 1);
    let stale = fencing::set(&mut connection, "stock:7", 9, before).await.expect_err("stale");
    assert!(stale.is_stale());
    let stock: i64 = connection.get("stock:7").await.expect("GET");
    assert_eq!(stock, 3);
    fencing::set(&mut connection, "stock:8", 1, OLD).await.expect("another value");
}
