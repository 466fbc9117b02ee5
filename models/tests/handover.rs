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
