//! The settings of a PostgreSQL server.

use sqlx::{Connection as _, PgConnection};

use super::Findings;

/// The oldest version whose features dlock uses.
const OLDEST: i32 = 120_000;

pub async fn examine(url: &str, findings: &mut Findings) {
    if let Err(error) = try_examine(url, findings).await {
        findings.unread(error.to_string().lines().next().unwrap_or_default());
    }
}

async fn try_examine(url: &str, findings: &mut Findings) -> Result<(), sqlx::Error> {
    let mut server = PgConnection::connect(url).await?;
    version(&mut server, findings).await?;
    durability(&mut server, findings).await?;
    replication(&mut server, findings).await?;
    connections(&mut server, findings).await?;
    line(&mut server, findings).await?;
    server.close().await
}

async fn setting(server: &mut PgConnection, name: &str) -> Result<String, sqlx::Error> {
    let setting = sqlx::query_scalar("SELECT coalesce(current_setting($1, true), '')");
    setting.bind(name).fetch_one(server).await
}

async fn version(server: &mut PgConnection, findings: &mut Findings) -> Result<(), sqlx::Error> {
    let version = setting(server, "server_version_num").await?;
    if version.parse::<i32>().is_ok_and(|version| version < OLDEST) {
        findings.danger("the server is older than PostgreSQL 12", "update it");
    }
    Ok(())
}

async fn durability(server: &mut PgConnection, findings: &mut Findings) -> Result<(), sqlx::Error> {
    if setting(server, "fsync").await? == "off" {
        findings.danger(
            "`fsync` is off: after a crash of the machine, the server may not know who holds a lock",
            "set `fsync = on`",
        );
    }
    if setting(server, "synchronous_commit").await? == "off" {
        findings.danger(
            "`synchronous_commit` is off: after a crash, the server may not know the latest grants",
            "set it to `on` for this role: `ALTER ROLE … SET synchronous_commit = on`",
        );
    }
    Ok(())
}

async fn replication(
    server: &mut PgConnection,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let is_replica =
        sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut *server).await?;
    if is_replica || setting(server, "default_transaction_read_only").await? == "on" {
        findings.danger("this server takes no writes, and so no locks", "connect to the primary");
        return Ok(());
    }
    let replicas: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_stat_replication")
        .fetch_one(&mut *server)
        .await?;
    if replicas > 0 && setting(server, "synchronous_standby_names").await?.is_empty() {
        findings.note(
            format_args!("{replicas} asynchronous replicas: one that is promoted may not know the latest grants"),
            "set `synchronous_standby_names`, or fence what must not be written twice",
        );
    }
    Ok(())
}

async fn connections(
    server: &mut PgConnection,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let used: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'",
    )
    .fetch_one(&mut *server)
    .await?;
    let most: i64 = setting(server, "max_connections").await?.parse().unwrap_or(i64::MAX);
    if used > most / 5 * 4 {
        findings.note(
            format_args!("{used} of {most} connections are in use; each process that locks needs up to fifteen"),
            "raise `max_connections`, or put a pool such as PgBouncer in front of the server",
        );
    }
    Ok(())
}

/// The optional table of those that wait.
async fn line(server: &mut PgConnection, findings: &mut Findings) -> Result<(), sqlx::Error> {
    let lacks_line = "SELECT to_regclass('dlock_leases') IS NOT NULL AND to_regclass('dlock_leases_line') IS NULL";
    if sqlx::query_scalar(lacks_line).fetch_one(server).await? {
        findings.note(
            "the table `dlock_leases_line` is missing: a release notifies all processes that wait, and not only the next one",
            "run `src/stores/postgres/line.sql` of dlock-runtime as a role that may create tables",
        );
    }
    Ok(())
}
