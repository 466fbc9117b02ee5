//! Deleting the rows of keys that nobody has used for a while.

use super::dialect;
use super::statements::Statements;
use crate::error::BackendError;
use crate::stores::shared::sql::read;
use crate::stores::shared::sql_leases::connections::Lane;
use crate::stores::shared::sql_leases::leases::Leases;

/// Remembers the largest token of the unused rows in the row without a key, and deletes those whose tokens it
/// remembered a while ago.
pub(super) async fn delete_idle_rows(leases: &Leases<Statements>) -> Result<(), BackendError> {
    let Leases { store, sql, .. } = leases;
    let reply = store.run(Lane::Acquires, &sql.floor_if_settled()).await?;
    let Some(row) = reply.row() else { return Ok(()) };
    let floor = read(row, 0)?;
    loop {
        let reply = store.run(Lane::Acquires, &sql.idle_up_to(floor)).await?;
        let keys = reply.rows.iter().flatten();
        let keys = keys.map(|row| Ok(dialect::bytes(read(row, 0)?)));
        let keys = keys.collect::<Result<Vec<_>, BackendError>>()?;
        if keys.is_empty() {
            break;
        }
        store.run(Lane::Acquires, &sql.delete_idle(&keys.join(","), floor)).await?;
    }
    let reply = store.run(Lane::Acquires, &sql.largest_idle(floor)).await?;
    if let Some(row) = reply.row() {
        store.run(Lane::Acquires, &sql.raise_floor(read(row, 0)?)).await?;
    }
    Ok(())
}
