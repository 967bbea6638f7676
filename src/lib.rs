//! A Unix master/worker cluster for services.

mod config;

mod error;

mod message;

mod supervisor;

mod sys;

mod worker;

#[doc(hidden)]
pub use config::settings;

pub use config::{Api, Builder, Config, ListenAddress, Listener, Output, Ready};

pub use error::{Error, Result};

pub use worker::{Accept, InFlight, Incoming, Worker};
