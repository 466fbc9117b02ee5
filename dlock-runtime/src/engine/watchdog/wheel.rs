//! A timing wheel: adds, moves and removes an item in constant time, and in a steady state without an allocation,
//! because most holds are removed long before they are due.

use std::time::Duration;

use tokio::time::Instant;

/// How much time one slot covers.
const STEP: Duration = Duration::from_millis(50);

/// The number of slots. An item that is due after the last one is visited once per turn of the wheel.
const SLOTS: usize = 1024;

const SLOTS_U64: u64 = SLOTS as u64;

/// Where an item is in the wheel. Valid until the item is removed.
pub(super) type Place = u32;

/// The end of a list.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Wheel<T> {
    origin: Instant,
    /// The step that the wheel has reached: all slots before it are empty.
    now: u64,
    slots: Box<[Slot]>,
    /// One bit for each slot that is not empty.
    filled: [u64; SLOTS / 64],
    items: Vec<Item<T>>,
    /// The first unused place; the others follow in `next`.
    unused: u32,
}

/// A list of the items that are due during one step.
#[derive(Clone, Copy, Debug)]
struct Slot {
    first: u32,
    /// No item of the slot is due before this. Removing an item does not change it.
    earliest: Option<Instant>,
}

#[derive(Debug)]
struct Item<T> {
    /// `None` at an unused place.
    value: Option<T>,
    due: Instant,
    /// The slot's index, or `NONE` if the item has been taken out and not put back yet.
    slot: u32,
    previous: u32,
    next: u32,
}

impl<T> Wheel<T> {
    pub(super) fn new(origin: Instant) -> Self {
        Self {
            origin,
            now: 0,
            slots: vec![Slot { first: NONE, earliest: None }; SLOTS].into(),
            filled: [0; SLOTS / 64],
            items: Vec::new(),
            unused: NONE,
        }
    }

    pub(super) fn add(&mut self, value: T, due: Instant) -> Place {
        let item = Item { value: Some(value), due, slot: NONE, previous: NONE, next: NONE };
        let place = self.unused;
        let place = if place == NONE {
            self.items.push(item);
            u32::try_from(self.items.len() - 1).expect("fewer than four billion holds")
        } else {
            self.unused = self.item(place).next;
            *self.item(place) = item;
            place
        };
        self.link(place);
        place
    }

    /// Puts an item to another time, or back after it was taken out.
    pub(super) fn put(&mut self, place: Place, due: Instant) {
        self.unlink(place);
        self.item(place).due = due;
        self.link(place);
    }

    pub(super) fn remove(&mut self, place: Place) {
        self.unlink(place);
        let unused = self.unused;
        let item = self.item(place);
        item.value = None;
        item.next = unused;
        self.unused = place;
    }

