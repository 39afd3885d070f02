//! Enumeration of every sequence of decisions up to a depth.
//!
//! A test calls `choose(n)` wherever something can happen in n ways, and runs until [`Choices::next_path`] is false. Each
//! run takes the next path through the tree of decisions. So the cases need not be listed, and none is forgotten.

/// Walks the tree of decisions down to a depth; below it, every decision is 0.
#[derive(Debug)]
pub struct Choices {
    depth: usize,
    /// Path of this run: the decision taken at each step, and how many there were to choose from.
    path: Vec<(usize, usize)>,
    asked: usize,
}

impl Choices {
    /// A walk that begins with the first way of every decision.
    pub fn new(depth: usize) -> Self {
        Self {
            depth,
            path: Vec::new(),
            asked: 0,
        }
    }

    /// Returns a single path: each byte is a decision, modulo the number of ways.
    pub fn given(bytes: &[u8]) -> Self {
        Self {
            depth: bytes.len(),
            path: bytes.iter().map(|&byte| (byte.into(), 256)).collect(),
            asked: 0,
        }
    }

    /// Returns the next decision, a number below `ways`.
    pub fn choose(&mut self, ways: usize) -> usize {
        if self.asked == self.depth {
            return 0;
        }
        if self.asked == self.path.len() {
            self.path.push((0, ways));
        }
        let (taken, _) = self.path[self.asked];
        self.asked += 1;
        taken % ways
    }

    /// Returns whether this run has reached the depth below which every decision is 0.
    pub fn is_exhausted(&self) -> bool {
        self.asked == self.depth
    }

    /// Advances to the next path; returns `false` after the last one.
    pub fn next_path(&mut self) -> bool {
        self.asked = 0;
        while let Some((taken, ways)) = self.path.pop() {
            if taken + 1 < ways {
                self.path.push((taken + 1, ways));
                return true;
            }
        }
        false
    }
}

#[test]
fn every_path_is_taken_once() {
    let mut choices = Choices::new(3);
    let mut seen = std::collections::BTreeSet::new();
    loop {
        let first = choices.choose(2);
        let path = [
            first,
            choices.choose(2 + first),
            choices.choose(2),
            choices.choose(9),
        ];
        assert!(seen.insert(path), "{path:?} twice");
        if !choices.next_path() {
            break;
        }
    }
    assert_eq!(seen.len(), 2 * 2 + 3 * 2);
}
