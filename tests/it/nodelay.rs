//! What a worker writes leaves at once: connections are accepted with `TCP_NODELAY`.

use std::net::TcpStream;

use serde_json::json;
use socket2::SockRef;

use crate::harness::master::role_settings;
use crate::harness::tools::with_each_node;
use crate::harness::{Master, Scene, eventually, get, proc, skipped, sys};

#[test]
fn on_connections_of_every_tcp_listener() {
    for reuse_port in [false, true] {
        let scene = Scene::new("nodelay");
        let mut settings = role_settings("nodelay");
        settings["worker"] = json!(2);
        settings["listen"] = json!({ "name": "http", "address": "127.0.0.1:0", "reusePort": reuse_port });
        settings["env"]["PROTEUS_TEST_ADDRESS"] = json!(scene.address(8080));
        let master = Master::run(&scene, &settings);
        master.wait_ready(2);
        for address in [master.address("http"), scene.address(8080)] {
            assert_eq!(get(&address, "/").body, "true", "{address}, reusePort {reuse_port}");
        }
        master.stop(&scene);
    }
}

/// `net.Server` of Node leaves the option alone.
#[test]
fn on_connections_of_nodes_own_listeners() {
    with_each_node("on_connections_of_nodes_own_listeners", |path| {
        let scene = Scene::new("nodelay-node");
        let address = scene.address(8080);
        let (host, _) = address.split_once(':').expect("a port");
        let program = format!("require('net').createServer(function () {{}}).listen(8080, '{host}');");
        scene.write("worker.js", program);
        let settings = json!({ "worker": 1, "exec": "worker.js", "minUptime": 600_000 });
        let mut command = Master::command(&scene, &settings);
        command.env("PATH", path);
        let master = Master::start(&scene, command);
        let pid = master.wait_one_ready();
        if let Err(error) = sys::descriptor_of(pid, 0) {
            return skipped("on_connections_of_nodes_own_listeners", &error.to_string());
        }
        let client = TcpStream::connect(&address).expect("connected");
        let ours = client.local_addr().expect("bound");
        let accepted = eventually("Node has accepted", || {
            let mut sockets =
                proc::open_files(pid).into_keys().filter_map(|at| sys::descriptor_of(pid, at).ok());
            sockets.find(|fd| SockRef::from(fd).peer_addr().is_ok_and(|peer| peer.as_socket() == Some(ours)))
        });
        assert!(SockRef::from(&accepted).tcp_nodelay().expect("an option"));
        drop(client);
        master.stop(&scene);
    });
}
