//! scratch
use dlock_models::checking::explore;
use dlock_models::handover::{Bounds, Handover};

fn run(b: [u8; 8]) {
    let [w0, w1, w2, late, cancels, crashes, pauses, restarts] = b;
    let bounds = Bounds { waits: [w0, w1, w2], late, cancels, crashes, pauses, restarts };
    println!("{b:?}: {}", explore(Handover::new(bounds)));
}

#[test]
fn scratch() {
    for line in std::env::var("B").unwrap().split(';') {
        let v: Vec<u8> = line.split(',').map(|x| x.trim().parse().unwrap()).collect();
        run(v.try_into().unwrap());
    }
}

#[test]
fn survey() {
    for rule in dlock_models::handover::Rule::ALL {
        for line in std::env::var("B").unwrap().split(';') {
            let v: Vec<u8> = line.split(',').map(|x| x.trim().parse().unwrap()).collect();
            let [w0, w1, w2, late, cancels, crashes, pauses, restarts] = v.clone().try_into().unwrap();
            let bounds = Bounds { waits: [w0, w1, w2], late, cancels, crashes, pauses, restarts };
            let found = explore(Handover::new(bounds).without(rule));
            let broken: Vec<_> = found.broken.iter().map(|it| (it.property, it.steps.len())).collect();
            println!("{rule:?} {line}: {} {broken:?}", found.states);
        }
    }
}
