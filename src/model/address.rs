//! Addresses by rule: gateways, free addresses, what is no host's address. Pure.

use std::cmp::Ordering;
use std::collections::BTreeSet;
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
        return Some("is the network's own address");
    }
    (net.addr().is_ipv4() && address == net.broadcast()).then_some("is the broadcast address")
}

/// The lowest free host address from the tenth on; where the subnet is smaller or full, the lowest free one at all.
pub(super) fn lowest_free(net: &IpNet, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let free = |number| {
        let address = nth(net, number)?;
        (unusable(net, address).is_none() && !taken.contains(&address)).then_some(address)
    };
    let size = 1_u128.checked_shl(u32::from(net.max_prefix_len() - net.prefix_len())).unwrap_or(u128::MAX);
    // At most `taken` addresses are passed over, so one step more than that finds a free one if there is one.
    let last = size.min(taken.len() as u128 + 12);
    (10..last).find_map(free).or_else(|| (1..10.min(size)).find_map(free))
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

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_tenth_address_comes_first() {
        let mut taken = BTreeSet::new();
        assert_eq!(lowest_free(&net("192.168.10.0/24"), &taken), Some("192.168.10.10".parse().unwrap()));
        taken.insert("192.168.10.10".parse().unwrap());
        assert_eq!(lowest_free(&net("192.168.10.0/24"), &taken), Some("192.168.10.11".parse().unwrap()));
        assert_eq!(lowest_free(&net("fd00::/64"), &taken), Some("fd00::a".parse().unwrap()));
    }

    #[test]
    fn a_small_or_full_subnet_falls_back_and_ends() {
        let mut taken = BTreeSet::from(["10.0.0.1".parse().unwrap()]);
        assert_eq!(lowest_free(&net("10.0.0.0/30"), &taken), Some("10.0.0.2".parse().unwrap()));
        taken.insert("10.0.0.2".parse().unwrap());
        assert_eq!(lowest_free(&net("10.0.0.0/30"), &taken), None);
        let all: BTreeSet<IpAddr> = (10..255).map(|n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))).collect();
        assert_eq!(lowest_free(&net("10.0.0.0/24"), &all), Some("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn names_sort_as_people_count() {
        let mut names = ["vm10", "vm2", "vm1", "a", "vm", "vm02", "vm1-b", "vm1-a10", "vm1-a9"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["a", "vm", "vm1", "vm1-a9", "vm1-a10", "vm1-b", "vm2", "vm02", "vm10"]);
    }
}
