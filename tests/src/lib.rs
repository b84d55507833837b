//! Support of the end-to-end tests: the real agent, real programs, planted credentials, and a search for leaks.
//!
//! Every case starts programs with an environment of its own (nothing is inherited from who runs the tests) and
//! looks only at events of processes it started: the agent sees the whole machine, on which others may work.
#![allow(
    clippy::unwrap_used,
    reason = "test support: a panic is a failed test and says where"
)]

pub mod agent;
pub mod bpf;
pub mod cases;
pub mod command;
pub mod events;
pub mod fuse;
pub mod leak;
pub mod load;
pub mod machine;
pub mod plant;
pub mod server;
pub mod service;
pub mod stream;
pub mod trace;

/// A test for each named case of [`cases`].
#[macro_export]
macro_rules! cases {
    ($($module:ident { $($case:ident)+ })+) => {
        $(mod $module { $(
            #[test]
            fn $case() {
                $crate::cases::$module::$case();
            }
        )+ })+
    };
}
