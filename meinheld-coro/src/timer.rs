//! Timers: an indexed binary heap, so that arming, cancelling and expiring are O(log n).
//!
//! Time is passed in. Two timers with one deadline expire in the order in which they were armed.
//! Not here: any clock, or what a timer is for.

use std::num::NonZeroU64;
use std::time::Instant;

use slab::Slab;

/// Names an armed timer; a stale one names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId {
    order: NonZeroU64,
    slot: u32,
}

/// A set of timers, each with a key that is handed back when it expires or is cancelled.
#[derive(Debug)]
pub struct Timers<K> {
    /// INVARIANT: a heap by `(deadline, order)`, and `slots[heap[i].slot].position == i` for all i.
    heap: Vec<Entry>,
    slots: Slab<Slot<K>>,
    /// The number of the next one.
    armed: NonZeroU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    deadline: Instant,
    order: NonZeroU64,
    slot: u32,
}

#[derive(Debug)]
struct Slot<K> {
    position: usize,
    key: K,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Timers { heap: Vec::new(), slots: Slab::new(), armed: NonZeroU64::MIN }
    }
}

impl<K> Timers<K> {
    /// Arms a timer that expires at `deadline`.
    ///
    /// # Panics
    /// If there are four billion of them.
    pub fn arm(&mut self, deadline: Instant, key: K) -> TimerId {
        let position = self.heap.len();
        let slot = self.slots.insert(Slot { position, key });
        let slot = u32::try_from(slot).expect("four billion timers do not fit in memory");
        let order = self.armed;
        self.armed = order.saturating_add(1);
        self.heap.push(Entry { deadline, order, slot });
        self.sift_up(position);
        TimerId { order, slot }
    }

    /// Disarms a timer and hands back its key; `None` if it has expired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> Option<K> {
        let position = self.position(id)?;
        Some(self.remove(position))
    }

    /// When a timer expires; `None` if it has, or was cancelled.
    pub fn deadline(&self, id: TimerId) -> Option<Instant> {
        self.position(id).map(|position| self.heap[position].deadline)
    }

    /// Takes the earliest timer out whose deadline is not after `now`.
    pub fn pop_expired(&mut self, now: Instant) -> Option<K> {
        let first = self.heap.first()?;
        (first.deadline <= now).then(|| self.remove(0))
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.heap.first().map(|entry| entry.deadline)
    }

    /// How many timers are armed.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    fn position(&self, id: TimerId) -> Option<usize> {
        let position = self.slots.get(id.slot as usize)?.position;
        (self.heap[position].order == id.order).then_some(position)
    }

    fn remove(&mut self, position: usize) -> K {
        let entry = self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.slots[self.heap[position].slot as usize].position = position;
            self.sift_down(position);
            self.sift_up(position);
        }
        self.slots.remove(entry.slot as usize).key
    }

    fn sift_up(&mut self, mut position: usize) {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent] <= self.heap[position] {
                break;
            }
            self.swap(parent, position);
            position = parent;
        }
    }

    fn sift_down(&mut self, mut position: usize) {
        loop {
            let left = 2 * position + 1;
            let Some(mut child) = (left < self.heap.len()).then_some(left) else { break };
            if left + 1 < self.heap.len() && self.heap[left + 1] < self.heap[left] {
                child = left + 1;
            }
            if self.heap[position] <= self.heap[child] {
                break;
            }
            self.swap(position, child);
            position = child;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.slots[self.heap[a].slot as usize].position = a;
        self.slots[self.heap[b].slot as usize].position = b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timers_expire_in_order_of_deadline_and_then_of_arming() {
        let start = Instant::now();
        let mut timers = Timers::default();
        for (ms, key) in [(30, 'd'), (10, 'a'), (20, 'b'), (20, 'c')] {
            timers.arm(start + Duration::from_millis(ms), key);
        }
        assert_eq!(timers.next_deadline(), Some(start + Duration::from_millis(10)));
        assert_eq!(timers.pop_expired(start), None);
        let late = start + Duration::from_millis(25);
        let expired: Vec<char> = std::iter::from_fn(|| timers.pop_expired(late)).collect();
        assert_eq!(expired, ['a', 'b', 'c']);
        assert_eq!(timers.len(), 1);
    }

    #[test]
    fn a_cancelled_or_expired_timer_cannot_be_cancelled_again() {
        let start = Instant::now();
        let mut timers = Timers::default();
        let id = timers.arm(start, 1);
        assert_eq!(timers.deadline(id), Some(start));
        assert_eq!(timers.cancel(id), Some(1));
        assert_eq!((timers.cancel(id), timers.deadline(id)), (None, None));
        let reused = timers.arm(start, 2);
        assert_eq!(timers.cancel(id), None, "a stale id must not hit the slot's next timer");
        assert_eq!(timers.pop_expired(start), Some(2));
        assert_eq!(timers.cancel(reused), None);
        assert!(timers.is_empty());
    }

    #[test]
    fn any_order_of_arming_and_cancelling_keeps_the_heap_sorted() {
        let start = Instant::now();
        let mut timers = Timers::default();
        let mut seed = 12_345_u64;
        let mut ids = Vec::new();
        for key in 0..2000_u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
            let deadline = start + Duration::from_micros(seed >> 44);
            ids.push((timers.arm(deadline, (deadline, key)), deadline, key));
            if seed & 0x3000 == 0 {
                let (id, deadline, key) = ids.swap_remove((seed >> 20) as usize % ids.len());
                assert_eq!(timers.cancel(id), Some((deadline, key)));
            }
        }
        let mut expected: Vec<_> = ids.iter().map(|&(_, deadline, key)| (deadline, key)).collect();
        expected.sort_unstable();
        let end = start + Duration::from_secs(60);
        let popped: Vec<_> = std::iter::from_fn(|| timers.pop_expired(end)).collect();
        assert_eq!(popped, expected);
    }
}
