//! The final report: a table, or a line of JSON for scripts.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::sale::{Kind, Sale};

/// Whether both runs with the lock sold exactly the stock.
pub fn is_exact(sales: &[Sale]) -> bool {
    let locked = sales.iter().filter(|sale| sale.kind != Kind::WithoutLock);
    locked.clone().count() == 2
        && locked.clone().all(|sale| sale.sold == sale.stock)
        // A run without its crashes would prove nothing.
        && locked.filter(|sale| sale.kind == Kind::WithCrash).all(|sale| sale.crashes == 2)
}

/// One line of JSON for scripts.
pub fn json(backend: &str, stock: u64, sales: &[Sale]) -> String {
    let mut line = json!({ "backend": backend, "stock": stock });
    for sale in sales {
        let mut of_sale = json!({ "sold": sale.sold, "oversold": sale.oversold() });
        if sale.kind == Kind::WithCrash {
            let waited = u64::try_from(sale.longest_wait.as_millis()).unwrap_or(u64::MAX);
            of_sale["longest_wait_ms"] = Value::from(waited);
        }
        if sale.kind != Kind::WithoutLock {
            of_sale["refused"] = Value::from(sale.refused);
        }
        line[sale.kind.name()] = of_sale;
    }
    line.to_string()
}

/// A human-readable table.
pub fn table(sales: &[Sale]) -> String {
    let mut text = format!(
        "{:<38} {:>7} {:>6} {:>6} {:>9} {:>9}\n",
        "", "servers", "stock", "sold", "oversold", "took"
    );
    for sale in sales {
        let name = match sale.kind {
            Kind::WithoutLock => "without the lock",
            Kind::WithLock => "with the lock",
            Kind::WithCrash => "with the lock, one killed, one paused",
        };
        // Writing into a `String` does not fail.
        let _ = writeln!(
            text,
            "{name:<38} {:>7} {:>6} {:>6} {:>9} {:>8.2}s",
            sale.servers,
            sale.stock,
            sale.sold,
            sale.oversold(),
            sale.took.as_secs_f64(),
        );
        if sale.failed > 0 {
            let _ = writeln!(text, "  {} customers did not get the lock", sale.failed);
        }
        if sale.kind == Kind::WithCrash {
            let waited = sale.longest_wait.as_secs_f64();
            let _ = writeln!(
                text,
                "  after the crashes the other servers continued within {waited:.2} s"
            );
        }
        if sale.kind == Kind::WithCrash || sale.refused > 0 {
            let _ =
                writeln!(text, "  late writes rejected by their fencing token: {}", sale.refused);
        }
    }
    text
}
