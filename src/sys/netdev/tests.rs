//! Everything is done in namespaces of the test's own and looked at afterwards.
#![allow(clippy::unwrap_used)]

use std::os::fd::AsFd;

use super::*;
use crate::sys::namespace::Namespace;
use crate::sys::testing::in_namespace;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// A veth pair `w0`-`w1`, both up, `w0` with an address.
fn wan(netdev: &mut Netdev) {
    assert!(netdev.add_veth("w0", "w1").unwrap());
    netdev.set_up("w0", true).unwrap();
    netdev.set_up("w1", true).unwrap();
    assert!(
        netdev
            .add_address("w0", prefix("192.0.2.10/24"), None)
            .unwrap()
    );
}

/// Without the link-local addresses that the kernel makes when it gets round to it.
fn settled(mut addresses: Vec<Address>) -> Vec<Address> {
    addresses.retain(|address| match address.prefix.address {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    });
    addresses
}

/// Without the IPv6 routes that come with those addresses.
fn ipv4(mut routes: Vec<Route>) -> Vec<Route> {
    routes.retain(|route| route.destination.address.is_ipv4());
    routes
}

#[test]
fn prefixes_parse_and_print() {
    assert_eq!(prefix("10.0.0.1/24").to_string(), "10.0.0.1/24");
    assert_eq!(
        prefix("10.0.0.1"),
        Prefix::host("10.0.0.1".parse().unwrap())
    );
    assert_eq!(prefix("fd00::1").bits, 128);
    for bad in [
        "",
        "10.0.0.1/33",
        "10.0.0.1/",
        "fd00::/129",
        "10.0.0/8",
        "1.2.3.4/x",
    ] {
        assert!(bad.parse::<Prefix>().is_err(), "{bad}");
    }
}

#[test]
fn an_interface_gets_mtu_queue_length_and_state() {
    in_namespace(|| {
        let mut netdev = Netdev::open().unwrap();
        wan(&mut netdev);
        netdev.set_mtu("w0", 1_400).unwrap();
        netdev.set_queue_length("w0", 5_000).unwrap();
        netdev.set_superframe_bytes("w0", 60_000).unwrap();
        let found = netdev.interface("w0").unwrap().unwrap();
        assert_eq!(
            (found.mtu, found.queue_length, found.up),
            (1_400, 5_000, true)
        );
        assert_eq!(found.superframe_bytes, 60_000);
        assert_eq!(netdev.mtu_of("w0").unwrap(), Some(1_400));
        netdev.set_up("w0", false).unwrap();
        assert!(!netdev.interface("w0").unwrap().unwrap().up);
        assert!(!netdev.add_veth("w0", "w9").unwrap(), "the name exists");
        assert!(netdev.remove_interface("w0").unwrap());
        assert!(!netdev.remove_interface("w0").unwrap());
        assert_eq!(netdev.interface("w1").unwrap(), None);
        assert!(
            netdev
                .set_mtu("w0", 1_400)
                .unwrap_err()
                .to_string()
                .contains("w0")
        );
    });
}

#[test]
fn addresses_of_both_families_come_and_go_exactly() {
    in_namespace(|| {
        let mut netdev = Netdev::open().unwrap();
        wan(&mut netdev);
        let before = settled(netdev.addresses().unwrap());
        let peer = Some("10.9.0.2".parse().unwrap());
        let mut all = vec![(prefix("10.9.0.1/32"), peer), (prefix("10.8.0.1/24"), None)];
        if std::path::Path::new("/proc/sys/net/ipv6").exists() {
            all.push((prefix("fd00::1/64"), None));
        } else {
            eprintln!("SKIPPED: IPv6 is off");
        }
        for &(address, peer) in &all {
            assert!(netdev.add_address("w0", address, peer).unwrap());
            assert!(!netdev.add_address("w0", address, peer).unwrap(), "twice");
            let device = netdev.device_of(address.address).unwrap();
            assert_eq!(device.as_deref(), Some("w0"));
            let index = netdev.index_of("w0").unwrap();
            let expected = Address {
                index,
                prefix: address,
                peer,
            };
            assert!(netdev.addresses().unwrap().contains(&expected));
        }
        for &(address, peer) in &all {
            assert!(netdev.remove_address("w0", address, peer).unwrap());
            assert!(!netdev.remove_address("w0", address, peer).unwrap());
        }
        assert_eq!(settled(netdev.addresses().unwrap()), before);
        assert_eq!(
            netdev.device_of("203.0.113.1".parse().unwrap()).unwrap(),
            None
        );
    });
}

