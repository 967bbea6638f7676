//! Every rule of the core as a small scenario: facts in, orders out, by a clock that the test holds.

mod crash;
mod crowd;
mod drain;
mod guard;
mod harness;
mod jobs;
mod leaving;
mod looks;
mod patience;
mod reach;
mod readiness;
mod recycle;
mod requests;
mod restart;
mod rollback;
mod rollout_ends;
mod scale;
mod shutdown;
mod watchdog;
