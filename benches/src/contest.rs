//! Contenders that take turns: a round gives a slice of time to each of them, so that what disturbs the
//! machine disturbs all of them, and the ratio of two is taken within one round.

use std::collections::HashMap;
use std::time::Duration;

use crate::contender::{Contender, Entry, Role, Slice, count};
use crate::figure::{Figure, Spread, Unit, quantile};
use crate::outcome::{Outcome, Side};
use crate::row::Plan;
use crate::usage;

/// What the servers have done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// The CPU time of all servers.
    pub cpu: Duration,
    /// The commands that they have executed, those inside scripts included.
    pub commands: Option<f64>,
    /// The scripts that clients have called.
    pub scripts: Option<f64>,
}

type Probe = Box<dyn FnMut() -> Reading + Send>;

/// Contenders on the same servers.
#[derive(Default)]
pub struct Contest {
    contenders: Vec<Contender>,
    probe: Option<Probe>,
    /// How many tasks or processes share one key, if they do.
    sharing: Option<u32>,
}

impl Contest {
    /// Adds a contender. dlock comes first.
    #[must_use]
    pub fn with(mut self, contender: Contender) -> Self {
        self.contenders.push(contender);
        self
    }

    /// Also measures the servers.
    #[must_use]
    pub fn probe(mut self, probe: impl FnMut() -> Reading + Send + 'static) -> Self {
        self.probe = Some(Box::new(probe));
        self
    }

    /// Also looks at who of this many held the lock when.
    #[must_use]
    pub fn shared_by(mut self, sharing: u32) -> Self {
        self.sharing = Some(sharing);
        self
    }

    /// Lets the contenders take turns.
    ///
    /// # Panics
    /// If dlock is not among them.
    pub async fn measure(mut self, plan: Plan) -> Outcome {
        let mut samples: Vec<_> = self.contenders.iter().map(|_| Samples::default()).collect();
        for contender in &self.contenders {
            // Connections, caches and compilers.
            contender.run(plan.slice).await;
        }
        for round in 0..plan.rounds {
            for turn in 0..self.contenders.len() {
                // Each comes after each other one in turn.
                let index = (turn + round as usize) % self.contenders.len();
                let contender = &self.contenders[index];
                let before = self.probe.as_mut().map(|probe| probe());
                let client = usage::cpu_time();
                let mut slice = contender.run(plan.slice).await;
                let client = usage::cpu_time().saturating_sub(client);
                let after = self.probe.as_mut().map(|probe| probe());
                let sample = &mut samples[index];
                sample.rates.push(slice.cycles / plan.slice.as_secs_f64());
                sample.cycles += slice.all_cycles;
                sample.client += client;
                sample.add_reading(before.unwrap_or_default(), after.unwrap_or_default());
                if let Some(sharing) = self.sharing {
                    sample.add_entries(&mut slice, sharing);
                }
            }
        }
        let dlock = self.contenders.iter().position(|one| one.role == Role::Dlock);
        let dlock = samples[dlock.expect("dlock")].rates.clone();
        let sides = self.contenders.into_iter().zip(samples);
        let sides = sides.map(|(contender, samples)| samples.side(contender, &dlock)).collect();
        Outcome { sides, notes: vec![] }
    }
}

/// What was measured of one contender.
#[derive(Default)]
struct Samples {
    rates: Vec<f64>,
    cycles: f64,
    client: Duration,
    server: Duration,
    commands: Option<f64>,
    scripts: Option<f64>,
    /// From one holder to the next one, in nanoseconds.
    hand_overs: Vec<f64>,
    waits: Vec<f64>,
    luckiest: Vec<f64>,
}

impl Samples {
    fn add_reading(&mut self, before: Reading, after: Reading) {
        self.server += after.cpu.saturating_sub(before.cpu);
        let add = |sum: &mut Option<f64>, before: Option<f64>, after: Option<f64>| {
            if let (Some(before), Some(after)) = (before, after) {
                *sum.get_or_insert_default() += after - before;
            }
        };
        add(&mut self.commands, before.commands, after.commands);
        add(&mut self.scripts, before.scripts, after.scripts);
    }

    fn add_entries(&mut self, slice: &mut Slice, sharing: u32) {
        let entries = &mut slice.entries;
        entries.sort_by_key(|entry| entry.at);
        let changes = entries.windows(2).filter(|pair| pair[0].who != pair[1].who);
        self.hand_overs.extend(changes.map(|pair| nanoseconds(pair[1].at - pair[0].at)));
        self.waits.extend(entries.iter().map(|entry| nanoseconds(entry.waited)));
        if let Some(most) = most_of_one(entries) {
            self.luckiest.push(most * f64::from(sharing) / count(entries.len()));
        }
    }

    fn side(mut self, contender: Contender, dlock: &[f64]) -> Side {
        let mut figures = Vec::new();
        let cycles = self.cycles.max(1.0);
        let mut each = |name, time: Duration| {
            let value = time.as_secs_f64() * 1e6 / cycles;
            if value > 0.0 {
                figures.push(Figure::new(name, value, Unit::Microseconds));
            }
        };
        each("server CPU", self.server);
        if contender.is_in_process {
            each("client CPU", self.client);
        }
        for (name, number) in [("commands", self.commands), ("scripts", self.scripts)] {
            let number = number.filter(|sum| *sum > 0.0);
            figures.extend(number.map(|sum| Figure::new(name, sum / cycles, Unit::Count)));
        }
        self.hand_overs.sort_by(f64::total_cmp);
        self.waits.sort_by(f64::total_cmp);
        for (name, times, share) in [
            ("hand-over p50", &self.hand_overs, 0.5),
            ("hand-over p99", &self.hand_overs, 0.99),
            ("wait p99", &self.waits, 0.99),
        ] {
            if let Some(time) = quantile(times, share) {
                figures.push(Figure::new(name, time / 1e6, Unit::Milliseconds));
            }
        }
        if !self.luckiest.is_empty() {
            let luckiest = Spread::of(self.luckiest).median;
            figures.push(Figure::new("luckiest", luckiest, Unit::Times));
        }
        let ratios = dlock.iter().zip(&self.rates).map(|(ours, theirs)| ours / theirs.max(1e-9));
        let ratio = (contender.role != Role::Dlock).then(|| Spread::of(ratios.collect()));
        let Contender { name, role, remark, .. } = contender;
        Side { name, role, remark, rate: Some(Spread::of(self.rates)), ratio, figures }
    }
}

fn most_of_one(entries: &[Entry]) -> Option<f64> {
    let mut times: HashMap<u32, usize> = HashMap::new();
    for entry in entries {
        *times.entry(entry.who).or_default() += 1;
    }
    times.into_values().max().map(count)
}

fn nanoseconds(number: u64) -> f64 {
    Duration::from_nanos(number).as_secs_f64() * 1e9
}
