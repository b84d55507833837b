//! Requests that wait for a thread: users take turns, and of one user his processes, so that who makes or reads many
//! files delays nobody but himself.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Requests that may wait: of all users, of one, and of one process.
const MAX_WAITING: usize = 8_192;
const MAX_OF_USER: usize = 6_144;
const MAX_OF_PROCESS: usize = 4_096;

/// Whoever waits, one after another.
#[derive(Debug)]
struct Turns<K, Q> {
    queues: HashMap<K, Q>,
    order: VecDeque<K>,
}

impl<K, Q> Default for Turns<K, Q> {
    fn default() -> Self {
        Self {
            queues: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Copy + Eq + Hash, Q: Default> Turns<K, Q> {
    /// The queue of one, which is in the order from now on.
    fn of(&mut self, key: K) -> &mut Q {
        let order = &mut self.order;
        self.queues.entry(key).or_insert_with(|| {
            order.push_back(key);
            Q::default()
        })
    }

    /// Takes from the one whose turn it is; `take` says whether more is left.
    fn next<T>(&mut self, take: impl FnOnce(&mut Q) -> (Option<T>, bool)) -> Option<T> {
        let key = self.order.pop_front()?;
        let (taken, more) = take(self.queues.get_mut(&key)?);
        if more {
            self.order.push_back(key);
        } else {
            self.queues.remove(&key);
        }
        taken
    }
}

#[derive(Debug)]
struct OfUser<T> {
    processes: Turns<u32, VecDeque<T>>,
    len: usize,
}

impl<T> Default for OfUser<T> {
    fn default() -> Self {
        Self {
            processes: Turns::default(),
            len: 0,
        }
    }
}

/// For whom something is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    pub user: u32,
    pub process: u32,
}

/// First in, first out for each process; its user's processes, and all users, in turn.
#[derive(Debug)]
pub struct FairQueue<T> {
    users: Turns<u32, OfUser<T>>,
    len: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            users: Turns::default(),
            len: 0,
        }
    }
}

impl<T> FairQueue<T> {
    /// Adds a request; false when there is no room for it.
    pub fn push(&mut self, who: Who, request: T) -> bool {
        if self.len >= MAX_WAITING {
            return false;
        }
        let user = self.users.of(who.user);
        if user.len >= MAX_OF_USER {
            return false;
        }
        let queue = user.processes.of(who.process);
        if queue.len() >= MAX_OF_PROCESS {
            return false;
        }
        queue.push_back(request);
        user.len += 1;
        self.len += 1;
        true
    }

    pub fn pop(&mut self) -> Option<T> {
        let taken = self.users.next(|user| {
            let taken = user.processes.next(|queue| {
                let taken = queue.pop_front();
                (taken, !queue.is_empty())
            });
            user.len -= usize::from(taken.is_some());
            (taken, user.len > 0)
        });
        self.len -= usize::from(taken.is_some());
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(user: u32, process: u32) -> Who {
        Who { user, process }
    }

    #[test]
    fn users_take_turns_and_so_do_the_processes_of_one() {
        let mut queue = FairQueue::default();
        for n in 0..4 {
            assert!(queue.push(who(1, 10), (1, 10, n)));
        }
        queue.push(who(1, 11), (1, 11, 0));
        queue.push(who(2, 20), (2, 20, 0));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(
            order,
            [
                (1, 10, 0),
                (2, 20, 0),
                (1, 11, 0),
                (1, 10, 1),
                (1, 10, 2),
                (1, 10, 3)
            ]
        );
        assert_eq!(queue.len, 0);
        // And begins again.
        assert!(queue.push(who(1, 10), (1, 10, 9)));
        assert_eq!(queue.pop(), Some((1, 10, 9)));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn one_leaves_room_for_others() {
        let mut queue = FairQueue::default();
        let mut fill = |who: Who| std::iter::from_fn(|| queue.push(who, 0).then_some(())).count();
        assert_eq!(fill(who(1, 10)), MAX_OF_PROCESS);
        assert_eq!(fill(who(1, 11)), MAX_OF_USER - MAX_OF_PROCESS);
        assert_eq!(fill(who(1, 12)), 0);
        assert_eq!(fill(who(2, 20)), MAX_WAITING - MAX_OF_USER);
        assert_eq!(fill(who(3, 30)), 0);
    }
}