#[test]
fn a_wan_gets_its_rule_and_its_table_and_both_go_exactly() {
    in_namespace(|| {
        let mut netdev = Netdev::open().unwrap();
        wan(&mut netdev);
        let source: IpAddr = "192.0.2.10".parse().unwrap();
        let gateway: IpAddr = "192.0.2.1".parse().unwrap();
        let dev = Some("w0".to_owned());
        let mut main = Route::to(Prefix::DEFAULT_V4);
        (main.gateway, main.device, main.metric) = (Some(gateway), dev.clone(), 600);
        let better = Route {
            metric: 100,
            ..main.clone()
        };
        assert!(netdev.add_route(&main).unwrap() && netdev.add_route(&better).unwrap());
        assert_eq!(netdev.default_route("w0", source).unwrap(), Some(better));
        assert_eq!(netdev.gateway_of("w0", source).unwrap(), Some(gateway));
        assert_eq!(netdev.gateway_of("w1", source).unwrap(), None);

        let (routes, rules) = (ipv4(netdev.routes().unwrap()), netdev.rules().unwrap());
        let rule = Rule::from_source(source, 51_820, 1_000);
        let table = Route {
            table: 51_820,
            metric: 0,
            ..main.clone()
        };
        assert!(netdev.add_rule(&rule).unwrap() && !netdev.add_rule(&rule).unwrap());
        assert!(netdev.add_route(&table).unwrap() && !netdev.add_route(&table).unwrap());
        assert!(netdev.rules().unwrap().contains(&rule));
        assert!(netdev.routes().unwrap().contains(&table));
        // Another rule of the same priority must survive the removal of ours.
        let other = Rule {
            table: 51_821,
            ..rule.clone()
        };
        assert!(netdev.add_rule(&other).unwrap());
        assert!(netdev.remove_rule(&rule).unwrap() && !netdev.remove_rule(&rule).unwrap());
        assert!(netdev.rules().unwrap().contains(&other));
        assert!(netdev.remove_rule(&other).unwrap());
        assert!(netdev.remove_route(&table).unwrap() && !netdev.remove_route(&table).unwrap());
        assert_eq!(ipv4(netdev.routes().unwrap()), routes);
        assert_eq!(netdev.rules().unwrap(), rules);
    });
}

#[test]
fn a_wan_of_ipv6_gets_its_rule_and_its_table_too() {
    in_namespace(|| {
        if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
            eprintln!("SKIPPED: IPv6 is off");
            return;
        }
        let mut netdev = Netdev::open().unwrap();
        wan(&mut netdev);
        let source: IpAddr = "fd00::10".parse().unwrap();
        netdev
            .add_address("w0", prefix("fd00::10/64"), None)
            .unwrap();
        let mut route = Route::to(Prefix::DEFAULT_V6);
        route.gateway = Some("fd00::1".parse().unwrap());
        route.device = Some("w0".to_owned());
        // The kernel makes 1024 of a metric of 0 in this family.
        (route.table, route.metric) = (51_820, 1_024);
        let rule = Rule::from_source(source, 51_820, 1_000);
        assert!(netdev.add_route(&route).unwrap() && !netdev.add_route(&route).unwrap());
        assert!(netdev.add_rule(&rule).unwrap() && !netdev.add_rule(&rule).unwrap());
        assert!(netdev.routes().unwrap().contains(&route));
        assert!(netdev.rules().unwrap().contains(&rule));
        assert_eq!(
            netdev.gateway_of("w0", source).unwrap(),
            None,
            "not in the main table"
        );
        assert!(netdev.remove_rule(&rule).unwrap() && !netdev.remove_rule(&rule).unwrap());
        assert!(netdev.remove_route(&route).unwrap() && !netdev.remove_route(&route).unwrap());
    });
}

