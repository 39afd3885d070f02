//! Storage of the sources: a slab in pages of fixed size.
//!
//! A single slab is one vector, and a full vector moves: the connection after the 524,288th would wait until 25 MB have
//! been copied to a vector of twice the size, and all other connections with it. (glibc lets the kernel remap the pages by
//! mremap(2) instead; other allocators copy.) A page of [`PAGE`] slots never grows, so that nothing moves, and a new
//! connection costs at most the allocation of one page.
//!
//! ```text
//!   pages   [ slab of 4,096 ] [ slab of 4,096 ] [ no memory ] [ slab of 4,096 ]
//!   open      pages with memory and a free slot, the next one to use at the end
//!   bare      pages without memory
//! ```
//!
//! A slot number is the page number followed by the place in the page; finding a slot costs one more load than in a single
//! vector. A page that becomes empty is freed if another page is empty and more are allocated than were preallocated. So
//! the memory of a million closed connections returns to the allocator, while a connection that opens and closes again and
//! again allocates nothing: a whole page of connections lies between allocating a page and freeing it. One open connection
//! keeps its page of 192 KiB, since the interest list holds its slot number.

use slab::Slab;

/// Slots of a page. Few enough that allocating a page is quick and pages become empty; enough that the list of the 245
/// pages of a million connections fits into the first-level cache.
pub(super) const PAGE: usize = 1 << PAGE_BITS;
const PAGE_BITS: u32 = 12;

/// Values of one type under slot numbers that never change.
#[derive(Debug)]
pub(super) struct PagedSlab<T> {
    pages: Vec<Slab<T>>,
    /// Pages with memory and a free slot, each once.
    open: Vec<u32>,
    /// Pages without memory.
    bare: Vec<u32>,
    /// Number of open pages without a value.
    empty: usize,
    /// Number of pages that stay allocated.
    preallocated: usize,
    len: usize,
}

impl<T> PagedSlab<T> {
    pub(super) fn new() -> Self {
        Self {
            pages: Vec::new(),
            open: Vec::new(),
            bare: Vec::new(),
            empty: 0,
            preallocated: 0,
            len: 0,
        }
    }

    /// Allocates pages for this many values in all, and keeps them. The kernel provides their memory at the first write.
    pub(super) fn preallocate(&mut self, count: usize) {
        self.preallocated = self.preallocated.max(count.div_ceil(PAGE));
        while self.pages.len() - self.bare.len() < self.preallocated {
            self.make_page();
        }
        // The lists of pages must not grow later, either.
        self.open.reserve(self.pages.len());
        self.bare.reserve(self.pages.len());
        // The last entry is used next: the first page.
        self.open.sort_unstable_by(|one, other| other.cmp(one));
    }

    /// Allocates a page, and returns its number.
    fn make_page(&mut self) -> usize {
        let page = match self.bare.pop() {
            Some(page) => page as usize,
            None => {
                self.pages.push(Slab::new());
                self.pages.len() - 1
            }
        };
        self.pages[page].reserve_exact(PAGE);
        self.open.push(page as u32);
        self.empty += 1;
        page
    }

    /// Returns the slot number of the next value.
    pub(super) fn next_number(&mut self) -> usize {
        let page = self.open_page();
        number(page, self.pages[page].vacant_key())
    }

    /// Stores a value under [`PagedSlab::next_number`].
    pub(super) fn insert(&mut self, value: T) -> usize {
        let page = self.open_page();
        let slots = &mut self.pages[page];
        let place = slots.insert(value);
        match slots.len() {
            1 => self.empty -= 1,
            PAGE => drop(self.open.pop()),
            _ => {}
        }
        self.len += 1;
        number(page, place)
    }

    /// Returns the most recently freed page with room; allocates one if every page is full.
    fn open_page(&mut self) -> usize {
        match self.open.last() {
            Some(&page) => page as usize,
            None => self.make_page(),
        }
    }

