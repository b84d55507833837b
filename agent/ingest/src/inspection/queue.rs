//! Requests that wait for a thread: users take turns, so that one who makes many files delays nobody but himself.

use std::collections::{HashMap, VecDeque};

/// Requests that may wait, of all users and of one.
const MAX_WAITING: usize = 8_192;
const MAX_OF_USER: usize = 4_096;

/// First in, first out for each user, and one of each user in turn.
#[derive(Debug)]
pub struct FairQueue<T> {
    by_user: HashMap<u32, VecDeque<T>>,
    /// Users with something that waits.
    turns: VecDeque<u32>,
    len: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            by_user: HashMap::new(),
            turns: VecDeque::new(),
            len: 0,
        }
    }
}

impl<T> FairQueue<T> {
    /// Adds a request; false when there is no room for it.
    pub fn push(&mut self, user: u32, request: T) -> bool {
        if self.len >= MAX_WAITING {
            return false;
        }
        let queue = self.by_user.entry(user).or_default();
        if queue.len() >= MAX_OF_USER {
            return false;
        }
        if queue.is_empty() {
            self.turns.push_back(user);
        }
        queue.push_back(request);
        self.len += 1;
        true
    }

    pub fn pop(&mut self) -> Option<T> {
        let user = self.turns.pop_front()?;
        let queue = self.by_user.get_mut(&user)?;
        let request = queue.pop_front();
        self.len -= usize::from(request.is_some());
        if queue.is_empty() {
            self.by_user.remove(&user);
        } else {
            self.turns.push_back(user);
        }
        request
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_take_turns() {
        let mut queue = FairQueue::default();
        for n in 0..5 {
            assert!(queue.push(1, (1, n)));
        }
        queue.push(2, (2, 0));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [(1, 0), (2, 0), (1, 1), (1, 2), (1, 3), (1, 4)]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn one_user_leaves_room_for_others() {
        let mut queue = FairQueue::default();
        let mut taken = 0;
        while queue.push(1, 0) {
            taken += 1;
        }
        assert_eq!(taken, MAX_OF_USER);
        assert!(queue.push(2, 0));
        for user in 3.. {
            if !queue.push(user, 0) {
                break;
            }
        }
        assert_eq!(queue.len(), MAX_WAITING);
    }
}