#[test]
fn on_link_routes_and_the_rules_of_a_full_tunnel_are_possible() {
    in_namespace(|| {
        let mut netdev = Netdev::open().unwrap();
        wan(&mut netdev);
        let dev = Some("w0".to_owned());
        let on_device = Route {
            device: dev.clone(),
            table: 700,
            ..Route::to(Prefix::DEFAULT_V4)
        };
        let far: IpAddr = "198.51.100.1".parse().unwrap();
        let on_link = Route {
            gateway: Some(far),
            device: dev,
            table: 701,
            on_link: true,
            ..Route::to(prefix("10.0.0.0/8"))
        };
        for route in [&on_device, &on_link] {
            assert!(netdev.add_route(route).unwrap());
            assert!(netdev.routes().unwrap().contains(route));
            assert!(netdev.remove_route(route).unwrap());
        }
        let unmarked = Rule {
            from: None,
            mark: Some(0xC1),
            invert: true,
            ..Rule::from_source(far, 702, 32_000)
        };
        let specific = Rule {
            from: None,
            suppress_prefix_length: Some(0),
            ..Rule::from_source(far, TABLE_MAIN, 31_999)
        };
        for rule in [&unmarked, &specific] {
            assert!(netdev.add_rule(rule).unwrap());
            assert!(netdev.rules().unwrap().contains(rule), "{rule}");
            assert!(netdev.remove_rule(rule).unwrap());
        }
        let nowhere = Route {
            gateway: Some(far),
            ..Route::to(Prefix::DEFAULT_V4)
        };
        assert!(netdev.add_route(&nowhere).is_err());
        assert!(
            !netdev
                .remove_route(&Route {
                    device: Some("w7".into()),
                    ..nowhere
                })
                .unwrap()
        );
    });
}

#[test]
fn a_veth_end_moves_to_another_namespace_and_carries_datagrams() {
    in_namespace(|| {
        let other = Namespace::create().unwrap();
        let mut netdev = Netdev::open().unwrap();
        wan(&mut netdev);
        netdev.move_to("w1", other.as_fd()).unwrap();
        assert_eq!(netdev.interface("w1").unwrap(), None);
        let (socket, address) = other
            .run(|| {
                let mut netdev = Netdev::open().unwrap();
                netdev
                    .add_address("w1", prefix("192.0.2.20/24"), None)
                    .unwrap();
                netdev.set_up("w1", true).unwrap();
                let socket = std::net::UdpSocket::bind("192.0.2.20:0").unwrap();
                let address = socket.local_addr().unwrap();
                (socket, address)
            })
            .unwrap();
        let here = std::net::UdpSocket::bind("192.0.2.10:0").unwrap();
        here.send_to(b"across", address).unwrap();
        socket
            .set_read_timeout(Some(crate::sys::testing::DEADLINE))
            .unwrap();
        let mut buffer = [0; 16];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 6);
    });
}

#[test]
fn offloads_of_a_veth_can_be_switched_off_and_on() {
    in_namespace(|| {
        let mut netdev = Netdev::open().unwrap();
        wan(&mut netdev);
        for feature in Feature::ALL {
            netdev.set_feature("w0", feature, false).unwrap();
            assert!(!netdev.feature("w0", feature).unwrap(), "{feature:?}");
        }
        netdev
            .set_feature("w0", Feature::GenericReceive, true)
            .unwrap();
        assert!(netdev.feature("w0", Feature::GenericReceive).unwrap());
        assert!(
            netdev
                .set_feature("w5", Feature::GenericReceive, true)
                .is_err()
        );
    });
}