    /// Removes a value.
    ///
    /// # Panics
    /// If the slot is free.
    pub(super) fn remove(&mut self, number: usize) -> T {
        let page = number >> PAGE_BITS;
        let slots = &mut self.pages[page];
        let value = slots.remove(number & (PAGE - 1));
        self.len -= 1;
        if slots.len() + 1 == PAGE {
            self.open.push(page as u32);
        } else if slots.is_empty() {
            self.empty += 1;
            if self.empty > 1 && self.pages.len() - self.bare.len() > self.preallocated {
                self.free_page(page);
            }
        }
        value
    }

    /// Frees the memory of an empty page. A stale event finds no value there, as in any free slot.
    #[cold]
    fn free_page(&mut self, page: usize) {
        self.pages[page] = Slab::new();
        self.empty -= 1;
        self.open.retain(|&open| open as usize != page);
        self.bare.push(page as u32);
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.pages
            .get_mut(number >> PAGE_BITS)?
            .get_mut(number & (PAGE - 1))
    }

    /// Returns the value of a slot that is known to have one.
    ///
    /// # Panics
    /// If the slot is free.
    pub(super) fn at(&self, number: u32) -> &T {
        let number = number as usize;
        &self.pages[number >> PAGE_BITS][number & (PAGE - 1)]
    }

    /// Returns the value of a slot that is known to have one, to change it.
    ///
    /// # Panics
    /// If the slot is free.
    pub(super) fn at_mut(&mut self, number: u32) -> &mut T {
        let number = number as usize;
        &mut self.pages[number >> PAGE_BITS][number & (PAGE - 1)]
    }

    /// Iterates over all values with their slot numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.pages.iter().enumerate().flat_map(|(page, slots)| {
            slots
                .iter()
                .map(move |(place, value)| (number(page, place), value))
        })
    }

    /// Returns the number of values.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of slots that are allocated.
    pub(super) fn capacity(&self) -> usize {
        self.pages.iter().map(Slab::capacity).sum()
    }
}

