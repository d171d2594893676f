//! Which addresses may be asked for metadata and tokens. Their names come from a server's answers, and a server must not
//! make Cairn knock at doors inside the network (server-side request forgery).
//!
//! | host | may be reached |
//! | --- | --- |
//! | the server's own, at its own port, and those that the configuration names | yes, at any address, by http too |
//! | others, at a public address | yes, by https |
//! | others, at a loopback address | where the server's own URL is at loopback |
//! | others, at a private address | where the server's own URL is at a private address |
//! | others, link-local (cloud metadata lies there), multicast, unspecified, reserved | never |
//!
//! What decides for the server's own URL is what is written there: a name that resolves to a private address opens
//! nothing, because whoever owns the name chooses the address.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use url::{Host, Origin, Url};

/// What an address is to whoever asks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Public,
    Loopback,
    Private,
    Never,
}

/// The hosts that one server's credential may ask.
#[derive(Clone, Debug)]
pub struct Hosts {
    named: BTreeSet<String>,
    home: Class,
    /// The server's own scheme, host and port, to which Cairn goes anyway.
    origin: Origin,
}

impl Hosts {
    /// For a server at this URL, besides hosts that the configuration names.
    pub fn new(server: &Url, named: impl IntoIterator<Item = String>) -> Self {
        let home = match server.host() {
            Some(Host::Ipv4(at)) => class(at.into()),
            Some(Host::Ipv6(at)) => class(at.into()),
            Some(Host::Domain(name)) if is_localhost(name) => Class::Loopback,
            _ => Class::Public,
        };
        Self { named: named.into_iter().map(|host| plain(&host)).collect(), home, origin: server.origin() }
    }

    /// Whether this is the server's own door.
    pub(crate) fn is_home(&self, url: &Url) -> bool {
        url.origin() == self.origin
    }

    /// Whether a URL may be asked as far as it shows by itself; its addresses are looked at when they are known.
    pub(crate) fn admits_url(&self, url: &Url) -> bool {
        let Some(host) = url.host() else { return false };
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            return false;
        }
        if self.is_home(url) || self.is_named(&host.to_string()) {
            return true;
        }
        let at = match host {
            Host::Ipv4(at) => class(at.into()),
            Host::Ipv6(at) => class(at.into()),
            Host::Domain(name) if is_localhost(name) => Class::Loopback,
            Host::Domain(_) => Class::Public,
        };
        self.admits_class(at) && (url.scheme() == "https" || at == Class::Loopback)
    }

    /// Whether an address that this host has may be connected to.
    pub(crate) fn admits_address(&self, host: &str, address: IpAddr) -> bool {
        self.is_named(host) || self.admits_class(class(address))
    }

    fn is_named(&self, host: &str) -> bool {
        self.named.contains(&plain(host))
    }

    fn admits_class(&self, at: Class) -> bool {
        match at {
            Class::Public => true,
            Class::Loopback | Class::Private => at == self.home,
            Class::Never => false,
        }
    }
}

/// A host as it is compared: in small letters, without the brackets of an address and the dot at the end.
fn plain(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase()
}

fn is_localhost(name: &str) -> bool {
    let name = plain(name);
    name == "localhost" || name.ends_with(".localhost")
}

fn class(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(address) => class_v4(address),
        IpAddr::V6(address) => class_v6(address),
    }
}

fn class_v4(address: Ipv4Addr) -> Class {
    let [first, second, third, _] = address.octets();
    match (first, second) {
        _ if address.is_loopback() => Class::Loopback,
        _ if address.is_private() => Class::Private,
        // Carriers' own networks, which some companies use inside.
        (100, 64..=127) => Class::Private,
        (0, _) | (198, 18 | 19) | (240..=255, _) => Class::Never,
        (192, 0) if third == 0 || third == 2 => Class::Never,
        _ if address.is_link_local() || address.is_multicast() || address.is_documentation() => Class::Never,
        _ => Class::Public,
    }
}

