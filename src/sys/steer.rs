//! Steering of new connections among `SO_REUSEPORT` sockets, by a program that the kernel runs for each of them.
//!
//! Classic BPF: it takes the flow (source address and port) to one of the live sockets, so that a flow of datagrams
//! stays where it is, and jumps over the others. Sockets are known by their index in the group, which is the order in
//! which they were bound; when one is closed, the last takes its index.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{BPF_A, BPF_ABS, BPF_ADD, BPF_ALU, BPF_B, BPF_H, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD};
use libc::{BPF_MISC, BPF_MOD, BPF_MUL, BPF_RET, BPF_RSH, BPF_TAX, BPF_W, BPF_X, BPF_XOR};
use libc::{sock_filter, sock_fprog};

use super::check;

/// Not in the libc crate for all targets; on the few machines where it has another number, the call fails.
const SO_ATTACH_REUSEPORT_CBPF: libc::c_int = 51;

/// Fibonacci hashing's multiplier: neighbouring ports end up far apart.
const SPREAD: u32 = 0x9e37_79b1;

/// From now on new connections go to the live members of a group, of which this is one, and to no other.
pub(crate) fn steer(member: BorrowedFd<'_>, live: &[bool]) -> io::Result<()> {
    let mut program = program(live);
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies `len` instructions, which outlive the call.
    check(unsafe {
        libc::setsockopt(
            member.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<sock_fprog>() as libc::socklen_t,
        )
    })
    .map(drop)
}

fn program(live: &[bool]) -> Vec<sock_filter> {
    let network = |offset: u32| libc::SKF_NET_OFF.cast_unsigned().wrapping_add(offset);
    let count = live.iter().filter(|live| **live).count().max(1);
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let mut program = vec![
        // The version of IP; one listener may take both.
        step(BPF_LD | BPF_B | BPF_ABS, network(0)),
        step(BPF_ALU | BPF_RSH | BPF_K, 4),
        branch(BPF_JEQ, 4, 0, 4),
        // IPv4: the port, then the address.
        step(BPF_LD | BPF_H | BPF_ABS, network(20)),
        step(BPF_MISC | BPF_TAX, 0),
        step(BPF_LD | BPF_W | BPF_ABS, network(12)),
        step(BPF_JMP, 3),
        // IPv6: the port, then the last part of the address.
        step(BPF_LD | BPF_H | BPF_ABS, network(40)),
        step(BPF_MISC | BPF_TAX, 0),
        step(BPF_LD | BPF_W | BPF_ABS, network(20)),
        step(BPF_ALU | BPF_XOR | BPF_X, 0),
        step(BPF_ALU | BPF_MUL | BPF_K, SPREAD),
        step(BPF_ALU | BPF_RSH | BPF_K, 16),
        step(BPF_ALU | BPF_MOD | BPF_K, count),
    ];
    // The n-th live index is n, and one more for each dead one up to it.
    for (dead, _) in live.iter().enumerate().filter(|(_, live)| !**live) {
        program.push(branch(BPF_JGE, u32::try_from(dead).unwrap_or(u32::MAX), 0, 1));
        program.push(step(BPF_ALU | BPF_ADD | BPF_K, 1));
    }
    program.push(step(BPF_RET | BPF_A, 0));
    program
}

fn step(code: u32, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt: 0, jf: 0, k }
}

/// Skips so many steps if the comparison holds, and so many if not.
fn branch(comparison: u32, k: u32, holds: u8, fails: u8) -> sock_filter {
    sock_filter { jt: holds, jf: fails, ..step(BPF_JMP | comparison | BPF_K, k) }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// A group of sockets on one port of this address.
    fn group(address: &str, kind: Type, members: usize) -> Vec<Socket> {
        let mut at: std::net::SocketAddr = address.parse().unwrap();
        let bind = |_| {
            let socket = Socket::new(Domain::for_address(at), kind, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&at.into()).unwrap();
            if kind == Type::STREAM {
                socket.listen(256).unwrap();
            }
            at = socket.local_addr().unwrap().as_socket().unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        (0..members).map(bind).collect()
    }

    /// How many of 64 connections each member got.
    fn connections(group: &[TcpListener]) -> Vec<usize> {
        let at = group[0].local_addr().unwrap();
        let clients: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(at).unwrap()).collect();
        let counts = group.iter().map(|member| std::iter::from_fn(|| member.accept().ok()).count()).collect();
        drop(clients);
        counts
    }

    #[test]
    fn connections_go_to_the_live_members_alone() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let sockets = group(address, Type::STREAM, 5);
            let members: Vec<TcpListener> = sockets.into_iter().map(Into::into).collect();
            for live in [&[0, 1, 2, 3, 4][..], &[0], &[4], &[1, 3], &[0, 2, 3, 4]] {
                let alive: Vec<bool> = (0..5).map(|index| live.contains(&index)).collect();
                steer(members[0].as_fd(), &alive).unwrap();
                let counts = connections(&members);
                assert_eq!(counts.iter().sum::<usize>(), 64, "{address} {live:?}");
                for (index, count) in counts.iter().enumerate() {
                    assert_eq!(*count > 0, live.contains(&index), "{address} {live:?}: {counts:?}");
                }
            }
        }
    }

    #[test]
    fn the_last_takes_the_index_of_one_that_is_closed() {
        let sockets = group("127.0.0.1:0", Type::STREAM, 4);
        let mut members: Vec<TcpListener> = sockets.into_iter().map(Into::into).collect();
        drop(members.swap_remove(1));
        steer(members[0].as_fd(), &[false, true, false]).unwrap();
        assert_eq!(connections(&members), [0, 64, 0]);
    }

    #[test]
    fn a_flow_of_datagrams_stays_where_it_is() {
        let sockets = group("127.0.0.1:0", Type::DGRAM, 3);
        let members: Vec<UdpSocket> = sockets.into_iter().map(Into::into).collect();
        steer(members[0].as_fd(), &[true, false, true]).unwrap();
        let at = members[0].local_addr().unwrap();
        for _ in 0..16 {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            for _ in 0..4 {
                client.send_to(b"x", at).unwrap();
            }
            let got = |member: &UdpSocket| std::iter::from_fn(|| member.recv(&mut [0; 8]).ok()).count();
            let counts: Vec<usize> = members.iter().map(got).collect();
            assert!(counts == [4, 0, 0] || counts == [0, 0, 4], "{counts:?}");
        }
    }
}
