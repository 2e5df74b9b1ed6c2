//! Routes in real routing tables, in network namespaces.

use super::*;
use crate::test_support::{Network, context, read};
use ha_core::driver::Found;
use std::future::Future;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Nothing here takes longer, on the busiest machine.
const BOUND: Duration = Duration::from_secs(60);

/// A machine with two interfaces, `eth0` in 10.98.0.0/24 and fd98::/64, `eth1` in 10.97.0.0/24. What its agent does is done in its network.
struct Machine {
    network: Arc<Network>,
    _other: Network,
    agent: Runtime,
}

impl Machine {
    fn new() -> Option<Machine> {
        let (network, other) = (Arc::new(Network::new()?), Network::new()?);
        for end in ["eth0", "eth1"] {
            other.cable(&format!("{end}-end"), &network, end);
        }
        network.ip("address add 10.98.0.2/24 dev eth0");
        network.ip("address add fd98::2/64 dev eth0 nodad");
        network.ip("address add 10.97.0.2/24 dev eth1");
        let inside = network.clone();
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().on_thread_start(move || inside.enter());
        Some(Machine { network, _other: other, agent: builder.build().unwrap() })
    }

    fn begin<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> mpsc::Receiver<T> {
        let (tell, told) = mpsc::channel();
        self.agent.spawn(async move { tell.send(work.await) });
        told
    }

    fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.begin(work).recv_timeout(BOUND).expect("it ends")
    }

    fn start(&self, route: &Arc<Route>) -> Result<(), Failed> {
        let route = route.clone();
        self.run(async move { route.start(&context("way")).await })
    }

    fn stop(&self, route: &Arc<Route>) -> Result<(), Failed> {
        let route = route.clone();
        self.run(async move { route.stop(&context("way")).await })
    }

    fn kill(&self, route: &Arc<Route>) -> Result<(), Failed> {
        let route = route.clone();
        self.run(async move { route.kill(&context("way")).await })
    }

    fn monitor(&self, route: &Arc<Route>) -> Verdict {
        let route = route.clone();
        self.run(async move { route.monitor(&context("way")).await })
    }

    fn adopt(&self, route: &Arc<Route>) -> Result<Found, Failed> {
        let route = route.clone();
        self.run(async move { route.adopt(&context("way")).await })
    }

    fn ready(&self, route: &Arc<Route>) -> Result<(), Failed> {
        let route = route.clone();
        self.run(async move { route.ready().await })
    }

    fn watch(&self, route: &Arc<Route>) -> mpsc::Receiver<String> {
        let route = route.clone();
        self.begin(async move { route.watch(&context("way")).await })
    }
}

fn route(text: &str) -> Arc<Route> {
    let (spec, said) = read(&format!("Route({text})"), RouteSpec::read);
    assert_eq!(said, "");
    Arc::new(Route::new(spec.unwrap()))
}

