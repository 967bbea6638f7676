//! Messages both ways: `cargo run --example messages`, stop it with Ctrl-C.

use std::thread;
use std::time::Duration;

use proteus_cluster::{Cluster, Config, Exit, Handle, Worker};
use serde_json::json;

pub(crate) fn main() -> proteus_cluster::Result<Exit> {
    proteus_cluster::logger::init();
    match Worker::from_env()? {
        Some(worker) => serve(&worker),
        None => lead(),
    }
}

/// The master.
fn lead() -> proteus_cluster::Result<Exit> {
    let cluster = Cluster::new(Config::builder().workers(2).build()?)?;
    let handle = cluster.handle();

    handle.add_message_listener("fromWorker", |message, worker| {
        log::info!("worker {} says: {}", worker.id(), message.value()["msg"]); // "sending message to master"
    })?;

    thread::spawn(move || talk(&handle));
    cluster.run()
}

/// Speaks to the workers until the cluster has ended.
fn talk(cluster: &Handle) {
    let message = json!({ "cmd": "fromMaster", "msg": "sending message to worker" });
    while cluster.send_message(&message).is_ok() {
        thread::sleep(Duration::from_secs(1));
    }
}

/// A worker: it answers each message of the master with one of its own.
fn serve(worker: &Worker) -> proteus_cluster::Result<Exit> {
    let answering = worker.clone();
    worker.on_message("fromMaster", move |message| {
        log::info!("the master says: {}", message.value()["msg"]); // "sending message to worker"
        let message = json!({ "cmd": "fromWorker", "msg": "sending message to master" });
        if let Err(error) = answering.send(message) {
            log::warn!("{error}");
        }
    });
    worker.ready()?;
    worker.wait_for_disconnect();
    Ok(Exit::Graceful)
}
