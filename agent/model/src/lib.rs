//! The types that travel between stages. None of them holds a secret's bytes.

pub mod context;
pub mod credential;
pub mod dropped;
pub mod effect;
pub mod event;
mod history;
pub mod inspection;
mod measure;
mod multicall;
pub mod observation;
mod pods;
mod public_key;
mod request;
mod script;
mod scrub;
pub mod status;
pub mod words;
mod workload;

pub use context::{Surroundings, actor_of, context_of};
pub use credential::{Credential, CredentialRef};
pub use dropped::{Bound, Dropped};
pub use effect::{Answers, Capture, Decision, Effect, FileKey, SensorChange};
pub use event::Event;
pub use history::is_history;
pub use inspection::{FileInspection, InventoryUpdate, Unread, Why};
pub use measure::{Labels, Measure, MeasureKind, Number, Point};
pub use multicall::{applet, is_multicall};
pub use observation::*;
pub use pods::{ContainerNames, Owner, PodNames};
pub use public_key::{KeyAlgorithm, PublicKey};
pub use request::{Request, Target, Undecoded};
pub use script::{INLINE, absolute, is_interpreter, script_of};
pub use scrub::{SCRUB_BYTES, scrub_stack};
pub use words::*;
pub use workload::Workload;
