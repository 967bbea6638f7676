//! One port for both families, and names that have no file.

use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::master::{idle_settings, role_command, role_settings, shell_settings};
use crate::harness::tools::{free_port, with_each_node};
use crate::harness::{Master, Scene, get, proc, skipped, sys, wait_until};

/// A master that is born with these sockets.
fn activated(scene: &Scene, settings: &Value, sockets: &str, names: &str) -> Master {
    drop(Master::command(scene, settings)); // writes the settings
    let mut command = role_command("activate");
    command.env("PROTEUS_TEST_SOCKETS", sockets).env("PROTEUS_TEST_NAMES", names);
    Master::start(scene, command)
}

fn has_ipv6(test: &str) -> bool {
    let has = TcpListener::bind("[::]:0").is_ok();
    if !has {
        skipped(test, "there is no IPv6 here");
    }
    has
}

fn connect(name: &str) -> std::io::Result<UnixStream> {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)
}

fn listeners(master: &Master) -> usize {
    master.status()["listeners"].as_array().map_or(0, Vec::len)
}

#[test]
fn ipv4_and_ipv6_share_a_port() {
    if !has_ipv6("ipv4_and_ipv6_share_a_port") {
        return;
    }
    for reuse in [false, true] {
        let scene = Scene::new("both-families");
        let port = free_port();
        let mut settings = idle_settings();
        settings["listen"] = json!([
            { "address": format!("[::]:{port}"), "reusePort": reuse },
            { "address": format!("0.0.0.0:{port}"), "reusePort": reuse },
            format!("udp:0.0.0.0:{port}"),
            format!("udp:[::]:{port}"),
        ]);
        let master = Master::run(&scene, &settings);
        master.wait_one_ready();
        for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
            TcpStream::connect(&address).unwrap_or_else(|error| panic!("{address}: {error}"));
        }
        master.stop(&scene);
    }
}

/// An IPv6 socket for all addresses takes IPv4 as well: what asks for that is served by it.
#[test]
fn a_socket_for_both_families_serves_who_asks_for_one() {
    if !has_ipv6("a_socket_for_both_families") {
        return;
    }
    let scene = Scene::new("dual-stack");
    let port = free_port();
    let mut settings = role_settings("service");
    settings["worker"] = json!(1);
    settings["listen"] = json!([
        { "name": "http", "address": format!("0.0.0.0:{port}") },
        { "name": "six", "address": format!("[::]:{port}") },
    ]);
    let master = activated(&scene, &settings, &format!("[::]:{port}"), "elsewhere");
    let pid = master.wait_one_ready();
    assert!(!master.has_logged("closing it"), "{}", master.log_text());
    assert_eq!(get(&format!("127.0.0.1:{port}"), "/").body, format!("pid={pid}\n"));
    master.stop(&scene);
}

#[test]
fn a_worker_that_asks_for_ipv4_gets_the_socket_for_both() {
    if !has_ipv6("a_worker_that_asks_for_ipv4") {
        return;
    }
    let scene = Scene::new("dual-asked");
    let (port, other) = (free_port(), free_port());
    let script = format!(
        r#"say() {{ echo "$1" >&$PROTEUS_CHANNEL_FD; read -r line <&$PROTEUS_CHANNEL_FD; echo "$line" >>answers.new; }}
        say '{{"cmd":"PROTEUS_LISTEN","address":"0.0.0.0:{port}"}}'
        say '{{"cmd":"PROTEUS_LISTEN","address":"0.0.0.0:{other}"}}'
        say '{{"cmd":"PROTEUS_LISTEN","address":"[::]:{other}"}}'
        mv answers.new answers; exec sleep 1000"#
    );
    let mut settings = shell_settings(&script);
    settings["listen"] = json!(format!("[::]:{port}"));
    settings["disconnectTimeout"] = json!(100);
    let master = Master::run(&scene, &settings);
    wait_until("answered", || scene.path("answers").exists());
    let answers = std::fs::read_to_string(scene.path("answers")).expect("there");
    assert_eq!(answers.matches("\"fd\":true").count(), 3, "{answers}");
    assert_eq!(listeners(&master), 3);
    for address in [format!("127.0.0.1:{other}"), format!("[::1]:{other}")] {
        TcpStream::connect(&address).unwrap_or_else(|error| panic!("{address}: {error}"));
    }
    master.stop(&scene);
}

#[test]
fn abstract_names_are_bound_and_adopted() {
    let scene = Scene::new("abstract");
    let (own, handed, asked) =
        (format!("own-{}", scene.tag), format!("handed-{}", scene.tag), format!("asked-{}", scene.tag));
    let script = format!(
        r#"echo '{{"cmd":"PROTEUS_LISTEN","address":"unix:@{asked}"}}' >&$PROTEUS_CHANNEL_FD; exec sleep 1000"#
    );
    let mut settings = shell_settings(&script);
    settings["listen"] = json!([format!("unix:@{own}"), format!("unix:@{handed}")]);
    settings["minUptime"] = json!(20);
    settings["disconnectTimeout"] = json!(100);
    let master = activated(&scene, &settings, &format!("unix:@{handed}"), "any");
    master.wait_one_ready();
    assert!(!master.has_logged("closing it"), "{}", master.log_text());
    wait_until("asked for", || connect(&asked).is_ok());
    for name in [&own, &handed] {
        connect(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let status = master.status();
    assert_eq!(status["listeners"][0]["address"], format!("unix:@{own}"));
    assert_eq!(status["listeners"][2]["address"], format!("unix:@{asked}"));
    master.stop(&scene);
    assert!(connect(&own).is_err());
}

#[test]
fn node_listens_at_an_abstract_name() {
    with_each_node("node_listens_at_an_abstract_name", |path| {
        let scene = Scene::new("abstract-node");
        let name = scene.tag.clone();
        scene.write("w.js", format!("require('net').createServer().listen('\\0{name}', function () {{}});"));
        let settings = json!({ "worker": 2, "exec": "w.js", "minUptime": 600_000 });
        let mut command = Master::command(&scene, &settings);
        command.env("PATH", path);
        let master = Master::start(&scene, command);
        master.wait_ready(2);
        connect(&name).expect("bound");
        assert_eq!(listeners(&master), 1, "one for both workers");
        master.stop(&scene);
    });
}

/// No mode keeps anybody out of a name without a file, so it is for the uid of the caller.
#[test]
fn the_control_api_at_an_abstract_name() {
    if !sys::is_root() {
        return skipped("the_control_api_at_an_abstract_name", "it takes another user");
    }
    let scene = Scene::new("abstract-api");
    let address = format!("unix:@{}", scene.tag);
    let mut settings = idle_settings();
    settings["api"] = json!({ "listen": address });
    let master = Master::run(&scene, &settings);
    wait_until("it is there", || connect(&scene.tag).is_ok());
    let program = scene.proteus_for_all();
    let order = |words: &[&str], uid: u32| {
        let mut command = Command::new(&program);
        command.args(words).args(["--api", &address]).env(proc::TAG, &scene.tag).uid(uid);
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(order(&["status"], 0).0, Some(0));
    assert_eq!(order(&["status"], 65534).0, Some(0));
    let (status, why) = order(&["shutdown"], 65534);
    assert!(status != Some(0) && why.contains("uid 65534 gives no orders here"), "{status:?} {why}");
    assert_eq!(order(&["shutdown"], 0).0, Some(0));
    master.ends_with(&scene, 0);
}
