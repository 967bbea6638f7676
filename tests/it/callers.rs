//! Who calls the control API: whose orders are taken, and what the log says of it.

use crate::harness::master::idle_settings;
use crate::harness::{Master, Scene};

#[test]
fn an_order_is_logged_with_who_gave_it() {
    let scene = Scene::new("callers-logged");
    let master = Master::run(&scene, &idle_settings());
    master.wait_one_ready();
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&scene.folder).expect("our own folder"));
    let us = format!("by uid {uid} pid {} (unix socket)", std::process::id());
    for (path, order) in [
        ("/scale?worker=2", "scale to 2 ordered"),
        ("/workers/1/restart", "restart of worker 1 ordered"),
        ("/reopen", "reopen ordered"),
        ("/restart?wait=20s", "restart ordered"),
        ("/shutdown", "shutdown ordered"),
    ] {
        assert_eq!(master.ask(path).status, 200, "{path}");
        master.wait_log(&format!("{order} {us}"));
    }
    master.ends_with(&scene, 0);
}