fn number(page: usize, place: usize) -> usize {
    page << PAGE_BITS | place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_values_are_added_and_none_moves() {
        let mut slots = PagedSlab::new();
        let first = slots.insert(0);
        let address = std::ptr::from_ref(slots.at(first as u32));
        for value in 1..1_000_000 {
            let pages = slots.pages.len();
            let expected = slots.next_number();
            assert_eq!(slots.insert(value), expected);
            assert!(slots.pages.len() <= pages + 1);
            let page = &slots.pages[expected >> PAGE_BITS];
            assert_eq!(page.capacity(), PAGE, "a page keeps its size");
        }
        assert_eq!(std::ptr::from_ref(slots.at(first as u32)), address);
        assert_eq!(slots.pages.len(), 1_000_000_usize.div_ceil(PAGE));
        assert_eq!(slots.len(), 1_000_000);
        assert!(slots.iter().all(|(number, &value)| number == value));
    }

    #[test]
    fn pages_are_freed_as_their_values_are_removed() {
        let mut slots = PagedSlab::new();
        let numbers: Vec<usize> = (0..10 * PAGE).map(|value| slots.insert(value)).collect();
        assert_eq!(slots.capacity(), 10 * PAGE);
        for &number in &numbers {
            assert_eq!(slots.remove(number), number);
        }
        assert_eq!((slots.len(), slots.iter().count()), (0, 0));
        assert_eq!(slots.capacity(), PAGE, "one empty page is kept");
        assert_eq!(slots.get_mut(numbers[0]), None);
        // All slot numbers are used again.
        let mut again: Vec<usize> = (0..10 * PAGE).map(|value| slots.insert(value)).collect();
        again.sort_unstable();
        assert_eq!(again, numbers);
    }

    #[test]
    fn adding_and_removing_at_a_full_page_allocates_nothing() {
        let mut slots = PagedSlab::new();
        for value in 0..PAGE {
            slots.insert(value);
        }
        let new_connection = slots.insert(PAGE);
        for _ in 0..100 {
            slots.remove(new_connection);
            assert_eq!(
                (slots.capacity(), slots.next_number()),
                (2 * PAGE, new_connection)
            );
            slots.insert(PAGE);
        }
    }

    #[test]
    fn preallocated_pages_are_used_from_the_first_on() {
        let mut slots = PagedSlab::new();
        slots.preallocate(PAGE + 1);
        assert_eq!(slots.capacity(), 2 * PAGE);
        assert_eq!(slots.next_number(), 0);
        for value in 0..2 * PAGE {
            assert_eq!(slots.insert(value), value);
        }
        assert_eq!(slots.capacity(), 2 * PAGE);
        slots.preallocate(1);
        assert_eq!(slots.capacity(), 2 * PAGE, "one slot is allocated already");
    }

    #[test]
    fn preallocated_pages_stay_allocated() {
        let mut slots = PagedSlab::new();
        slots.preallocate(3 * PAGE);
        let numbers: Vec<usize> = (0..5 * PAGE).map(|value| slots.insert(value)).collect();
        assert_eq!(slots.capacity(), 5 * PAGE);
        for number in numbers {
            slots.remove(number);
        }
        assert_eq!(slots.capacity(), 3 * PAGE);
        let number = slots.insert(0);
        slots.remove(number);
        assert_eq!(slots.capacity(), 3 * PAGE);
    }

    /// Whichever order pages fill and empty in, a few values that are added and removed allocate no page each time.
    #[test]
    fn adding_and_removing_across_pages_allocates_nothing() {
        let mut slots = PagedSlab::new();
        let numbers: Vec<usize> = (0..2 * PAGE).map(|value| slots.insert(value)).collect();
        slots.remove(numbers[0]);
        // The second page was used last, and becomes empty.
        for &number in &numbers[PAGE..] {
            slots.remove(number);
        }
        let (mut changes, mut before) = (0, slots.capacity());
        for round in 0..100 {
            let short_lived: Vec<usize> = (0..1 + round % 3).map(|_| slots.insert(0)).collect();
            for number in short_lived {
                slots.remove(number);
            }
            changes += usize::from(slots.capacity() != before);
            before = slots.capacity();
        }
        assert_eq!(changes, 0);
    }

    #[test]
    fn of_the_empty_pages_one_is_kept_however_often_they_fill() {
        let mut slots = PagedSlab::new();
        for _ in 0..3 {
            let numbers: Vec<usize> = (0..3 * PAGE).map(|value| slots.insert(value)).collect();
            assert_eq!(slots.capacity(), 3 * PAGE);
            for number in numbers {
                slots.remove(number);
            }
            assert_eq!((slots.len(), slots.capacity()), (0, PAGE));
        }
        slots.preallocate(3 * PAGE); // beside two pages that were freed
        assert_eq!(slots.capacity(), 3 * PAGE);
    }

    /// Random additions and removals, compared with a map.
    #[test]
    fn every_slot_number_leads_to_its_value() {
        let mut slots = PagedSlab::new();
        let mut expected = std::collections::BTreeMap::new();
        let mut random = 1_u64;
        for step in 0..200_000_u64 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(step);
            // It grows, shrinks to nothing, and grows again.
            let grows = (step / 25_000) % 2 == 0;
            if (random >> 33) % 4 < if grows { 3 } else { 1 } {
                let number = slots.next_number();
                assert_eq!(slots.insert(step), number);
                assert!(expected.insert(number, step).is_none());
            } else if let Some((&number, &value)) = expected
                .range((random >> 40) as usize % (4 * PAGE)..)
                .next()
            {
                assert_eq!(slots.get_mut(number), Some(&mut expected[&number].clone()));
                assert_eq!(slots.remove(number), value);
                expected.remove(&number);
                assert_eq!(slots.get_mut(number), None);
            }
            assert_eq!(slots.len(), expected.len());
        }
        assert!(
            slots
                .iter()
                .map(|(number, &value)| (number, value))
                .eq(expected)
        );
    }
}
