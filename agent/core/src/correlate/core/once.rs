//! Acts that are remembered so as not to be reported twice.

use std::collections::{BTreeSet, VecDeque};

/// Acts remembered at most. The oldest are forgotten first: forgetting one costs a second event, not a missing one.
pub(super) const MAX_REPORTED: usize = 16_384;

pub(super) struct Once<T> {
    acts: BTreeSet<T>,
    order: VecDeque<T>,
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self {
            acts: BTreeSet::new(),
            order: VecDeque::new(),
        }
    }
}

impl<T: Clone + Ord> Once<T> {
    /// True the first time.
    pub fn first(&mut self, act: T) -> bool {
        if !self.acts.insert(act.clone()) {
            return false;
        }
        self.order.push_back(act);
        if self.order.len() > MAX_REPORTED
            && let Some(oldest) = self.order.pop_front()
        {
            self.acts.remove(&oldest);
        }
        true
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.acts.len()
    }
}
