use super::*;

const TIMEOUT: Duration = Duration::from_secs(6);

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// What the leader has really heard from a follower that reports to it twice per tick.
struct Servers {
    start: Moment,
    /// The time between two reports: half a tick. The shortest timeout has two ticks.
    period: f64,
    /// When the follower sends the first report.
    phase: f64,
    /// When the follower is cut off.
    cut: f64,
}

impl Servers {
    fn at(&self, seconds: f64) -> Moment {
        self.start.plus(secs(seconds))
    }

    /// The last report that the leader has when it gets a write that reached the follower at this moment.
    fn last_report(&self, until: f64) -> f64 {
        let until = until.min(self.cut);
        let reports = ((until - self.phase) / self.period).floor();
        self.phase + reports * self.period
    }
}

/// Uses a session at this rate for this long. Every `nth` request is a write, and a follower answers the others. At each
/// write, compares what `Proofs` knows with what the leader has heard: it must never know more. Returns the greatest age of
/// a proof after the first timeout.
fn oldest_proof(servers: &Servers, rate: f64, nth: u64, takes: f64, lasts: f64) -> f64 {
    let mut proofs = Proofs::new(TIMEOUT, servers.start);
    let (mut oldest, mut number) = (0.0_f64, 0_u64);
    let mut heard = 0.0_f64;
    let mut touches = VecDeque::new();
    loop {
        number += 1;
        // Small numbers are exact as an f64.
        #[expect(clippy::cast_precision_loss)]
        let sent = number as f64 / rate;
        if sent > lasts {
            return oldest;
        }
        let arrived = sent + takes / 2.0;
        touches.push_back(arrived);
        let committed = number % nth == 0 && arrived < servers.cut;
        if committed {
            proofs.committed(servers.at(sent));
            let report = servers.last_report(arrived);
            while touches.front().is_some_and(|touch| *touch <= report) {
                heard = touches.pop_front().unwrap_or_default();
            }
            let known = proofs.known.since(&servers.start).as_secs_f64();
            assert!(known <= heard + 1e-9, "known at {known}, heard of at {heard}, at {sent}");
            if sent > TIMEOUT.as_secs_f64() {
                oldest = oldest.max(sent + takes - known);
            }
        }
        proofs.answered(servers.at(sent), servers.at(sent + takes));
        assert!(proofs.slices.len() <= MOST, "{}", proofs.slices.len());
    }
}

#[tokio::test]
async fn a_proof_is_young_at_every_rate() {
    let timeout = TIMEOUT.as_secs_f64();
    let servers =
        Servers { start: Moment::now(), period: timeout / 4.0, phase: 0.7, cut: f64::MAX };
    for rate in [1.0, 3.0, 10.0, 32.0, 100.0, 1_000.0, 10_000.0, 100_000.0] {
        for nth in [1, 2, 7] {
            let takes = 0.002;
            let oldest = oldest_proof(&servers, rate, nth, takes, timeout * 3.0);
            // A report, a slice, and the time between two requests and between two writes.
            let writes = f64::from(u32::try_from(nth).unwrap()) / rate;
            let limit = timeout / 3.0 + timeout / 60.0 + 2.0 / rate + writes + 2.0 * takes;
            assert!(oldest <= limit, "{oldest} s at {rate}/s, one in {nth} a write");
        }
    }
}

#[tokio::test]
async fn a_beat_is_enough_for_half_a_timeout() {
    // The lowest rate that occurs.
    let servers = Servers { start: Moment::now(), period: 1.5, phase: 0.2, cut: f64::MAX };
    let rate = 1.0 / Proofs::beat(TIMEOUT).as_secs_f64();
    let oldest = oldest_proof(&servers, rate, 1, 0.01, 60.0);
    assert!(oldest <= TIMEOUT.as_secs_f64() * 0.52, "{oldest} s");
}

#[tokio::test]
async fn no_more_is_known_than_the_leader_has_heard() {
    let start = Moment::now();
    for rate in [0.1, 0.5, 1.0, 5.0, 33.0, 500.0, 5_000.0] {
        for phase in [0.0, 0.3, 1.1, 1.49] {
            for takes in [0.000_1, 0.05, 0.9, 2.9] {
                for (nth, cut) in [(1, f64::MAX), (3, f64::MAX), (1, 7.3), (5, 11.0)] {
                    let servers = Servers { start, period: 1.5, phase, cut };
                    // This compares at each write.
                    oldest_proof(&servers, rate, nth, takes, 20.0);
                }
            }
        }
    }
}

#[tokio::test]
async fn memory_is_bounded_without_a_proof() {
    let start = Moment::now();
    let mut proofs = Proofs::new(TIMEOUT, start);
    for number in 0..100_000 {
        let at = start.plus(Duration::from_millis(number));
        proofs.answered(at, at);
        assert!(proofs.slices.len() <= MOST);
    }
    assert!(proofs.known.since(&start).is_zero(), "the answers of a follower alone prove nothing");
    // One write proves all that is a report older.
    proofs.committed(start.plus(Duration::from_secs(100)));
    let known = proofs.known.since(&start);
    assert!(known <= Duration::from_secs(98) && known > Duration::from_millis(97_800), "{known:?}");
}

#[tokio::test]
async fn a_request_that_took_long_counts_from_its_sending() {
    let start = Moment::now();
    let at = |seconds| start.plus(Duration::from_secs(seconds));
    let mut proofs = Proofs::new(TIMEOUT, start);
    proofs.answered(at(4), at(5));
    // Sent before it, answered after it, in the same slice.
    proofs.answered(at(1), at(5).plus(Duration::from_millis(1)));
    proofs.committed(at(7));
    assert!(proofs.known.since(&start).is_zero(), "the later answer is not a report old");
    proofs.committed(at(8));
    assert_eq!(proofs.known.since(&start), Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn a_proof_ages() {
    let mut proofs = Proofs::new(TIMEOUT, Moment::now());
    let whole = validity_of(TIMEOUT);
    let near = |left: Duration, expected: Duration| left.abs_diff(expected) < secs(0.01);
    assert!(near(proofs.remaining(), whole));
    tokio::time::advance(secs(1.0)).await;
    proofs.touched(Moment::now());
    tokio::time::advance(secs(2.5)).await;
    assert!(near(proofs.remaining(), whole.saturating_sub(secs(3.5))));
    proofs.wrote(Moment::now());
    assert!(near(proofs.remaining(), whole.saturating_sub(secs(2.5))));
    tokio::time::advance(secs(10.0)).await;
    assert_eq!(proofs.remaining(), Duration::ZERO);
}
