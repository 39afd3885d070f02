//! The last records, in memory of a fixed size.

use super::record::Record;

/// A ring of records: each new one overwrites the oldest once it is full.
#[derive(Debug)]
pub(super) struct Ring {
    records: Vec<Record>,
    capacity: usize,
    /// The place of the next record, once the ring is full.
    next: usize,
    /// Records so far, those that were overwritten among them.
    total: u64,
}

impl Ring {
    /// An empty ring. Its memory is taken as records come.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            records: Vec::new(),
            capacity: capacity.max(1),
            next: 0,
            total: 0,
        }
    }

    #[inline]
    pub(super) fn push(&mut self, record: Record) {
        self.total += 1;
        if self.records.len() < self.capacity {
            self.records.push(record);
            return;
        }
        self.records[self.next] = record;
        self.next += 1;
        if self.next == self.capacity {
            self.next = 0;
        }
    }

    /// Puts a record in the place of the last one.
    pub(super) fn replace_last(&mut self, record: Record) {
        let last = match self.next {
            0 => self.records.len(),
            next => next,
        };
        if let Some(place) = self.records.get_mut(last.wrapping_sub(1)) {
            *place = record;
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Iterates over the records from number `from` on, the oldest first; over those that are still there.
    pub(super) fn since(&self, from: u64) -> impl Iterator<Item = &Record> {
        let overwritten = self.total - self.records.len() as u64;
        let skipped = usize::try_from(from.saturating_sub(overwritten)).unwrap_or(usize::MAX);
        let (newer, older) = self.records.split_at(self.next);
        older.iter().chain(newer).skip(skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Kind;
    use super::*;

    #[test]
    fn a_full_ring_holds_the_last_records_in_order() {
        let mut ring = Ring::new(3);
        for number in 0..8 {
            let amounts = |from| ring.since(from).map(|record| record.amount).collect();
            let held: Vec<u64> = amounts(0);
            assert_eq!(
                held,
                (u64::saturating_sub(number, 3)..number).collect::<Vec<_>>()
            );
            let last: Vec<u64> = amounts(number.saturating_sub(1));
            assert_eq!(last, (number.saturating_sub(1)..number).collect::<Vec<_>>());
            assert_eq!(amounts(number + 9), [0; 0]);
            ring.push(Record {
                amount: number,
                ..Record::new(Kind::Read)
            });
            assert_eq!(ring.total(), number + 1);
            ring.replace_last(Record {
                amount: number,
                ..Record::new(Kind::Write)
            });
            let kinds = ring.since(0).map(|record| record.kind);
            assert!(kinds.eq(vec![Kind::Write; ring.records.len()]));
        }
    }
}
