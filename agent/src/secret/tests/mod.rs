//! Tests of the whole stage.

mod examples;