fn class_v6(address: Ipv6Addr) -> Class {
    let segments = address.segments();
    let low = || Ipv4Addr::from((u32::from(segments[6]) << 16) | u32::from(segments[7]));
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Loopback,
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Never,
        // Addresses that carry one of version 4: mapped, compatible, NAT64, 6to4.
        [0, 0, 0, 0, 0, 0xffff | 0, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => class_v4(low()),
        [0x2002, high, next, ..] => class_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(next))),
        // Teredo and local NAT64 hide where they lead; AWS answers for its metadata at fd00:ec2::254.
        [0x2001, 0, ..] | [0x64, 0xff9b, 1, ..] | [0xfd00, 0x0ec2, ..] => Class::Never,
        [first, ..] if first & 0xfe00 == 0xfc00 => Class::Private,
        [first, ..] if first & 0xffc0 == 0xfe80 || address.is_multicast() => Class::Never,
        _ => Class::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(server: &str, named: &[&str]) -> Hosts {
        Hosts::new(&Url::parse(server).expect("a URL"), named.iter().map(|&name| name.to_owned()))
    }

    fn admits(hosts: &Hosts, url: &str) -> bool {
        hosts.admits_url(&Url::parse(url).expect("a URL"))
    }

    #[test]
    fn a_public_server_leads_to_nothing_inside() {
        let hosts = hosts("https://mcp.example.com/mcp", &[]);
        assert!(admits(&hosts, "https://login.example.com/token"));
        for inside in [
            "https://127.0.0.1/token",
            "https://localhost/token",
            "https://LOCALHOST./token",
            "https://a.localhost/",
            "https://10.0.0.9/",
            "https://192.168.1.1/",
            "https://100.64.0.1/",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:169.254.169.254]/",
            "https://[64:ff9b::10.0.0.1]/",
            "https://[2002:7f00:1::]/",
            "https://[fd00:ec2::254]/",
            "https://[fe80::1]/",
            "https://[fc00::1]/",
            "https://0.0.0.0/",
            "https://0x7f000001/",
            "http://login.example.com/token",
            "ftp://login.example.com/",
            "https://user:word@login.example.com/",
        ] {
            assert!(!admits(&hosts, inside), "{inside}");
        }
        for address in ["127.0.0.1", "10.1.1.1", "169.254.169.254", "::1", "fe80::1", "fd12::1", "0.0.0.0"] {
            let address = address.parse().expect("an address");
            assert!(!hosts.admits_address("login.example.com", address), "a name must not lead to {address}");
        }
        assert!(hosts.admits_address("login.example.com", "93.184.216.34".parse().expect("an address")));
        assert!(hosts.is_home(&Url::parse("https://mcp.example.com/other").expect("a URL")));
        // Whoever owns the server's name must not lead to another port of the address that it resolves to.
        assert!(!hosts.is_home(&Url::parse("https://mcp.example.com:9200/").expect("a URL")));
        assert!(!hosts.admits_address("mcp.example.com", "10.0.0.1".parse().expect("an address")));
    }

    #[test]
    fn where_the_server_is_its_like_may_be_asked_and_nothing_else() {
        let local = hosts("http://localhost:8080/mcp", &[]);
        assert!(admits(&local, "http://127.0.0.1:9/token"));
        assert!(!admits(&local, "http://10.0.0.1/token"));
        assert!(!admits(&local, "http://169.254.169.254/"));
        let inside = hosts("http://10.0.0.5/mcp", &[]);
        assert!(admits(&inside, "https://192.168.0.1/token"));
        assert!(!admits(&inside, "http://127.0.0.1/token"));
        assert!(!admits(&inside, "https://169.254.169.254/"));
    }

    #[test]
    fn what_the_configuration_names_may_be_asked() {
        let hosts = hosts("https://mcp.example.com/mcp", &["sso.corp", "10.0.0.9"]);
        assert!(admits(&hosts, "https://SSO.corp/token"));
        assert!(hosts.admits_address("sso.corp", "10.2.2.2".parse().expect("an address")));
        assert!(admits(&hosts, "http://10.0.0.9/token"));
        assert!(!admits(&hosts, "https://10.0.0.8/token"));
    }
}
