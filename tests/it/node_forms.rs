//! The many ways in which programs of Node are started: each is taken for one, or can be said to be one.

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::master::rows;
use crate::harness::tools::in_path;
use crate::harness::{Master, Scene, get, proc, skipped};

const SERVER: &str = r"
const [host, port] = process.env.ADDRESS.split(':');
require('http').createServer((request, response) => response.end('well')).listen(port, host);
";

/// Lays out the files that the forms name, and runs two workers of this one.
fn run(scene: &Scene, node: &Path, change: &Value) -> Master {
    for folder in ["bin", "tools", "app", "node_modules/.bin"] {
        std::fs::create_dir_all(scene.path(folder)).expect("made");
    }
    scene.write("app/server.js", SERVER);
    scene.write_program("bin/www", &format!("#!/usr/bin/env node\n{SERVER}"));
    scene.write_program("app/cli.js", &format!("#!/usr/bin/env node\n{SERVER}"));
    scene.write_program(
        "node_modules/.bin/shim",
        "#!/bin/sh\nexec node \"$(dirname \"$0\")/../../app/server.js\"\n",
    );
    symlink("../../app/cli.js", scene.path("node_modules/.bin/app")).expect("made");
    for name in ["nodejs", "runtime"] {
        symlink(node, scene.path("tools").join(name)).expect("made");
    }
    let mut settings = json!({
        "worker": 2, "args": [], "env": { "ADDRESS": scene.address(8080) }, "canary": 0, "minUptime": 600_000,
    });
    for (key, value) in change.as_object().expect("an object") {
        settings[key] = value.clone();
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Master::command(scene, &settings);
    command.env("PATH", format!("{}:{path}", scene.path("tools").display()));
    Master::start(scene, command)
}

#[test]
fn each_shares_what_its_workers_listen_on() {
    let Some(node) = in_path("node") else {
        return skipped("each_shares_what_its_workers_listen_on", "there is no node here");
    };
    let forms = [
        json!({ "exec": "bin/www" }),
        json!({ "exec": "nodejs", "args": ["app/server.js"] }),
        json!({ "exec": "tools/runtime", "args": ["app/server.js"] }),
        json!({ "exec": "env", "args": ["node", "app/server.js"] }),
        json!({ "exec": "node_modules/.bin/app" }),
        json!({ "exec": "node_modules/.bin/shim" }),
        json!({ "exec": "sh", "args": ["-c", "exec node app/server.js"], "speaks": "node" }),
    ];
    for form in forms {
        let scene = Scene::new("node-forms");
        let master = run(&scene, &node, &form);
        master.wait_ready(2);
        assert_eq!(get(&scene.address(8080), "/").body, "well", "{form}");
        assert_eq!(master.status()["listeners"][0]["address"], json!(scene.address(8080)), "{form}");
        assert!(!master.log_text().contains("--speaks"), "{form}: {}", master.log_text());
        master.stop(&scene);
    }
}

#[test]
fn what_only_looks_like_it_is_said() {
    let Some(node) = in_path("node") else {
        return skipped("what_only_looks_like_it_is_said", "there is no node here");
    };
    let scene = Scene::new("node-looks");
    let master = run(
        &scene,
        &node,
        &json!({ "exec": "sh", "args": ["-c", ": node; exec sleep 1000"], "minUptime": 20 }),
    );
    let line = master.wait_log("--speaks node");
    assert!(line.contains("INFO") && line.contains("exec sh: it looks as if node ran in it"), "{line}");
    master.stop(&scene);
    let scene = Scene::new("node-not");
    let own = json!({ "exec": "node", "args": ["-e", "setInterval(() => {}, 1000)"], "speaks": "proteus", "ready": "alive", "minUptime": 20 });
    let master = run(&scene, &node, &own);
    let environment = proc::environment(*master.wait_ready(2).first().expect("two"));
    assert!(environment.contains_key("PROTEUS_CHANNEL_FD") && !environment.contains_key("NODE_CHANNEL_FD"));
    assert_eq!(rows(&master.status()).len(), 2);
    master.stop(&scene);
}

/// Files of TypeScript run under `node`, which says itself if it is too old for them; here somebody else plays its part.
#[test]
fn files_of_typescript() {
    for name in ["worker.ts", "worker.mts", "worker.cts"] {
        let scene = Scene::new("node-typescript");
        scene.write(name, "");
        scene.write_program("node", "#!/bin/sh\nexec sleep 1000\n");
        let settings = json!({ "worker": 1, "exec": name, "ready": "alive", "minUptime": 20 });
        let mut command = Master::command(&scene, &settings);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", scene.folder.display()));
        let master = Master::start(&scene, command);
        assert!(proc::environment(master.wait_one_ready()).contains_key("NODE_CHANNEL_FD"), "{name}");
        master.stop(&scene);
    }
}