#[test]
fn routes_come_and_go_as_asked_for_any_number_of_times() {
    let Some(machine) = Machine::new() else { return };
    let routes = [
        (r#"to: "10.20.0.0/16", via: "10.98.0.1""#, "-4 route show to exact 10.20.0.0/16", "via 10.98.0.1 dev eth0"),
        (
            r#"to: "10.21.0.0/16", via: "10.98.0.1", dev: "eth0", src: "10.97.0.2", metric: 7"#,
            "-4 route show to exact 10.21.0.0/16",
            "src 10.97.0.2 metric 7",
        ),
        (r#"to: "10.22.0.0/16", dev: "eth1", table: 1000"#, "-4 route show table 1000", "dev eth1"),
        (r#"to: "10.23.0.1", dev: "eth1""#, "-4 route show", "10.23.0.1 dev eth1"),
        (r#"to: "default", via: "10.97.0.1""#, "-4 route show default", "via 10.97.0.1 dev eth1"),
        (
            r#"to: "fd20::/48", via: "fd98::1", src: "fd98::2""#,
            "-6 route show to exact fd20::/48",
            "via fd98::1 dev eth0",
        ),
        (r#"to: "fd21::/48", via: "fe80::1", dev: "eth1", metric: 9"#, "-6 route show to exact fd21::/48", "metric 9"),
        (r#"to: "default", via: "fd98::1""#, "-6 route show default", "via fd98::1 dev eth0"),
        (r#"to: "fd22::/48", dev: "eth1", table: 99"#, "-6 route show table 99", "dev eth1"),
    ];
    for (text, look, expected) in routes {
        let route = route(text);
        let shown = || machine.network.ip(look);
        assert_eq!(machine.ready(&route), Ok(()), "{text}");
        assert_eq!(machine.adopt(&route), Ok(Found::Stopped), "{text}");
        machine.stop(&route).unwrap_or_else(|e| panic!("{text}: {e}"));
        for _ in 0..2 {
            machine.start(&route).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert!(shown().contains(expected), "{text}: {}", shown());
            assert_eq!(shown().matches(expected).count(), 1, "{text}: {}", shown());
            assert_eq!(machine.monitor(&route), Verdict::Good, "{text}");
            assert_eq!(machine.adopt(&route), Ok(Found::Running), "{text}");
        }
        for end in [Machine::stop, Machine::kill, Machine::kill] {
            end(&machine, &route).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert!(
                !machine.network.ip("route show table all").contains(expected) || !shown().contains(expected),
                "{text}: {}",
                shown()
            );
            assert!(
                matches!(machine.monitor(&route), Verdict::Bad(why) if why.contains("there is no route to")),
                "{text}"
            );
        }
        machine.start(&route).unwrap_or_else(|e| panic!("{text}: {e}"));
        machine.kill(&route).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(machine.adopt(&route), Ok(Found::Stopped), "{text}");
    }
}

#[test]
fn a_route_of_somebody_else_is_neither_replaced_nor_removed() {
    let Some(machine) = Machine::new() else { return };
    for (text, theirs, family) in [
        (r#"to: "10.20.0.0/16", via: "10.98.0.1""#, "10.20.0.0/16 via 10.97.0.1 dev eth1", "-4"),
        (r#"to: "fd20::/48", via: "fd98::1""#, "fd20::/48 via fd98::9 dev eth0", "-6"),
    ] {
        machine.network.ip(&format!("{family} route add {theirs}"));
        let route = route(text);
        for Failed(why) in [machine.ready(&route).unwrap_err(), machine.start(&route).unwrap_err()] {
            assert!(why.contains("is taken by one that leads elsewhere: via"), "{why}");
        }
        assert!(matches!(machine.monitor(&route), Verdict::Bad(why) if why.contains("leads elsewhere")));
        assert_eq!(machine.adopt(&route), Ok(Found::Stopped));
        machine.stop(&route).unwrap();
        machine.kill(&route).unwrap();
        assert!(machine.network.ip(&format!("{family} route show")).contains(theirs));
    }
    // With another metric there is room for both.
    let beside = route(r#"to: "10.20.0.0/16", via: "10.98.0.1", metric: 50"#);
    machine.start(&beside).unwrap();
    machine.stop(&beside).unwrap();
    assert!(machine.network.ip("-4 route show").contains("10.20.0.0/16 via 10.97.0.1"));
}

#[test]
fn whatever_takes_a_route_away_is_noticed_at_once() {
    let Some(machine) = Machine::new() else { return };
    let four = r#"to: "10.20.0.0/16", via: "10.98.0.1", dev: "eth0""#;
    let six = r#"to: "fd20::/48", via: "fd98::1", dev: "eth0""#;
    let rebuild =
        ["link set eth0 up", "address replace 10.98.0.2/24 dev eth0", "address replace fd98::2/64 dev eth0 nodad"];
    for (text, harm, expected) in [
        (four, "route del 10.20.0.0/16", "there is no route to 10.20.0.0/16 via 10.98.0.1 by eth0"),
        (four, "route replace 10.20.0.0/16 via 10.97.0.1", "leads elsewhere: via 10.97.0.1 by eth1"),
        (four, "address del 10.98.0.2/24 dev eth0", "there is no route to 10.20.0.0/16"),
        (four, "link set eth0 down", "interface eth0 is down"),
        (six, "-6 route del fd20::/48", "there is no route to fd20::/48"),
        (six, "link set eth0 down", "interface eth0 is down"),
        // What was taken with its interface, and nothing said which.
        (r#"to: "10.20.0.0/16", via: "10.98.0.1""#, "link set eth0 down", "there is no route to 10.20.0.0/16"),
    ] {
        let route = route(text);
        machine.start(&route).unwrap();
        let watching = machine.watch(&route);
        // Other routes and addresses are none of its business.
        machine.network.ip("route add 10.30.0.0/16 via 10.97.0.9");
        machine.network.ip("route del 10.30.0.0/16 via 10.97.0.9");
        assert!(watching.recv_timeout(Duration::from_millis(20)).is_err());
        machine.network.ip(harm);
        let why = watching.recv_timeout(BOUND).expect("it is noticed");
        assert!(why.contains(expected), "{harm}: {why}");
        machine.stop(&route).unwrap();
        for command in rebuild {
            machine.network.ip(command);
        }
        if harm.contains("replace") {
            machine.network.ip("route del 10.20.0.0/16");
        }
    }
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    let Some(machine) = Machine::new() else { return };
    for (text, expected) in [
        (r#"to: "10.20.0.0/16", dev: "eth9""#, "there is no interface eth9"),
        (r#"to: "10.20.0.0/16", via: "192.0.2.1""#, "192.0.2.1 is in no network of this node"),
        (r#"to: "10.20.0.0/16", via: "10.98.0.1", src: "10.98.0.77""#, "is 10.98.0.77 an address of this node?"),
        (r#"to: "fd20::/48", via: "fd98::1", src: "fd98::77""#, "is fd98::77 an address of this node?"),
    ] {
        let route = route(text);
        let Failed(why) = machine.start(&route).unwrap_err();
        assert!(why.contains(expected), "{text}: {why}");
        machine.stop(&route).unwrap();
    }
    machine.network.ip("link set eth1 down");
    let Failed(why) = machine.ready(&route(r#"to: "10.20.0.0/16", dev: "eth1""#)).unwrap_err();
    assert!(why.contains("interface eth1 is down"), "{why}");
}

#[test]
fn a_route_is_checked_at_the_border() {
    for (text, expected) in [
        ("", "lacks the field `to`"),
        (r#"to: "10.20.0.0/16""#, "it leads nowhere"),
        (r#"to: "10.20.0.1/16", via: "10.0.0.1""#, "the network is \"10.20.0.0/16\""),
        (r#"to: "fd20::1/48", via: "fd00::1""#, "the network is \"fd20::/48\""),
        (r#"to: "10.20.0.0/33", via: "10.0.0.1""#, "no destination"),
        (r#"to: "somewhere", via: "10.0.0.1""#, "no destination"),
        (r#"to: "default", dev: "eth0""#, "0.0.0.0/0"),
        (r#"to: "10.20.0.0/16", via: "fd00::1""#, "not of the family"),
        (r#"to: "10.20.0.0/16", via: "10.0.0.1", src: "::1""#, "not of the family"),
        (r#"to: "10.20.0.0/16", via: "0.0.0.0""#, "the address of no machine"),
        (r#"to: "fd20::/48", via: "fe80::1""#, "say `dev` too"),
        (r#"to: "10.20.0.0/16", via: "router""#, "an IP address"),
        (r#"to: "10.20.0.0/16", dev: "a-very-long-name""#, "no interface name"),
        (r#"to: "10.20.0.0/16", dev: "eth0", table: 255"#, "no table for routes"),
        (r#"to: "10.20.0.0/16", dev: "eth0", metric: -1"#, "a number"),
        (r#"to: "10.20.0.0/16", dev: "eth0", metrik: 1"#, "did you mean `metric`?"),
    ] {
        let (_, said) = read(&format!("Route({text})"), RouteSpec::read);
        assert!(said.contains(expected), "{text}: {said}");
    }
    let (found, _) = read(r#"Route(to: "default", via: "10.0.0.1")"#, RouteSpec::read);
    assert_eq!(found.unwrap().to.to_string(), "default");
    assert_eq!("::/0".parse::<Destination>().unwrap().prefix(), 0);
    assert_eq!("10.1.2.3".parse::<Destination>().unwrap().to_string(), "10.1.2.3/32");
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_as_a_destination_without_panic(text in ".{0,40}", address in proptest::prelude::any::<u128>(), prefix in 0u8..=255) {
        let _ = text.parse::<Destination>();
        let six = format!("{}/{prefix}", Ipv6Addr::from_bits(address));
        if let Ok(to) = six.parse::<Destination>() {
            proptest::prop_assert_eq!(network_of(to.address(), to.prefix()), to.address());
        }
    }
}
