//! Tests of the whole stage.

mod certificates;
mod examples;
mod hostile;
mod unnamed;
mod whole;
