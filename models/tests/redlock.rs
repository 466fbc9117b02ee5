//! scratch
use dlock_models::checking::explore;
use dlock_models::redlock::{Bounds, Redlock, Rule};

fn bounds(line: &str) -> Bounds {
    let v: Vec<u8> = line.split(',').map(|x| x.trim().parse().unwrap()).collect();
    let [r0, r1, r2, late, crashes, restarts] = v.try_into().unwrap();
    Bounds { rounds: [r0, r1, r2], late, crashes, restarts }
}

#[test]
fn scratch() {
    for line in std::env::var("B").unwrap().split(';') {
        println!("{line}: {}", explore(Redlock::new(bounds(line))));
    }
}

#[test]
fn survey() {
    let only = std::env::var("R").unwrap_or_default();
    for rule in Rule::ALL {
        if !only.is_empty() && !only.split(',').any(|it| it == format!("{rule:?}")) {
            continue;
        }
        for line in std::env::var("B").unwrap().split(';') {
            let property: &'static str = std::env::var("P").unwrap().leak();
            let found = dlock_models::checking::explore_until_broken(
                Redlock::new(bounds(line)).without(rule),
                property,
            );
            let broken: Vec<_> =
                found.broken.iter().map(|it| (it.property, it.steps.len())).collect();
            println!("{rule:?} {line}: {} {broken:?}", found.states);
        }
    }
}