    /// All items, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        self.items.iter().filter_map(|item| item.value.as_ref())
    }

    /// Takes out all items that are due before `horizon`. They keep their places until they are put back or removed.
    pub(super) fn take_until(&mut self, horizon: Instant, mut each: impl FnMut(&T)) {
        let last = self.step_of(horizon);
        let mut from = self.now;
        let end = from.saturating_add(SLOTS_U64).min(last.saturating_add(1));
        self.now = self.now.max(last);
        while let Some(step) = self.first_filled(from, end) {
            let slot = &mut self.slots[index(step)];
            let mut next = std::mem::replace(&mut slot.first, NONE);
            slot.earliest = None;
            self.mark(index(step), false);
            while next != NONE {
                let place = next;
                let item = self.item(place);
                next = item.next;
                item.slot = NONE;
                if item.due < horizon {
                    if let Some(value) = &item.value {
                        each(value);
                    }
                } else {
                    self.link(place);
                }
            }
            from = step + 1;
        }
    }

    /// Shows items that are due before `horizon`, some of the earliest ones and at most `limit`. They stay where they
    /// are.
    pub(super) fn show_until(&self, horizon: Instant, limit: usize, mut each: impl FnMut(&T)) {
        let last = self.step_of(horizon);
        let end = (self.now + SLOTS_U64).min(last.saturating_add(1));
        let (mut from, mut left) = (self.now, limit);
        while let Some(step) = self.first_filled(from, end) {
            let mut next = self.slots[index(step)].first;
            while next != NONE {
                if left == 0 {
                    return;
                }
                left -= 1;
                let item = &self.items[next as usize];
                if let Some(value) = item.value.as_ref().filter(|_| item.due < horizon) {
                    each(value);
                }
                next = item.next;
            }
            from = step + 1;
        }
    }

    /// When to take out items next. Not later than the first item is due, but it may be earlier.
    pub(super) fn earliest(&self) -> Option<Instant> {
        let step = self.first_filled(self.now, self.now + SLOTS_U64)?;
        // An item that is due after the last slot waits in it, so the slot is visited when its time comes.
        let end = self.origin + STEP.saturating_mul(u32::try_from(step + 1).unwrap_or(u32::MAX));
        Some(self.slots[index(step)].earliest.map_or(end, |earliest| earliest.min(end)))
    }

    /// Takes every item out of the wheel.
    pub(super) fn drain(&mut self) -> Vec<T> {
        let origin = self.origin;
        let all = std::mem::replace(self, Self::new(origin));
        all.items.into_iter().filter_map(|item| item.value).collect()
    }

    fn link(&mut self, place: Place) {
        let due = self.item(place).due;
        let step = self.step_of(due).clamp(self.now, self.now + SLOTS_U64 - 1);
        let at = index(step);
        let slot = &mut self.slots[at];
        let next = std::mem::replace(&mut slot.first, place);
        slot.earliest = Some(slot.earliest.map_or(due, |earliest| earliest.min(due)));
        self.mark(at, true);
        if next != NONE {
            self.item(next).previous = place;
        }
        let item = self.item(place);
        item.slot = u32::try_from(at).unwrap_or(NONE);
        item.previous = NONE;
        item.next = next;
    }

    /// Does nothing if the item has been taken out.
    fn unlink(&mut self, place: Place) {
        let item = self.item(place);
        let (slot, previous, next) = (item.slot, item.previous, item.next);
        if slot == NONE {
            return;
        }
        item.slot = NONE;
        if next != NONE {
            self.item(next).previous = previous;
        }
        if previous == NONE {
            let slot = slot as usize;
            self.slots[slot].first = next;
            if next == NONE {
                self.slots[slot].earliest = None;
                self.mark(slot, false);
            }
        } else {
            self.item(previous).next = next;
        }
    }

    fn item(&mut self, place: Place) -> &mut Item<T> {
        &mut self.items[place as usize]
    }

    fn step_of(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.origin).as_nanos() / STEP.as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    fn mark(&mut self, slot: usize, is_filled: bool) {
        let bit = 1 << (slot % 64);
        if is_filled {
            self.filled[slot / 64] |= bit;
        } else {
            self.filled[slot / 64] &= !bit;
        }
    }

    /// The first step whose slot is not empty, from `from` on and before `end`, within one turn of the wheel.
    fn first_filled(&self, from: u64, end: u64) -> Option<u64> {
        let mut step = from;
        while step < end {
            let at = index(step);
            let rest = self.filled[at / 64] >> (at % 64);
            if rest != 0 {
                let found = step + u64::from(rest.trailing_zeros());
                return (found < end).then_some(found);
            }
            step += 64 - (at % 64) as u64;
        }
        None
    }
}

