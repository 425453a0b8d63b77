//! Where a request comes from: the peer of its connection, or, where that is a proxy that settings name, the client that
//! the proxy names.
//!
//! **Invariant**: a header is believed from a named proxy only; anybody else may send what they like, and it is not read.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use http::HeaderMap;
use ipnet::IpNet;

use super::Peer;

/// Peers that settings name: addresses, networks, and whoever may open the unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    networks: Vec<IpNet>,
    unix: bool,
}

impl Peers {
    pub fn contains(&self, peer: Peer) -> bool {
        match peer {
            Peer::Tcp(address) => self.has(address.ip()),
            Peer::Unix => self.unix,
            Peer::Operator | Peer::Watcher => false,
        }
    }

    fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }
}

/// A text that names no peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPeer;

impl Peers {
    /// Reads addresses, networks such as `10.0.0.0/8`, and `unix`.
    ///
    /// # Errors
    /// [`NoPeer`].
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, NoPeer> {
        let mut peers = Self::default();
        for text in texts {
            match text {
                "unix" => peers.unix = true,
                _ => peers.networks.push(network(text).filter(|network| network.prefix_len() > 0).ok_or(NoPeer)?),
            }
        }
        Ok(peers)
    }
}

fn network(text: &str) -> Option<IpNet> {
    IpNet::from_str(text).ok().or_else(|| IpAddr::from_str(text).ok().map(IpNet::from))
}

/// Whose limits these are: one IPv4 address, or the /64 that one IPv6 household has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(IpAddr);

impl Address {
    pub fn new(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The client's address. `None` where nobody can say: over a unix socket, or over loopback, where a proxy that is not named
/// may speak for everybody.
pub fn client(peer: Peer, headers: &HeaderMap, proxies: &Peers) -> Option<Address> {
    if proxies.contains(peer) {
        // The last hop that is no proxy of ours: what stands before it is the client's own word. A hop that can't be read is
        // somebody: all of them are one.
        let hops =
            headers.get_all("x-forwarded-for").iter().rev().flat_map(|value| value.as_bytes().rsplit(|b| *b == b','));
        let mut hops = hops.map(|hop| hop_address(hop).unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
        return hops.find(|address| !proxies.has(*address)).map(Address::new);
    }
    match peer {
        Peer::Tcp(address) if !address.ip().to_canonical().is_loopback() => Some(Address::new(address.ip())),
        Peer::Tcp(_) | Peer::Unix | Peer::Operator | Peer::Watcher => None,
    }
}

/// An address, with a port behind it or without.
fn hop_address(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let bare = hop.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn peers(texts: &[&'static str]) -> Peers {
        Peers::parse(texts.iter().copied()).expect("peers")
    }

    fn tcp(address: &str) -> Peer {
        Peer::Tcp((address.parse::<IpAddr>().expect("an address"), 1).into())
    }

    fn seen(peer: Peer, forwarded: &[&'static str], proxies: &[&'static str]) -> Option<String> {
        let mut map = HeaderMap::new();
        for text in forwarded {
            map.append("x-forwarded-for", HeaderValue::from_bytes(text.as_bytes()).expect("a value"));
        }
        client(peer, &map, &peers(proxies)).map(|address| address.to_string())
    }

    #[test]
    fn a_forged_header_counts_for_nothing() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(seen(tcp("192.0.2.1"), &["198.51.100.7"], &[]), text("192.0.2.1"));
        assert_eq!(seen(tcp("192.0.2.1"), &["198.51.100.7"], &["10.0.0.0/8", "unix"]), text("192.0.2.1"));
        // What the client made up stands before what the proxy has seen.
        assert_eq!(seen(tcp("10.1.1.1"), &["203.0.113.9, 198.51.100.7"], &["10.0.0.0/8"]), text("198.51.100.7"));
        assert_eq!(
            seen(tcp("10.1.1.1"), &["203.0.113.9", "198.51.100.7, 10.2.2.2"], &["10.0.0.0/8"]),
            text("198.51.100.7")
        );
        assert_eq!(seen(tcp("10.1.1.1"), &["\u{e9}, 198.51.100.7:4711"], &["10.0.0.0/8"]), text("198.51.100.7"));
        assert_eq!(seen(tcp("10.1.1.1"), &["198.51.100.7, rubbish"], &["10.0.0.0/8"]), text("::"));
    }

    #[test]
    fn who_speaks_for_everybody_has_no_address() {
        assert_eq!(seen(tcp("127.0.0.1"), &["198.51.100.7"], &[]), None);
        assert_eq!(seen(Peer::Unix, &["198.51.100.7"], &["127.0.0.1"]), None);
        assert_eq!(seen(Peer::Unix, &["198.51.100.7"], &["unix"]), Some("198.51.100.7".into()));
        assert_eq!(seen(tcp("127.0.0.1"), &[], &["127.0.0.1"]), None);
    }

    #[test]
    fn a_household_is_one_address() {
        let address = |text: &str| Address::new(text.parse().expect("an address"));
        assert_eq!(address("2001:db8:1:2:3:4:5:6"), address("2001:db8:1:2::1"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
    }

    #[test]
    fn rubbish_is_no_peer() {
        for bad in ["", "localhost", "10.0.0.0/33", "unix:", "*", "0.0.0.0/0", "::/0"] {
            assert_eq!(Peers::parse([bad]), Err(NoPeer), "{bad}");
        }
    }
}
