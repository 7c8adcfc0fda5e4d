//! Addresses by rule: gateways, free addresses, what is no host's address. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The address `number` places above the network address; `None` beyond the prefix.
pub(super) fn nth(net: &IpNet, number: u128) -> Option<IpAddr> {
    let address = match net {
        IpNet::V4(net) => {
            IpAddr::V4(Ipv4Addr::from(u32::from(net.network()).checked_add(u32::try_from(number).ok()?)?))
        }
        IpNet::V6(net) => IpAddr::V6(Ipv6Addr::from(u128::from(net.network()).checked_add(number)?)),
    };
    net.contains(&address).then_some(address)
}

/// Why an address of a subnet can't be a host's; `None` if it can.
pub(super) fn unusable(net: &IpNet, address: IpAddr) -> Option<&'static str> {
    if address == net.network() {
        // For IPv6 it is the subnet-router anycast address (RFC 4291, 2.6.1).
        return Some("is the network address");
    }
    (net.addr().is_ipv4() && address == net.broadcast()).then_some("is the broadcast address")
}

/// Whether a range is not for hosts: loopback, multicast and reserved ones, and fe80::/10 (RFC 6890).
pub(super) fn special(net: &IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_loopback() || v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    }
}

/// Hands out the free host addresses of a subnet: the lowest from the tenth on; where the subnet is smaller or full,
/// the lowest one at all. Each address is looked at once, however many are asked for.
#[derive(Debug, Default)]
pub(super) struct Free {
    looked_at: u128,
}

impl Free {
    /// The next address that is not in `taken`; `None` where the subnet is full.
    pub(super) fn next<T>(&mut self, net: &IpNet, taken: &BTreeMap<IpAddr, T>) -> Option<IpAddr> {
        // The tenth to the last, then the first to the ninth.
        const LOW: u128 = 10;
        let size = 1_u128.checked_shl(u32::from(net.max_prefix_len() - net.prefix_len())).unwrap_or(u128::MAX);
        let high = size.saturating_sub(LOW);
        while self.looked_at < high.saturating_add(LOW.min(size)) {
            let number = if self.looked_at < high { LOW + self.looked_at } else { self.looked_at - high };
            self.looked_at += 1;
            let Some(address) = nth(net, number) else { continue };
            if unusable(net, address).is_none() && !taken.contains_key(&address) {
                return Some(address);
            }
        }
        None
    }
}

/// Natural order: `vm2` before `vm10`.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (x, y) = (digits(a), digits(b));
        let order = if x > 0 && y > 0 {
            let (m, n) = (a[..x].trim_start_matches('0'), b[..y].trim_start_matches('0'));
            m.len().cmp(&n.len()).then(m.cmp(n)).then(x.cmp(&y))
        } else {
            a.chars().next().cmp(&b.chars().next())
        };
        if order != Ordering::Equal || a.is_empty() {
            return order;
        }
        let step = |text: &str, run: usize| if run > 0 { run } else { text.chars().next().map_or(0, char::len_utf8) };
        (a, b) = (&a[step(a, x)..], &b[step(b, y)..]);
    }
}

fn digits(text: &str) -> usize {
    text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(net: &str, taken: &[&str]) -> Vec<String> {
        let (net, mut free) = (net.parse().unwrap(), Free::default());
        let taken = taken.iter().map(|address| (address.parse().unwrap(), ())).collect();
        std::iter::from_fn(|| free.next(&net, &taken)).map(|address| address.to_string()).take(300).collect()
    }

    #[test]
    fn the_tenth_address_comes_first() {
        assert_eq!(all("192.168.10.0/24", &[])[..2], ["192.168.10.10", "192.168.10.11"]);
        assert_eq!(all("192.168.10.0/24", &["192.168.10.10"])[0], "192.168.10.11");
        assert_eq!(all("fd00::/64", &[])[0], "fd00::a");
    }

    #[test]
    fn a_small_or_full_subnet_falls_back_and_ends() {
        assert_eq!(all("10.0.0.0/30", &["10.0.0.1"]), ["10.0.0.2"]);
        assert_eq!(all("10.0.0.0/30", &["10.0.0.1", "10.0.0.2"]), [] as [&str; 0]);
        let mut whole = all("10.0.0.0/24", &[]);
        assert_eq!((whole.len(), whole[0].as_str(), whole[245].as_str()), (254, "10.0.0.10", "10.0.0.1"));
        whole.sort();
        whole.dedup();
        assert_eq!(whole.len(), 254);
    }

    #[test]
    fn names_sort_as_people_count() {
        let mut names = ["vm10", "vm2", "vm1", "a", "vm", "vm02", "vm1-b", "vm1-a10", "vm1-a9"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["a", "vm", "vm1", "vm1-a9", "vm1-a10", "vm1-b", "vm2", "vm02", "vm10"]);
    }
}
