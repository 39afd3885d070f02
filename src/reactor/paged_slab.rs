//! Where the sources live: slab, in pages of a fixed size.
//!
//! One slab is one vector, and a vector that is full moves: the next connection after the 524,288th would wait until 25
//! million bytes have been copied to twice the room, and everybody else with it. (glibc lets the kernel move the pages
//! instead, by mremap(2); other allocators copy.) A page of [`PAGE`] slots never grows beyond what it was made with, so
//! nothing ever moves, and the most that one new connection can cost is the allocation of one page.
//!
//! ```text
//!   pages   [ slab of 4,096 ] [ slab of 4,096 ] [ no memory ] [ slab of 4,096 ]
//!   open      ── the pages with memory and a vacancy, the one to use next at the end ──
//!   bare      ── the pages without memory ──
//! ```
//!
//! The number of a slot is its page and its place there, side by side: finding it costs one load more than in a single
//! vector. A page that becomes empty is given back, if another one is empty already, and what was reserved stays: after a
//! million have gone, their memory goes too, as far as the allocator hands it on; and no connection that comes and goes
//! makes and frees a page each time, since between two pages lies a whole page of connections. (One connection that stays keeps its page of 192 KiB: slots cannot
//! move, since their numbers are in the kernel's books.)
//!
//! What may live in this file: slots, by number. What may not: who lives in them.

use slab::Slab;

/// The slots of a page. Small enough that a page is made in no time and given back often, large enough that a million
/// connections take 245 of them, whose list fits into the nearest cache.
pub(super) const PAGE: usize = 1 << PAGE_BITS;
const PAGE_BITS: u32 = 12;

/// See the page above.
#[derive(Debug)]
pub(super) struct PagedSlab<T> {
    pages: Vec<Slab<T>>,
    /// Pages with memory and a vacancy, each once.
    open: Vec<u32>,
    /// Pages without memory.
    bare: Vec<u32>,
    /// How many of the open pages are empty.
    empty: usize,
    /// Pages that are never given back (count).
    reserved: usize,
    len: usize,
}

impl<T> PagedSlab<T> {
    pub(super) fn new() -> Self {
        Self {
            pages: Vec::new(),
            open: Vec::new(),
            bare: Vec::new(),
            empty: 0,
            reserved: 0,
            len: 0,
        }
    }

    /// Makes pages for so many values in all. Their memory is ours from now on, and stays; the kernel still hands it out
    /// when it is first written to.
    pub(super) fn reserve(&mut self, count: usize) {
        self.reserved = self.reserved.max(count.div_ceil(PAGE));
        while self.pages.len() - self.bare.len() < self.reserved {
            self.make_page();
        }
        // The lists of pages must not be what moves, either.
        self.open.reserve(self.pages.len());
        self.bare.reserve(self.pages.len());
        // The first page is to be used first.
        self.open.sort_unstable_by(|one, other| other.cmp(one));
    }

    /// Opens a page with memory of its own, and returns its place.
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

    /// The number that the next value will have.
    pub(super) fn next_number(&mut self) -> usize {
        let page = self.open_page();
        number(page, self.pages[page].vacant_key())
    }

    /// Lets a value in, under [`PagedSlab::next_number`].
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

    /// A page with a vacancy, the one that had its last leaver last; a new one if there is none.
    fn open_page(&mut self) -> usize {
        match self.open.last() {
            Some(&page) => page as usize,
            None => self.make_page(),
        }
    }

    /// Lets a value out.
    ///
    /// # Panics
    /// If nobody has this number.
    pub(super) fn remove(&mut self, number: usize) -> T {
        let page = number >> PAGE_BITS;
        let slots = &mut self.pages[page];
        let value = slots.remove(number & (PAGE - 1));
        self.len -= 1;
        if slots.len() + 1 == PAGE {
            self.open.push(page as u32);
        } else if slots.is_empty() {
            self.empty += 1;
            if self.empty > 1 && self.pages.len() - self.bare.len() > self.reserved {
                self.give_back(page);
            }
        }
        value
    }

