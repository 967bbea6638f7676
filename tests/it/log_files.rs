//! The log file in the hands of others: moved, truncated, full, a link, on a mount that does not answer.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::master::{idle_settings, shell_workers};
use crate::harness::tools::in_path;
use crate::harness::{Master, Scene, eventually, skipped, sys, wait_until};

/// Settings of a worker that counts aloud, and a log file.
fn counting(file: Value) -> Value {
    let mut settings = shell_workers(1, "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.004; done");
    settings["output"] = "log".into();
    settings["logFile"] = file;
    settings
}

/// The numbers in a text, in their order.
fn ticks(text: &str) -> Vec<u64> {
    let number = |line: &str| line.rsplit_once(": tick ").and_then(|(_, number)| number.parse().ok());
    text.lines().filter_map(number).collect()
}

fn ticks_of(path: &Path) -> Vec<u64> {
    ticks(&String::from_utf8_lossy(&fs::read(path).unwrap_or_default()))
}

/// Moves the file away, puts a new one in its place, and compresses the old one at once.
fn rotate(scene: &Scene, path: &Path) {
    let rules = format!("{} {{\ncreate 0604\ncompress\nrotate 100\n}}\n", path.display());
    let rules = scene.write("logrotate.conf", rules);
    fs::set_permissions(&rules, fs::Permissions::from_mode(0o644)).expect("its mode");
    let program = in_path("logrotate").unwrap_or_else(|| "/usr/sbin/logrotate".into());
    let mut command = Command::new(program);
    command.arg("-f").arg("-s").arg(scene.path("logrotate.state")).arg(rules);
    if let Ok(output) = command.output() {
        return assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // The same by hand.
    for number in (1..100).rev() {
        let name = |number| scene.path(&format!("app.log.{number}.gz"));
        drop(fs::rename(name(number), name(number + 1)));
    }
    let old = scene.path("app.log.1");
    fs::rename(path, &old).expect("moved");
    drop(File::create_new(path).expect("a new one"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o604)).expect("its mode");
    assert!(Command::new("gzip").arg(&old).status().expect("gzip").success());
}

#[test]
fn a_log_file_that_was_moved_is_left_at_once() {
    let scene = Scene::new("moved-log");
    let path = scene.path("app.log");
    let master = Master::run(&scene, &counting(json!(path)));
    for _ in 0..3 {
        wait_until("lines", || ticks_of(&path).len() > 10);
        rotate(&scene, &path);
        let moved = Instant::now();
        wait_until("lines in the new file", || !ticks_of(&path).is_empty());
        assert!(moved.elapsed() < Duration::from_secs(2), "{:?}", moved.elapsed());
        let mode = fs::metadata(&path).expect("the new file").permissions().mode();
        assert_eq!(mode & 0o777, 0o604, "it is the one that was made for us");
    }
    master.stop(&scene);
    let mut all = Vec::new();
    for number in (1..=3).rev() {
        let packed = scene.path(&format!("app.log.{number}.gz"));
        let output = Command::new("gzip").arg("-dc").arg(&packed).output().expect("gzip");
        assert!(output.status.success(), "{}", packed.display());
        all.extend(ticks(&String::from_utf8_lossy(&output.stdout)));
    }
    all.extend(ticks_of(&path));
    let lost: u64 = all.windows(2).map(|pair| pair[1] - pair[0] - 1).sum();
    // One may be under way at the very moment.
    assert!(lost <= 3 && all[0] == 1, "{lost} of {} lines are lost", all.len());
}

#[test]
fn a_moved_log_file_without_a_new_one_gets_one() {
    let scene = Scene::new("no-new-log");
    let (path, old) = (scene.path("app.log"), scene.path("app.old"));
    let master = Master::run(&scene, &counting(json!(path)));
    wait_until("lines", || ticks_of(&path).len() > 10);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).expect("its mode");
    fs::rename(&path, &old).expect("moved");
    wait_until("lines in a new file", || ticks_of(&path).len() > 10);
    let mode = fs::metadata(&path).expect("the new file").permissions().mode();
    assert_eq!(mode & 0o777, 0o620, "as the one before");
    master.stop(&scene);
    let all = [ticks_of(&old), ticks_of(&path)].concat();
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>(), "nothing is lost or out of order");
}

