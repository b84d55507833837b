//! Tests of the whole stage.

mod alone;
mod cases;
mod certificates;
mod developer;
mod examples;
mod hostile;
mod identifiers;
mod linear;
mod spans;
mod state;
mod text;
mod unnamed;
mod whole;
