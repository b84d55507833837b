//! Tests of the whole stage.

mod examples;
mod hostile;
mod unnamed;
mod whole;
