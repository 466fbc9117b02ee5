use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const SECOND: Micros = 1_000_000;
const TTL: Duration = Duration::from_secs(5);

fn claim(mode: Mode, fair: bool, wait_left: Duration) -> Claim {
    let claim = Claim::new("k".into(), TTL).with_mode(mode);
    claim.with_fair(fair).with_wait_left(wait_left)
}

fn any_claim(random: &mut StdRng) -> Claim {
    let permits = NonZeroU32::new(random.random_range(2..4)).unwrap();
    let kinds = [Mode::Exclusive, Mode::Shared, Mode::Permits(permits)];
    let wait_left = Duration::from_millis(random.random_range(0..3_000));
    claim(kinds[random.random_range(0..3)], random.random_bool(0.5), wait_left)
}

/// May all of these hold the key together?
fn fit_together(granted: &[Grant]) -> bool {
    let all = |is: fn(&Mode) -> bool| granted.iter().all(|grant| is(&grant.mode));
    granted.len() <= 1
        || all(|mode| *mode == Mode::Shared)
        || all(|mode| matches!(mode, Mode::Permits(_)))
}

/// No two holders exclude each other, no claim exceeds its own number of permits, tokens grow, and dead
/// holders and waiters do not lock the others out.
#[test]
fn random_requests_keep_the_rules_and_lock_nobody_out() {
    let mut random = StdRng::seed_from_u64(5);
    for _ in 0..2_000 {
        let (mut entry, mut now, mut last) = (Record::default(), SECOND, 0);
        let claims: Vec<_> = (0..6).map(|_| any_claim(&mut random)).collect();
        for _ in 0..60 {
            now += random.random_range(0..SECOND / 2);
            let claim = &claims[random.random_range(0..claims.len())];
            match random.random_range(0..6) {
                0..4 => {
                    entry.expire(now);
                    let held = entry.grant_of(&claim.owner).is_some();
                    let before = entry.granted.len();
                    let verdict = entry.acquire(claim, now, || now.max(last + 1));
                    if let (Decision::Granted(token), false) = (verdict, held) {
                        assert!(token > last);
                        last = token;
                        if let Mode::Permits(limit) = claim.mode {
                            assert!(before < limit.get() as usize);
                        }
                    }
                }
                4 if random.random_bool(0.1) => drop(entry.revoke(now)),
                4 => drop(entry.renew(claim, now)),
                _ => drop(entry.release(claim, Release::default(), now)),
            }
            assert!(fit_together(&entry.granted), "{entry:?}");
        }
        // From here on, all others are dead.
        let survivor = claim(Mode::Exclusive, false, Duration::from_mins(10));
        let began = now;
        while !matches!(entry.acquire(&survivor, now, || last + 1), Decision::Granted(_)) {
            now += SECOND / 10;
            assert!(now - began < 9 * SECOND, "locked out by {entry:?}");
        }
    }
}

fn granted(entry: &mut Record, claim: &Claim, now: Micros) -> bool {
    matches!(entry.acquire(claim, now, || now), Decision::Granted(_))
}

#[test]
fn each_of_several_dead_waiters_costs_at_most_half_a_second() {
    let long = Duration::from_hours(1);
    let (mut entry, mut now) = (Record::default(), SECOND);
    let holder = claim(Mode::Exclusive, false, Duration::ZERO);
    assert!(granted(&mut entry, &holder, now));
    for _ in 0..3 {
        assert!(!granted(&mut entry, &claim(Mode::Exclusive, true, long), now));
    }
    let alive = claim(Mode::Exclusive, true, long);
    assert!(!granted(&mut entry, &alive, now));
    entry.release(&holder, Release::default(), now);
    let began = now;
    loop {
        match entry.acquire(&alive, now, || now) {
            Decision::Granted(_) => break,
            Decision::Busy { retry_in, .. } => now += micros(retry_in.unwrap()).max(1),
        }
    }
    assert!(now - began <= 3 * SECOND / 2, "three dead waiters cost {} us", now - began);
}

