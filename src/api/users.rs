//! Users of this machine whose orders are taken.

use std::fs;

/// Users as this process sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Users {
    /// The master's own.
    pub(super) own: u32,
    /// What a user is shown as whom this process' namespace does not know, where there can be one.
    pub(super) stranger: Option<u32>,
}

impl Users {
    /// Of this process; its namespace may know only some users, and shows all others as one.
    pub(super) fn of_this_process(own: u32) -> Self {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
        let overflow = overflow.trim().parse().unwrap_or(65534);
        Users { own, stranger: (!knows_everybody(&map)).then_some(overflow) }
    }

    pub(super) fn trust(self, uid: u32) -> bool {
        self.stranger != Some(uid) && (uid == 0 || uid == self.own)
    }
}

/// Whether a `uid_map` leaves nobody out; without one there is one namespace.
fn knows_everybody(map: &str) -> bool {
    let counts = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    map.is_empty() || counts.sum::<u64>() >= u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_knows_everybody() {
        let table = [
            ("         0          0 4294967295\n", true),
            ("", true),
            ("         0     100000      65536\n", false),
            ("         0       1000          1\n", false),
            ("         0     100000      65536\n     65536     200000      65536\n", false),
        ];
        for (map, everybody) in table {
            assert_eq!(knows_everybody(map), everybody, "{map}");
        }
    }
}
