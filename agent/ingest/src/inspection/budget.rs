//! How much processor time the files of one user may take.

use crate::background::Budget;
use std::collections::HashMap;

/// Users whose budgets are remembered; beyond it those who have spent nothing lately are forgotten.
const MAX_USERS: usize = 1_024;

/// A budget for each owner of files. Root's have none: who is root can stop the agent.
#[derive(Debug)]
pub struct UserBudgets {
    /// Parts in a thousand of one processor.
    share: u64,
    users: HashMap<u32, Budget>,
}

impl UserBudgets {
    pub fn new(share: u64) -> Self {
        Self {
            share,
            users: HashMap::new(),
        }
    }

    /// Whether files of this user may be inspected now.
    pub fn has(&mut self, user: u32, now_ns: u64) -> bool {
        user == 0
            || self
                .users
                .get_mut(&user)
                .is_none_or(|budget| budget.has(now_ns))
    }

    /// Whether this user's files have taken nothing lately.
    #[cfg(test)]
    pub fn is_whole(&mut self, user: u32, now_ns: u64) -> bool {
        self.users
            .get_mut(&user)
            .is_none_or(|budget| budget.is_whole(now_ns))
    }

    /// A file of this user took so much time.
    pub fn spend(&mut self, user: u32, took_ns: u64, now_ns: u64) {
        if user == 0 {
            return;
        }
        if self.users.len() >= MAX_USERS && !self.users.contains_key(&user) {
            self.users.retain(|_, budget| !budget.is_whole(now_ns));
            if self.users.len() >= MAX_USERS {
                self.users.clear();
            }
        }
        let share = self.share;
        let budget = self
            .users
            .entry(user)
            .or_insert_with(|| Budget::new(share, now_ns));
        // What was saved up until now counts first.
        budget.has(now_ns);
        budget.spend(took_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_user_spends_his_own_budget_only() {
        let mut budgets = UserBudgets::new(500);
        assert!(budgets.has(7, SECOND));
        budgets.spend(7, 3 * SECOND, SECOND);
        assert!(!budgets.has(7, SECOND));
        assert!(budgets.has(8, SECOND) && budgets.has(0, SECOND));
        budgets.spend(0, 100 * SECOND, SECOND);
        assert!(budgets.has(0, SECOND));
        // Half a processor: what was overdrawn is earned in twice the time.
        assert!(!budgets.has(7, 3 * SECOND));
        assert!(budgets.has(7, 5 * SECOND));
    }

    #[test]
    fn users_are_bounded() {
        let mut budgets = UserBudgets::new(500);
        for user in 1..5_000 {
            budgets.spend(user, 1, SECOND);
        }
        assert!(budgets.users.len() <= MAX_USERS);
    }
}
