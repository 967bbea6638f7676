//! What a `Host` header holds. Pure.

use std::net::{IpAddr, Ipv6Addr};

/// An IP address, in brackets or not; one of IPv6 may name an interface, and one of IPv4 may stand in it.
pub(super) fn literal(name: &str) -> Option<IpAddr> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let inside = name.strip_prefix('[')?.strip_suffix(']')?;
    let (address, zone) = inside.split_once('%').unwrap_or((inside, "lo"));
    let is_zone =
        !zone.is_empty() && zone.bytes().all(|byte| byte.is_ascii_graphic() && !b"[]@/:".contains(&byte));
    let address = address.parse::<Ipv6Addr>().ok().filter(|_| is_zone)?;
    Some(IpAddr::V6(address).to_canonical())
}

pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // `::1` is an address, `[::1]:8111` one with a port.
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (name.ends_with(']') || !name.contains(':')) =>
        {
            name
        }
        _ => host,
    }
}
