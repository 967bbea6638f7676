//! A master that talks with Node workers.

use std::sync::mpsc::channel;
use std::thread;

use proteus_cluster::{Cluster, Config, Exit, Handle, Message, WorkerInfo};
use serde_json::{Value, json};

use crate::harness::PATIENCE;

pub(super) fn play(name: &str) -> i32 {
    proteus_cluster::logger::init();
    match name {
        "page" => page(),
        "chatter" => chatter(),
        _ => panic!("unknown role {name}"),
    }
    0
}

/// Runs a cluster of the program `worker.js` in one of its modes beside `lead`.
fn host(workers: usize, args: &[&str], lead: impl FnOnce(&Handle)) {
    let config =
        Config::builder().workers(workers).exec("worker.js").args(args).build().expect("good settings");
    let cluster = Cluster::new(config).expect("a cluster");
    let handle = cluster.handle();
    thread::scope(|scope| {
        let running = thread::Builder::new().spawn_scoped(scope, || cluster.run()).expect("a thread");
        lead(&handle);
        handle.force_shutdown().expect("taken");
        assert_eq!(running.join().expect("no panic").expect("it ran"), Exit::Forced);
    });
}

/// The page's messages, both ways: each worker says hello, is greeted, and says so.
fn page() {
    host(2, &["page"], |handle| {
        let (tell, told) = channel();
        for cmd in ["fromWorker", "heard"] {
            let tell = tell.clone();
            let listen = move |message: &Message, worker: &WorkerInfo| {
                let _ = tell.send((cmd, worker.id(), message.value()["msg"].clone()));
            };
            handle.add_message_listener(cmd, listen).expect("not ended");
        }
        let both = |expected: Value| {
            let mut heard: Vec<_> = (0..2).map(|_| told.recv_timeout(PATIENCE).expect("a message")).collect();
            heard.sort_by_key(|(_, worker, _)| *worker);
            let found: Vec<_> = heard.iter().map(|(cmd, worker, msg)| json!([cmd, worker, msg])).collect();
            assert_eq!(Value::from(found), expected);
        };
        both(json!([
            ["fromWorker", 1, "sending message to master"],
            ["fromWorker", 2, "sending message to master"]
        ]));
        handle
            .send_message(json!({ "cmd": "fromMaster", "msg": "sending message to worker" }))
            .expect("sent");
        both(json!([["heard", 1, "sending message to worker"], ["heard", 2, "sending message to worker"]]));
        handle.send_message_to(2, json!("a bare string")).expect("sent");
        assert_eq!(told.recv_timeout(PATIENCE).expect("a message").1, 2);
    });
}

/// What a worker sends just before it exits arrives, all of it and in order.
fn chatter() {
    host(1, &["chatter", "3000"], |handle| {
        let (tell, told) = channel();
        let listen = move |message: &Message, worker: &WorkerInfo| {
            let _ = tell.send((worker.id(), message.value()["i"].as_u64().expect("a number")));
        };
        handle.add_message_listener("n", listen).expect("not ended");
        let mut of_the_first =
            std::iter::from_fn(|| told.recv_timeout(PATIENCE).ok()).filter(|(id, _)| *id == 1);
        for expected in 0..3000 {
            assert_eq!(of_the_first.next(), Some((1, expected)));
        }
    });
}