fn index(step: u64) -> usize {
    usize::try_from(step % SLOTS_U64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(wheel: &mut Wheel<u32>, horizon: Instant) -> Vec<u32> {
        let mut all = vec![];
        wheel.take_until(horizon, |value| all.push(*value));
        all.sort_unstable();
        all
    }

    #[test]
    fn items_are_taken_once_they_are_due() {
        let origin = Instant::now();
        let at = |millis| origin + Duration::from_millis(millis);
        let mut wheel = Wheel::new(origin);
        let one = wheel.add(1, at(120));
        wheel.add(2, at(130));
        wheel.add(3, at(20_000));
        wheel.add(4, at(0));
        assert_eq!(wheel.earliest(), Some(at(0)));
        assert_eq!(taken(&mut wheel, at(100)), [4]);
        assert_eq!(wheel.earliest(), Some(at(120)));
        assert_eq!(taken(&mut wheel, at(125)), [1]);
        wheel.put(one, at(140));
        assert_eq!(taken(&mut wheel, at(135)), [2]);
        wheel.remove(one);
        assert!(taken(&mut wheel, at(19_999)).is_empty());
        let mut shown = vec![];
        wheel.show_until(at(20_001), 5, |value| shown.push(*value));
        assert_eq!(shown, [3]);
        assert_eq!(taken(&mut wheel, at(20_001)), [3]);
        assert_eq!(wheel.earliest(), None);
    }

    #[test]
    fn an_item_beyond_the_last_slot_is_taken_when_it_is_due() {
        let origin = Instant::now();
        let due = origin + Duration::from_hours(30);
        let mut wheel = Wheel::new(origin);
        wheel.add(1, due);
        let mut visits = 0;
        loop {
            let next = wheel.earliest().unwrap();
            assert!(next <= due);
            visits += 1;
            if taken(&mut wheel, next + Duration::from_millis(1)) == [1] {
                assert!(next >= due);
                break;
            }
        }
        assert!(visits < 3_000, "{visits} visits");
    }

    #[test]
    fn a_removed_place_is_used_again() {
        let origin = Instant::now();
        let mut wheel = Wheel::new(origin);
        for number in 0..10_000_u32 {
            let place = wheel.add(number, origin + Duration::from_millis(u64::from(number) * 7));
            wheel.remove(place);
        }
        assert_eq!(wheel.items.len(), 1);
        assert_eq!(wheel.earliest(), None);
    }

    /// Compares the wheel with a list, in a long random sequence of calls.
    #[test]
    fn the_wheel_forgets_nothing_and_is_never_late() {
        let origin = Instant::now();
        let mut wheel = Wheel::new(origin);
        let mut listed: Vec<(u32, Place, Instant)> = vec![];
        let mut now = origin;
        for number in 0..20_000 {
            let within = rand::random_range(0..200_000);
            let due = now + Duration::from_millis(rand::random_range(0..=within));
            match rand::random_range(0..4) {
                0 | 1 => listed.push((number, wheel.add(number, due), due)),
                2 if !listed.is_empty() => {
                    let at = rand::random_range(0..listed.len());
                    if rand::random() {
                        wheel.remove(listed.swap_remove(at).1);
                    } else {
                        wheel.put(listed[at].1, due);
                        listed[at].2 = due;
                    }
                }
                _ => {
                    now += Duration::from_millis(rand::random_range(0..3_000));
                    if rand::random_ratio(1, 100) {
                        now += Duration::from_secs(200);
                    }
                    let first = listed.iter().map(|(_, _, due)| *due).min();
                    assert!(first.is_none_or(|first| wheel.earliest().unwrap() <= first));
                    let is_due = |(_, _, due): &(u32, Place, Instant)| *due < now;
                    let mut expected: Vec<_> =
                        listed.iter().filter(|item| is_due(item)).map(|item| item.0).collect();
                    expected.sort_unstable();
                    assert_eq!(taken(&mut wheel, now), expected);
                    for (_, place, _) in listed.extract_if(.., |item| is_due(item)) {
                        wheel.remove(place);
                    }
                }
            }
        }
        let mut rest = wheel.drain();
        rest.sort_unstable();
        let mut expected: Vec<_> = listed.iter().map(|item| item.0).collect();
        expected.sort_unstable();
        assert_eq!(rest, expected);
    }
}