#[test]
fn an_abandoned_wait_leaves_nothing_behind() {
    let mut entry = Record::default();
    let reader = claim(Mode::Shared, false, Duration::ZERO);
    let writer = claim(Mode::Exclusive, false, TTL);
    assert!(granted(&mut entry, &reader, 0));
    assert!(!granted(&mut entry, &writer, 0));
    assert!(!granted(&mut entry, &claim(Mode::Shared, false, Duration::ZERO), 0));
    entry.release(&writer, Release::default(), 0);
    assert!(granted(&mut entry, &claim(Mode::Shared, false, Duration::ZERO), 0));
    assert!(entry.queue.is_empty());
}

/// Tries to acquire a set at this moment, and checks that it holds all keys or none.
fn try_set(entries: &mut [Record], keys: &[usize], claims: &[Claim], now: Micros) -> bool {
    let chosen = entries.iter_mut().enumerate().filter(|(index, _)| keys.contains(index));
    let parts = chosen.map(|(_, entry)| Part { entry, now, next_token: now });
    let verdict = acquire_set(&mut parts.collect::<Vec<_>>(), claims);
    let inside = keys.iter().zip(claims).filter(|(key, claim)| {
        entries[**key].granted.iter().any(|grant| grant.owner == Some(claim.owner))
    });
    let inside = inside.count();
    let granted = matches!(verdict, SetDecision::Granted(_));
    assert_eq!(inside, if granted { keys.len() } else { 0 }, "{entries:?}");
    granted
}

fn leave(entries: &mut [Record], keys: &[usize], claims: &[Claim], now: Micros) {
    for (key, claim) in keys.iter().zip(claims) {
        entries[*key].release(claim, Release::default(), now);
    }
}

/// Overlapping sets of every mode, each retried until it is granted: all of them are granted, and no two
/// holders exclude each other.
#[test]
fn overlapping_sets_are_all_granted() {
    let mut random = StdRng::seed_from_u64(7);
    let all_keys: [&[usize]; 5] = [&[0, 1], &[1, 2], &[0, 2], &[0, 1, 2], &[1]];
    for _ in 0..500 {
        let fair = random.random_bool(0.7);
        let mut entries = vec![Record::default(); 3];
        let mut now = SECOND;
        let mut waiting: Vec<(&[usize], Vec<Claim>)> = (0..8)
            .map(|_| {
                let keys = all_keys[random.random_range(0..all_keys.len())];
                let kind = any_claim(&mut random).mode;
                let claims = keys.iter().map(|_| claim(kind, fair, Duration::from_hours(1)));
                (keys, claims.collect())
            })
            .collect();
        let mut inside: Vec<(&[usize], Vec<Claim>)> = vec![];
        let mut tries = 0;
        while !waiting.is_empty() {
            // Small steps, so that the first waiters show themselves in time.
            now += SECOND / 200;
            let index = random.random_range(0..waiting.len());
            let (keys, claims) = &waiting[index];
            if try_set(&mut entries, keys, claims, now) {
                inside.push(waiting.swap_remove(index));
            } else if random.random_bool(0.3) && !inside.is_empty() {
                let (keys, claims) = inside.swap_remove(0);
                leave(&mut entries, keys, &claims, now);
            }
            assert!(entries.iter().all(|entry| fit_together(&entry.granted)), "{entries:?}");
            tries += 1;
            assert!(tries < 5_000, "{waiting:?} wait for each other: {entries:?}");
        }
    }
}

#[test]
fn a_waiting_set_goes_before_later_claims() {
    let long = Duration::from_hours(1);
    let mut entries = vec![Record::default(); 2];
    let [holder, later] = [(); 2].map(|()| claim(Mode::Exclusive, false, long));
    let set = [(); 2].map(|()| claim(Mode::Exclusive, true, long));
    assert!(granted(&mut entries[1], &holder, 0));
    assert!(!try_set(&mut entries, &[0, 1], &set, 0));
    // The first key is free, but not for a later claim.
    assert!(!granted(&mut entries[0], &later, 1));
    entries[1].release(&holder, Release::default(), 2);
    assert!(try_set(&mut entries, &[0, 1], &set, 3));
    leave(&mut entries, &[0, 1], &set, 4);
    assert!(granted(&mut entries[0], &later, 5));
}
