//! What is made of an event that a rule holds for.

/// One finding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    pub rule: String,
    pub severity: String,
    pub title: String,
    pub subject: String,
    pub seen: String,
    pub expected: String,
    pub remedy: String,
    pub techniques: Vec<String>,
    /// Epoch and number of the event it rests on.
    pub event: (u64, u64),
    /// Number of the event that the first finding of the same act rests on.
    pub act: u64,
}
