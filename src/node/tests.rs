//! Node's lines, as observed, in and out.

use super::*;

fn node(line: &str) -> FromNode {
    match parse(line) {
        Ok(Heard::Node(heard)) => heard,
        other => panic!("{line}: {other:?}"),
    }
}

fn user(line: &str) -> Message {
    Message::parse(line.into()).unwrap()
}

fn query(rest: &str) -> Query {
    match node(&format!(r#"{{"cmd":"NODE_CLUSTER","act":"queryServer","seq":3,{rest}}}"#)) {
        FromNode::Query(query) => query,
        other => panic!("{rest}: {other:?}"),
    }
}

#[test]
fn what_a_node_worker_may_say() {
    let table = [
        (r#"{"cmd":"NODE_CLUSTER","act":"online","seq":0}"#, Heard::Node(FromNode::Internal)),
        (r#"{"cmd":"NODE_CLUSTER","act":"listening","port":80,"seq":2}"#, Heard::Line(FromWorker::Ready)),
        (
            r#"{"cmd":"NODE_CLUSTER","act":"close","key":"a:b","seq":3}"#,
            Heard::Node(FromNode::Closed { key: "a:b".into() }),
        ),
        (
            r#"{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":4}"#,
            Heard::Node(FromNode::Leaving { seq: 4 }),
        ),
        (r#"{"cmd":"NODE_CLUSTER","act":"suicide","seq":5}"#, Heard::Node(FromNode::Leaving { seq: 5 })),
        (r#"{"cmd":"NODE_HANDLE_ACK"}"#, Heard::Node(FromNode::Arrived)),
        (r#"{"cmd":"NODE_HANDLE_NACK"}"#, Heard::Node(FromNode::Lost)),
        (
            r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"cmd":"x"}}"#,
            Heard::Node(FromNode::Gift(Some(user(r#"{"cmd":"x"}"#)))),
        ),
        (r#"{"cmd":"NODE_SOMETHING"}"#, Heard::Node(FromNode::Internal)),
        (r#"{"cmd":"PROTEUS_ALIVE"}"#, Heard::Line(FromWorker::Alive)),
        (
            r#"{"cmd":"PROTEUS_LISTEN","address":"a"}"#,
            Heard::Line(FromWorker::Reserved("PROTEUS_LISTEN".into())),
        ),
        (
            r#"{"cmd":"fromWorker","msg":1}"#,
            Heard::Line(FromWorker::User(user(r#"{"cmd":"fromWorker","msg":1}"#))),
        ),
        (r#""NODE_CLUSTER""#, Heard::Line(FromWorker::User(user(r#""NODE_CLUSTER""#)))),
    ];
    for (line, expected) in table {
        assert_eq!(parse(line), Ok(expected), "{line}");
    }
    for line in ["", "{", r#"{"cmd":"NODE_CLUSTER","act":"queryServer"}"#] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn a_gift_from_node_to_node_is_nobodys_message() {
    let gift = node(r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER"}}"#);
    assert_eq!(gift, FromNode::Gift(None));
}

#[test]
fn only_the_bare_word_says_ready() {
    for (line, says) in [
        (r#""ready""#, true),
        (" \"ready\"\r", true),
        (r#""Ready""#, false),
        ("[\"ready\"]", false),
        ("0", false),
    ] {
        assert_eq!(says_ready(&user(line)), says, "{line}");
    }
}

#[test]
fn every_form_of_address() {
    let at = |index, texts: &[&str]| {
        let candidates = texts.iter().map(|text| text.parse().unwrap()).collect();
        Ok(Target::Addresses { candidates, index })
    };
    let scoped: SocketAddr = "[fe80::1%2]:80".parse().unwrap();
    let table = [
        (
            r#""index":0,"address":null,"port":8080,"addressType":4,"backlog":0"#,
            at(0, &["[::]:8080", "0.0.0.0:8080"]),
        ),
        (r#""index":2,"address":"127.0.0.1","port":0,"addressType":4"#, at(2, &["127.0.0.1:0"])),
        (r#""index":0,"address":"::1","port":80,"addressType":6"#, at(0, &["[::1]:80"])),
        (
            r#""index":0,"address":"fe80::1%2","port":80,"addressType":6"#,
            Ok(Target::Addresses { candidates: vec![ListenAddress::Tcp(scoped)], index: 0 }),
        ),
        (
            r#""index":0,"address":"0.0.0.0","port":53,"addressType":"udp4","fd":-1,"flags":4"#,
            at(0, &["udp:0.0.0.0:53"]),
        ),
        (r#""index":0,"address":"::","port":53,"addressType":"udp6""#, at(0, &["udp:[::]:53"])),
        (r#""index":0,"address":"/run/a.sock","port":-1,"addressType":-1"#, at(0, &["unix:/run/a.sock"])),
        (r#""index":0,"address":"a.sock","port":-1,"addressType":-1"#, at(0, &["unix:a.sock"])),
        (r#""index":0,"address":"\u0000app","port":-1,"addressType":-1"#, at(0, &["unix:@app"])),
        (r#""index":0,"address":"/srv/\u0000app","port":-1,"addressType":-1"#, at(0, &["unix:@app"])),
        (r#""index":0,"address":"/srv/a\u0000pp","port":-1,"addressType":-1"#, Err(libc::EINVAL)),
        (r#""index":0,"address":"/srv/\u0000","port":-1,"addressType":-1"#, Err(libc::EINVAL)),
        (r#""index":0,"address":null,"port":null,"addressType":null,"fd":3"#, Ok(Target::Descriptor(3))),
        (r#""index":0,"address":null,"port":-1,"addressType":-1"#, Err(libc::EINVAL)),
        (r#""index":0,"address":"localhost","port":1,"addressType":4"#, Err(libc::EINVAL)),
        (r#""index":0,"address":"127.0.0.1","port":70000,"addressType":4"#, Err(libc::EINVAL)),
    ];
    for (rest, target) in table {
        assert_eq!(query(rest).target, target, "{rest}");
    }
}

#[test]
fn keys_and_options_are_those_of_node() {
    let asked =
        query(r#""index":1,"data":{"ticketKeys":"00"},"address":"::","port":80,"addressType":6,"flags":1"#);
    assert_eq!(asked.key, ":::80:6:null:1");
    assert_eq!(asked.options, Options { only_ipv6: true, ..Options::default() });
    let table = [
        (r#""backlog":511,"readableAll":true,"writableAll":true"#, (0o666, Some(511))),
        (r#""backlog":0,"readableAll":true,"writableAll":false"#, (0o444, None)),
        (r#""backlog":99999999999,"writableAll":true"#, (0o222, Some(i32::MAX.unsigned_abs()))),
        (r#""backlog":-1,"readableAll":"yes""#, (0, None)),
    ];
    for (rest, expected) in table {
        let options = query(&format!(r#""address":"/a","addressType":-1,{rest}"#)).options;
        assert_eq!((options.mode, options.backlog), expected, "{rest}");
    }
    assert_eq!(asked.data, json!({ "ticketKeys": "00" }));
    let relative = query(r#""index":0,"address":"a.sock","port":-1,"addressType":-1"#);
    let Ok(Target::Addresses { candidates, .. }) = relative.resolved(Path::new("/srv")).target else {
        panic!("a path");
    };
    assert_eq!(candidates, [ListenAddress::Unix("/srv/a.sock".into())]);
}

fn asking() -> Peer<&'static str> {
    let mut peer = Peer::new();
    assert_eq!(peer.asks(), Attention::Answer);
    peer
}

fn grant(handle: &'static str) -> Grant<&'static str> {
    Grant { handle, kind: HandleKind::Stream, name: handle.to_owned(), data: Value::Null }
}

fn value((line, _): &Parcel<&'static str>) -> Value {
    assert_eq!(line.last(), Some(&b'\n'));
    serde_json::from_slice(line).unwrap()
}

#[test]
fn handles_go_one_at_a_time() {
    let mut peer = asking();
    let (a, b) =
        (query(r#""index":0,"port":1,"addressType":4"#), query(r#""index":0,"port":2,"addressType":4"#));
    let first = peer.grant(&a, grant("a")).expect("at once");
    let expected = json!({ "cmd": "NODE_HANDLE", "type": "net.Native", "msg":
        { "cmd": "NODE_CLUSTER", "errno": 0, "key": a.key, "ack": 3, "data": null, "seq": 0 } });
    assert_eq!((value(&first), first.1), (expected, Some("a")));
    let udp = Grant { kind: HandleKind::Datagram, data: json!(7), ..grant("b") };
    assert!(peer.grant(&b, udp).is_none(), "the first is still on its way");
    let second = peer.arrived().expect("now");
    assert_eq!((value(&second)["type"].clone(), second.1), (json!("dgram.Native"), Some("b")));
    assert_eq!(value(&second)["msg"]["data"], 7);
    assert!(peer.arrived().is_none() && peer.arrived().is_none());
}

#[test]
fn a_lost_handle_goes_again_and_at_last_fails() {
    let mut peer = asking();
    let asked = query(r#""index":0,"port":1,"addressType":4"#);
    peer.grant(&asked, grant("a")).expect("sent");
    for _ in 1..TRIES {
        assert_eq!(peer.lost().iter().map(|parcel| parcel.1).collect::<Vec<_>>(), [Some("a")]);
    }
    let failed = peer.lost();
    assert_eq!((failed.len(), failed[0].1), (1, None));
    assert_eq!(value(&failed[0])["errno"], -libc::EMFILE);
    assert!(peer.lost().is_empty());
}

#[test]
fn one_listener_is_open_once_in_a_worker() {
    let mut peer = asking();
    let first = query(r#""index":0,"port":1,"addressType":4"#);
    let again = query(r#""index":1,"port":1,"addressType":4"#);
    peer.grant(&first, grant("a")).expect("sent");
    peer.arrived();
    let refused = peer.grant(&again, grant("a")).expect("an answer");
    assert_eq!((value(&refused)["errno"].clone(), refused.1), (json!(-libc::EADDRINUSE), None));
    peer.closed(&first.key);
    assert_eq!(peer.grant(&again, grant("a")).expect("an answer").1, Some("a"));
}

#[test]
fn who_leaves_is_told_once_and_answered_no_more() {
    let mut peer = asking();
    let asked = query(r#""index":0,"port":1,"addressType":4"#);
    let Farewell::Line(line) = peer.dismiss() else { panic!("a line") };
    let told: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(told, json!({ "cmd": "NODE_CLUSTER", "act": "disconnect", "seq": 0 }));
    assert_eq!((peer.asks(), peer.dismiss()), (Attention::Ignore, Farewell::Said));
    assert!(peer.grant(&asked, grant("a")).is_none());
    let mut silent: Peer<&str> = Peer::new();
    assert_eq!((silent.dismiss(), silent.dismiss()), (Farewell::Signal, Farewell::Said));
    let mut peer = asking();
    let allowed: Value = serde_json::from_slice(&peer.allow_leaving(9)).unwrap();
    assert_eq!(allowed, json!({ "cmd": "NODE_CLUSTER", "ack": 9, "seq": 0 }));
    assert_eq!((peer.asks(), peer.dismiss()), (Attention::Ignore, Farewell::Said));
}