/// A disk of sixteen pages, in a mount namespace of the master's own.
#[test]
fn a_log_that_is_truncated_on_a_full_disk_holds_whole_lines() {
    const NAME: &str = "a_log_that_is_truncated_on_a_full_disk_holds_whole_lines";
    if !sys::is_root() {
        return skipped(NAME, "only root mounts");
    }
    let scene = Scene::new("full-log");
    fs::create_dir(scene.path("disk")).expect("a folder");
    let inner = Master::command(&scene, &counting(json!(scene.path("disk/app.log"))));
    let mut command = Command::new("unshare");
    let script = r#"mount -t tmpfs -o size=64k none disk && exec "$@""#;
    command.args(["-m", "sh", "-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
    let master = Master::start(&scene, command);
    master.wait_one_ready();
    let disk = PathBuf::from(format!("/proc/{}/root", master.pid()))
        .join(scene.path("disk").strip_prefix("/").expect("an absolute path"));
    let log = disk.join("app.log");
    wait_until("some lines", || fs::metadata(&log).is_ok_and(|found| found.len() > 6000));
    // All but two pages are taken by something else; then the log is truncated, as logrotate does it.
    fs::write(disk.join("filler"), vec![b'x'; 12 * 4096]).expect("room");
    drop(fs::write(disk.join("more"), vec![b'x'; 16 * 4096]));
    File::options().write(true).open(&log).expect("the log").set_len(0).expect("truncated");
    master.wait_log("cannot write log file");
    let text = fs::read(&log).expect("the log");
    assert!(!text.contains(&0), "NULs in {} bytes", text.len());
    assert_eq!(text.last(), Some(&b'\n'), "half a line is taken back");
    // Room again: what comes stands where a line begins.
    fs::remove_file(disk.join("more")).expect("removed");
    fs::remove_file(disk.join("filler")).expect("removed");
    let before = text.len();
    wait_until("lines again", || fs::metadata(&log).is_ok_and(|found| found.len() > before as u64));
    let text = fs::read_to_string(&log).expect("UTF-8");
    assert!(text.lines().all(|line| line.starts_with('[') && line.contains("] ")), "{text}");
    master.stop(&scene);
}

/// Standard output under another name: the file behind it is whoever's that started us.
#[test]
fn a_link_to_standard_output_is_left_alone() {
    let scene = Scene::new("linked-stdout");
    fs::create_dir(scene.path("d")).expect("a folder");
    let link = scene.path("d/stdout");
    symlink("/proc/self/fd/1", &link).expect("a link");
    let mut command = Master::command(&scene, &counting(json!({ "path": link, "maxSize": 2000, "keep": 2 })));
    let out = File::create(scene.path("out")).expect("a file");
    command.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
    let master = Master::start_as_is(&scene, command);
    wait_until("more than one file's worth", || {
        fs::metadata(scene.path("out")).is_ok_and(|found| found.len() > 5000)
    });
    master.wait_log("is not rotated");
    master.stop(&scene);
    let names = fs::read_dir(scene.path("d")).expect("the folder").flatten().map(|entry| entry.file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["stdout"]);
    assert_eq!(fs::read_link(&link).expect("still a link"), Path::new("/proc/self/fd/1"));
    let numbers = ticks_of(&scene.path("out"));
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

/// A master whose log file is on a file system whose server, the second value, never says a word.
fn on_dead_mount(scene: &Scene, mut settings: Value) -> Option<(Master, File)> {
    let server = File::options().read(true).write(true).open("/dev/fuse").ok().filter(|_| sys::is_root())?;
    drop(fs::create_dir(scene.path("dead")));
    settings["logFile"] = json!(scene.path("dead/app.log"));
    let inner = Master::command(scene, &settings);
    let mut command = Command::new("unshare");
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
    let script = format!(r#"mount -i -t fuse -o {options} none dead && exec "$@""#);
    sys::keep_open(&mut command, server.as_raw_fd());
    command.args(["-m", "sh", "-c", &script, "sh"]).arg(inner.get_program()).args(inner.get_args());
    Some((Master::start(scene, command), server))
}

#[test]
fn a_log_file_on_a_dead_mount_delays_no_end() {
    let scene = Scene::new("dead-log");
    let Some((master, _server)) = on_dead_mount(&scene, idle_settings()) else {
        return skipped(
            "a_log_file_on_a_dead_mount_delays_no_end",
            "only root mounts, where there is /dev/fuse",
        );
    };
    master.wait_one_ready();
    let status = eventually("a status", || master.try_status());
    assert_eq!(status["master"]["state"], "running");
    let told = Instant::now();
    master.stop(&scene);
    assert!(told.elapsed() < Duration::from_secs(6), "{:?}", told.elapsed());
}

#[test]
fn a_log_file_on_a_dead_mount_keeps_no_last_word() {
    let scene = Scene::new("dead-log-end");
    let mut settings = shell_workers(1, "exit 7");
    settings["maxForkCount"] = 0.into();
    let Some((mut master, _server)) = on_dead_mount(&scene, settings) else {
        return skipped(
            "a_log_file_on_a_dead_mount_keeps_no_last_word",
            "only root mounts, where there is /dev/fuse",
        );
    };
    assert_eq!(master.wait_exit().code(), Some(3), "{}", master.log_text());
    master.wait_log("proteus: giving up: no worker is ready");
    scene.assert_nothing_left();
}