    /// Frees the memory of an empty page. An event that is still under way finds no value, as in any other slot that
    /// is free.
    #[cold]
    fn give_back(&mut self, page: usize) {
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

    /// Whoever lives at a number.
    ///
    /// # Panics
    /// If nobody does, as indexing does.
    pub(super) fn at(&self, number: u32) -> &T {
        let number = number as usize;
        &self.pages[number >> PAGE_BITS][number & (PAGE - 1)]
    }

    /// As [`PagedSlab::at`].
    ///
    /// # Panics
    /// If nobody does, as indexing does.
    pub(super) fn at_mut(&mut self, number: u32) -> &mut T {
        let number = number as usize;
        &mut self.pages[number >> PAGE_BITS][number & (PAGE - 1)]
    }

    /// Everybody, with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.pages.iter().enumerate().flat_map(|(page, slots)| {
            slots
                .iter()
                .map(move |(place, value)| (number(page, place), value))
        })
    }

    /// How many live here.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// For how many there is memory.
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
    fn a_million_arrive_and_nothing_moves() {
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
    fn the_memory_of_those_who_have_left_goes_with_them() {
        let mut slots = PagedSlab::new();
        let numbers: Vec<usize> = (0..10 * PAGE).map(|value| slots.insert(value)).collect();
        assert_eq!(slots.capacity(), 10 * PAGE);
        for &number in &numbers {
            assert_eq!(slots.remove(number), number);
        }
        assert_eq!((slots.len(), slots.iter().count()), (0, 0));
        assert_eq!(
            slots.capacity(),
            PAGE,
            "one page is kept for new connections"
        );
        assert_eq!(slots.get_mut(numbers[0]), None);
        // All the numbers are good again.
        let mut again: Vec<usize> = (0..10 * PAGE).map(|value| slots.insert(value)).collect();
        again.sort_unstable();
        assert_eq!(again, numbers);
    }

    #[test]
    fn coming_and_going_at_a_full_page_allocates_nothing() {
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
    fn what_is_reserved_is_used_from_the_first_page_on() {
        let mut slots = PagedSlab::new();
        slots.reserve(PAGE + 1);
        assert_eq!(slots.capacity(), 2 * PAGE);
        assert_eq!(slots.next_number(), 0);
        for value in 0..2 * PAGE {
            assert_eq!(slots.insert(value), value);
        }
        assert_eq!(slots.capacity(), 2 * PAGE);
        slots.reserve(1);
        assert_eq!(slots.capacity(), 2 * PAGE, "there is room for one already");
    }

    #[test]
    fn what_is_reserved_stays_whoever_comes_and_goes() {
        let mut slots = PagedSlab::new();
        slots.reserve(3 * PAGE);
        let numbers: Vec<usize> = (0..5 * PAGE).map(|value| slots.insert(value)).collect();
        assert_eq!(slots.capacity(), 5 * PAGE);
        for number in numbers {
            slots.remove(number);
        }
        assert_eq!(slots.capacity(), 3 * PAGE);
        let visitor = slots.insert(0);
        slots.remove(visitor);
        assert_eq!(slots.capacity(), 3 * PAGE);
    }

    /// Whatever the order in which pages fill and empty: a few connections that come and go make no page anew each time.
    #[test]
    fn coming_and_going_across_pages_allocates_nothing() {
        let mut slots = PagedSlab::new();
        let numbers: Vec<usize> = (0..2 * PAGE).map(|value| slots.insert(value)).collect();
        slots.remove(numbers[0]);
        // The second page is the one that was used last, and nothing is left in it.
        for &number in &numbers[PAGE..] {
            slots.remove(number);
        }
        let (mut changes, mut before) = (0, slots.capacity());
        for round in 0..100 {
            let visitors: Vec<usize> = (0..1 + round % 3).map(|_| slots.insert(0)).collect();
            for visitor in visitors {
                slots.remove(visitor);
            }
            changes += usize::from(slots.capacity() != before);
            before = slots.capacity();
        }
        assert_eq!(changes, 0);
    }

    /// Against the simplest thing that could be right, with comings and goings at random.
    #[test]
    fn every_number_leads_to_its_value() {
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
