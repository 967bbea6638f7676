//! Tests of real processes: masters, workers, clients.
//!
//! The test binary starts itself again for the programs that the tests need (see `roles`).
//! Nothing here sleeps for luck: tests wait on conditions with deadlines, each under a watchdog, and
//! each checks that no process of its own is left.

mod api;
mod birth;
mod born;
mod bounds;
mod callers;
mod causes;
mod client;
mod crashes;
mod crowd;
mod dead_mounts;
mod ending;
mod floods;
mod forged;
mod gate;
mod groups;
mod guarded;
mod guest;
mod guides;
mod handed;
mod harness;
mod inject;
mod latecomers;
mod log;
mod log_files;
mod machine;
mod matrix;
mod meanwhile;
mod messages;
mod mixed_releases;
mod node;
mod node_forms;
mod nodelay;
mod notify;
mod odd_json;
mod on_demand;
mod orders;
mod page;
mod pinned;
mod placeholders;
mod readers;
mod readiness;
mod readme;
mod readonly;
mod recycle;
mod refused;
mod release;
mod roles;
mod rolling;
mod scale;
mod sharing;
mod signals;
mod signals_given_back;
mod silenced;
mod slots;
mod socket_addresses;
mod socket_files;
mod sockets;
mod trial;
mod verdicts;
mod walk;
mod watchdog;
mod watching;
