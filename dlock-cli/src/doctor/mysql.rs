//! The settings of a MySQL or MariaDB server.

use sqlx::{Connection as _, MySqlConnection};

use super::Findings;

pub async fn examine(url: &str, findings: &mut Findings) {
    if let Err(error) = try_examine(url, findings).await {
        findings.unread(error.to_string().lines().next().unwrap_or_default());
    }
}

async fn try_examine(url: &str, findings: &mut Findings) -> Result<(), sqlx::Error> {
    let mut server = MySqlConnection::connect(url).await?;
    let flush = "SELECT CAST(@@global.innodb_flush_log_at_trx_commit AS SIGNED)";
    let flush: i64 = sqlx::query_scalar(flush).fetch_one(&mut server).await?;
    if flush != 1 {
        findings.danger(
            format_args!("`innodb_flush_log_at_trx_commit` is {flush}: after a crash, the server may not know the latest grants"),
            "set `innodb_flush_log_at_trx_commit = 1`",
        );
    }
    let read_only = "SELECT CAST(@@global.read_only AS SIGNED)";
    let read_only: i64 = sqlx::query_scalar(read_only).fetch_one(&mut server).await?;
    if read_only != 0 {
        findings.danger("this server takes no writes, and so no locks", "connect to the primary");
    }
    server.close().await
}
