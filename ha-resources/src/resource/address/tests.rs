//! Addresses on real interfaces, in network namespaces: nodes at a switch, with a client that sees what the network is told.

use super::*;
use crate::test_support::{Network, context};
use std::future::Future;
use std::net::UdpSocket;
use std::sync::{Arc, mpsc};
use std::time::Instant;
use tokio::runtime::{Builder, Runtime};

const VIP: &str = "10.99.0.10/24";
const VIP6: &str = "fd99::10/64";
/// Nothing here takes longer, on the busiest machine.
const BOUND: Duration = Duration::from_secs(60);

fn spec(address: &str) -> AddressSpec {
    AddressSpec::new(address.parse().unwrap(), "eth0")
}

fn refusing(address: &str) -> AddressSpec {
    AddressSpec { on_conflict: OnConflict::Refuse, ..spec(address) }
}

/// A machine with an agent: what the agent does is done in the machine's network.
struct Machine {
    network: Arc<Network>,
    agent: Runtime,
}

impl Machine {
    fn new() -> Option<Machine> {
        let network = Arc::new(Network::new()?);
        let agent = Machine::agent(&network);
        Some(Machine { network, agent })
    }

    fn agent(network: &Arc<Network>) -> Runtime {
        let inside = network.clone();
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().on_thread_start(move || inside.enter());
        builder.build().unwrap()
    }

    /// Whatever the agent did by itself is done no more; what the kernel does goes on.
    fn kill_agent(&mut self) {
        self.agent = Machine::agent(&self.network);
    }

    fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        self.agent.spawn(async move { tell.send(work.await) });
        told.recv_timeout(BOUND).expect("it ends")
    }

    fn start(&self, address: &Arc<Address>) -> Result<(), Failed> {
        let address = address.clone();
        self.run(async move { address.start(&context("vip")).await })
    }

    fn stop(&self, address: &Arc<Address>) -> Result<(), Failed> {
        let address = address.clone();
        self.run(async move { address.stop(&context("vip")).await })
    }

    fn kill(&self, address: &Arc<Address>) -> Result<(), Failed> {
        let address = address.clone();
        self.run(async move { address.kill(&context("vip")).await })
    }

    fn monitor(&self, address: &Arc<Address>) -> Verdict {
        let address = address.clone();
        self.run(async move { address.monitor(&context("vip")).await })
    }

    fn adopt(&self, address: &Arc<Address>) -> Result<Found, Failed> {
        let address = address.clone();
        self.run(async move { address.adopt(&context("vip")).await })
    }

    fn ready(&self, address: &Arc<Address>) -> Result<(), Failed> {
        let address = address.clone();
        self.run(async move { address.ready().await })
    }

    fn has(&self, ip: &str) -> bool {
        self.network.ip("-o address show").contains(&format!(" {ip}/"))
    }

    /// A service that is taken here and was started.
    fn holding(&self, spec: AddressSpec) -> Arc<Address> {
        let address = Arc::new(Address::new(spec));
        self.start(&address).unwrap();
        address
    }
}

/// Two machines, each with its `eth0` at a switch, and a client there too.
struct Lan {
    client: Network,
    alpha: Machine,
    beta: Machine,
}

const MAC_ALPHA: &str = "02:00:00:00:00:0a";
const MAC_BETA: &str = "02:00:00:00:00:0b";

impl Lan {
    fn new() -> Option<Lan> {
        let lan = Lan { client: Network::new()?, alpha: Machine::new()?, beta: Machine::new()? };
        lan.client.ip("link add switch type bridge");
        lan.client.ip("link set switch up");
        lan.client.ip("address add 10.99.0.1/24 dev switch");
        lan.client.ip("address add fd99::1/64 dev switch nodad");
        for (machine, port, mac) in [(&lan.alpha, "alpha", MAC_ALPHA), (&lan.beta, "beta", MAC_BETA)] {
            lan.client.cable(port, &machine.network, "eth0");
            machine.network.ip(&format!("link set eth0 address {mac}"));
            lan.client.ip(&format!("link set {port} master switch"));
        }
        for machine in [&lan.alpha, &lan.beta] {
            let ready = Arc::new(Address::new(spec(VIP)));
            eventually("the machine is at the switch", || machine.ready(&ready).is_ok());
        }
        Some(lan)
    }

    /// Where the client would send what is for an address now, having asked for it only if it never knew.
    fn neighbour(&self, ip: &str) -> String {
        self.client.ip(&format!("neighbour show {ip} dev switch"))
    }

    /// Makes the client find out where an address is.
    fn reach(&self, ip: &str, mac: &str) {
        let any = if ip.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        eventually("the client knows where the address is", || {
            self.client.inside(|| {
                let socket = UdpSocket::bind(any).unwrap();
                let _ = socket.send_to(b"?", (ip, 9));
            });
            self.neighbour(ip).contains(mac)
        });
    }

    /// Hears at the client what is said by ARP, from now on.
    fn ear(&self) -> Ear {
        let index: u32 = self.client.inside(|| nix::net::if_::if_nametoindex("switch").unwrap());
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let socket = runtime.block_on(async { self.client.inside(|| PacketSocket::open(index).unwrap()) });
        Ear { runtime, socket }
    }
}

struct Ear {
    runtime: Runtime,
    socket: PacketSocket,
}

impl Ear {
    /// Waits for both forms of an announcement of the address by this machine.
    fn announcement(&self, ip: &str, mac: &str) {
        let ip = ip.parse().unwrap();
        let heard = async {
            let mut forms = 0;
            while forms < 2 {
                let frame = self.socket.receive().await.unwrap();
                forms += usize::from(frames::arp_claims(&frame, ip).is_some_and(|by| mac_text(by) == mac));
            }
        };
        self.runtime.block_on(async { tokio::time::timeout(BOUND, heard).await }).expect("it is announced");
    }

    fn say(&self, frame: &[u8]) {
        self.runtime.block_on(async { self.socket.send(frame) }).unwrap();
    }
}

fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !look() {
        assert!(begun.elapsed() < BOUND, "it never happened that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn addresses_are_checked_at_the_border() {
    assert!("10.0.0.10/24".parse::<Cidr>().is_ok());
    assert!("fd00::10/64".parse::<Cidr>().is_ok());
    for bad in ["10.0.0.10", "10.0.0.10/33", "10.0.0.256/24", "::/64", "224.0.0.1/4", "fd00::1/129", "x/1", "/", ""] {
        assert!(bad.parse::<Cidr>().is_err(), "{bad}");
    }
}

#[test]
fn a_client_follows_an_address_whose_former_holder_hangs_with_it() {
    for (cidr, ip) in [(VIP, "10.99.0.10"), (VIP6, "fd99::10")] {
        let Some(mut lan) = Lan::new() else { return };
        lan.alpha.holding(spec(cidr));
        lan.reach(ip, MAC_ALPHA);
        // What the kernel was told stays, and nobody is there to take it back.
        lan.alpha.kill_agent();
        let _held = lan.beta.holding(spec(cidr));
        assert!(lan.alpha.has(ip) && lan.beta.has(ip));
        eventually("the client sends to beta", || lan.neighbour(ip).contains(MAC_BETA));
    }
}

#[test]
fn every_operation_may_be_repeated_and_what_is_left_over_is_taken_over() {
    for (cidr, ip) in [(VIP, "10.99.0.10"), (VIP6, "fd99::10")] {
        let Some(lan) = Lan::new() else { return };
        let alpha = &lan.alpha;
        alpha.network.ip(&format!("address add {cidr} dev eth0"));
        let address = alpha.holding(spec(cidr));
        alpha.start(&address).unwrap();
        assert_eq!(alpha.monitor(&address), Verdict::Good);
        assert_eq!(alpha.network.ip("-o address show dev eth0").matches(&format!(" {ip}/")).count(), 1);
        for (end, again) in
            [(Machine::stop as fn(&_, &_) -> _, Machine::kill as fn(&_, &_) -> _), (Machine::kill, Machine::stop)]
        {
            end(alpha, &address).unwrap();
            assert!(!alpha.has(ip));
            assert!(matches!(alpha.monitor(&address), Verdict::Bad(why) if why.contains("is not on eth0")));
            end(alpha, &address).unwrap();
            again(alpha, &address).unwrap();
            alpha.start(&address).unwrap();
            assert!(alpha.has(ip));
        }
        alpha.kill(&address).unwrap();
        assert!(!alpha.has(ip));
        eventually("nothing is said of it", || address.lock().as_ref().is_none_or(AbortHandle::is_finished));
    }
}

#[test]
fn an_ipv6_address_can_be_used_as_soon_as_it_is_started() {
    let Some(lan) = Lan::new() else { return };
    let _held = lan.alpha.holding(spec(VIP6));
    let bound = lan.alpha.network.inside(|| UdpSocket::bind("[fd99::10]:0").map(drop));
    assert!(bound.is_ok(), "{bound:?}");
}

#[test]
fn the_first_announcements_come_however_busy_the_network_is() {
    let Some(lan) = Lan::new() else { return };
    let ear = lan.ear();
    let mut every = spec(VIP);
    every.announce_every = Duration::from_secs(3600);
    let held = lan.alpha.holding(every);
    std::thread::scope(|scope| {
        let (end, ended) = mpsc::channel::<()>();
        let noise = lan.ear();
        scope.spawn(move || {
            // Somebody asks for something else all the time.
            let frame = frames::probe("10.99.0.77".parse().unwrap(), [2, 0, 0, 0, 0, 0x77]);
            while ended.recv_timeout(Duration::from_millis(20)) == Err(mpsc::RecvTimeoutError::Timeout) {
                noise.say(&frame);
            }
        });
        for _ in 0..=AGAIN.len() {
            ear.announcement("10.99.0.10", MAC_ALPHA);
        }
        drop(end);
    });
    // And no more of them for now, until the link was gone and is back.
    lan.client.ip("link set alpha down");
    eventually("the carrier is lost", || lan.alpha.ready(&held).is_err());
    assert_eq!(lan.alpha.monitor(&held), Verdict::Good);
    lan.client.ip("link set alpha up");
    ear.announcement("10.99.0.10", MAC_ALPHA);
}

/// Without anything that happens: the first ones, and then as often as it was asked for.
#[test]
fn an_address_is_announced_again_from_time_to_time() {
    let Some(lan) = Lan::new() else { return };
    let ear = lan.ear();
    let mut often = spec(VIP);
    often.announce_every = Duration::from_secs(1);
    let _held = lan.alpha.holding(often);
    for _ in 0..=AGAIN.len() {
        ear.announcement("10.99.0.10", MAC_ALPHA);
    }
    let first_ones = Instant::now();
    for _ in 0..3 {
        ear.announcement("10.99.0.10", MAC_ALPHA);
    }
    // Three at the usual 30 s would take longer.
    assert!(first_ones.elapsed() < BOUND);
}

#[test]
fn an_address_is_defended_whenever_a_stranger_claims_it() {
    let Some(lan) = Lan::new() else { return };
    let ear = lan.ear();
    let mut rarely = spec(VIP);
    rarely.announce_every = Duration::from_secs(3600);
    let _held = lan.alpha.holding(rarely);
    for _ in 0..=AGAIN.len() {
        ear.announcement("10.99.0.10", MAC_ALPHA);
    }
    // Nothing else would make it speak within the hour.
    let stranger = &frames::announcements("10.99.0.10".parse().unwrap(), [2, 0, 0, 0, 0, 0x66])[0];
    for _ in 0..2 {
        ear.say(stranger);
        ear.announcement("10.99.0.10", MAC_ALPHA);
    }
}

#[test]
fn a_flood_of_claims_is_answered_at_once_and_then_once_in_each_pause() {
    let mut schedule = Schedule::new(Duration::from_secs(3600));
    let mut now = Instant::now();
    while schedule.again.len() > 0 {
        now = schedule.next();
        schedule.announced(now);
    }
    let due = schedule.next();
    let (mut answers, mut news) = (Vec::new(), 0);
    for claim in 0..1000 {
        let heard = now + Duration::from_millis(claim);
        news += usize::from(schedule.defend(heard));
        if schedule.next() <= heard {
            answers.push(claim);
            schedule.announced(heard);
        }
    }
    assert_eq!(answers, [0, 500]);
    assert_eq!(news, 3, "told once for each answer, the coming one too");
    // What was due anyway was not put off.
    schedule.announced(schedule.next());
    assert_eq!(schedule.next(), due);
}

#[test]
fn a_start_that_is_to_refuse_conflicts_does_and_leaves_the_address_where_it_is() {
    let Some(lan) = Lan::new() else { return };
    for (cidr, ip, who) in [(VIP, "10.99.0.10", MAC_ALPHA), (VIP6, "fd99::10", "duplicate")] {
        let held = lan.alpha.holding(spec(cidr));
        let address = Arc::new(Address::new(refusing(cidr)));
        let error = lan.beta.start(&address).unwrap_err();
        assert!(error.0.contains(ip) && error.0.contains(who), "{error}");
        assert!(!lan.beta.has(ip));
        lan.alpha.stop(&held).unwrap();
        lan.beta.start(&address).unwrap();
        assert!(lan.beta.has(ip));
        // Its own is no conflict.
        lan.beta.start(&address).unwrap();
    }
}

#[test]
fn giving_up_one_address_takes_no_other_along() {
    let Some(lan) = Lan::new() else { return };
    // The interface has no other address in this network: the first one is its primary.
    let web = lan.alpha.holding(spec(VIP));
    let db = lan.alpha.holding(spec("10.99.0.11/24"));
    lan.alpha.stop(&web).unwrap();
    assert!(!lan.alpha.has("10.99.0.10"));
    assert_eq!(lan.alpha.monitor(&db), Verdict::Good);
    lan.reach("10.99.0.11", MAC_ALPHA);
}

#[test]
fn an_interface_that_is_missing_or_down_is_named() {
    let Some(lan) = Lan::new() else { return };
    let nowhere = Arc::new(Address::new(AddressSpec::new(VIP.parse().unwrap(), "eth7")));
    for failed in [lan.alpha.start(&nowhere).unwrap_err(), lan.alpha.ready(&nowhere).unwrap_err()] {
        assert!(failed.0.contains("there is no interface eth7"), "{failed}");
    }
    // Nothing of it can be anywhere.
    lan.alpha.stop(&nowhere).unwrap();
    assert_eq!(lan.alpha.adopt(&nowhere), Ok(Found::Stopped));

    let address = Arc::new(Address::new(spec(VIP)));
    lan.alpha.network.ip("link set eth0 down");
    let failed = lan.alpha.start(&address).unwrap_err();
    assert!(failed.0.contains("ip link set eth0 up"), "{failed}");
    assert!(!lan.alpha.has("10.99.0.10"));
}

#[test]
fn an_address_of_an_earlier_life_is_found_even_on_an_interface_that_is_down() {
    let Some(mut lan) = Lan::new() else { return };
    lan.alpha.holding(spec(VIP));
    lan.alpha.kill_agent();
    let address = Arc::new(Address::new(spec(VIP)));
    let ear = lan.ear();
    assert_eq!(lan.alpha.adopt(&address), Ok(Found::Running));
    ear.announcement("10.99.0.10", MAC_ALPHA);

    // It would be back on the network with the interface, so it does not count as stopped.
    lan.alpha.network.ip("link set eth0 down");
    let address = Arc::new(Address::new(spec(VIP)));
    assert_eq!(lan.alpha.adopt(&address), Ok(Found::Running));
    assert!(matches!(lan.alpha.monitor(&address), Verdict::Bad(why) if why.contains("down")));
    lan.alpha.stop(&address).unwrap();
    assert_eq!(lan.alpha.adopt(&address), Ok(Found::Stopped));
}

#[test]
fn what_happens_to_an_address_is_told_at_once() {
    type Misfortune = fn(&Network);
    // As it is heard, or as it is seen where that was quicker.
    let misfortunes: [(Misfortune, &[&str]); 3] = [
        (|network| drop(network.ip("address delete 10.99.0.10/24 dev eth0")), &["removed from eth0", "is not on eth0"]),
        (|network| drop(network.ip("link set eth0 down")), &["eth0 was set down", "eth0 is down"]),
        // On its way out it is set down.
        (|network| drop(network.ip("link delete eth0")), &["eth0 is gone", "no interface eth0", "eth0 was set down"]),
    ];
    for (misfortune, expected) in misfortunes {
        let Some(lan) = Lan::new() else { return };
        let address = lan.alpha.holding(spec(VIP));
        let (tell, told) = mpsc::channel();
        let watched = address.clone();
        lan.alpha.agent.spawn(async move { tell.send(watched.watch(&context("vip")).await) });
        // Another's address is none of ours.
        lan.alpha.network.ip("address add 10.99.0.77/24 dev eth0");
        lan.alpha.network.ip("address delete 10.99.0.77/24 dev eth0");
        assert_eq!(told.recv_timeout(Duration::from_millis(50)), Err(mpsc::RecvTimeoutError::Timeout));
        misfortune(&lan.alpha.network);
        let why = told.recv_timeout(BOUND).expect("it is told");
        assert!(expected.iter().any(|text| why.contains(text)), "{why}");
    }
}

#[test]
fn an_address_without_ethernet_below_is_taken_without_a_word() {
    let Some(machine) = Machine::new() else { return };
    let address = Arc::new(Address::new(AddressSpec::new("10.99.0.10/32".parse().unwrap(), "lo")));
    machine.start(&address).unwrap();
    assert_eq!(machine.monitor(&address), Verdict::Good);
    machine.stop(&address).unwrap();
    assert!(!machine.has("10.99.0.10"));
}

#[test]
fn an_address_that_was_taken_away_is_announced_and_defended_no_more() {
    for (cidr, ip) in [(VIP, "10.99.0.10"), (VIP6, "fd99::10")] {
        let Some(lan) = Lan::new() else { return };
        let held = lan.alpha.holding(spec(cidr));
        let silent = || held.lock().as_ref().is_none_or(AbortHandle::is_finished);
        // Another's comes and goes, and so does the same one with a prefix of another length, which IPv6 does not know.
        let passing = if ip.contains(':') { vec!["fd99::77/64"] } else { vec!["10.99.0.77/24", "10.99.0.10/28"] };
        for passing in passing {
            lan.alpha.network.ip(&format!("address add {passing} dev eth0"));
            lan.alpha.network.ip(&format!("address delete {passing} dev eth0"));
        }
        assert!(lan.alpha.has(ip) && !silent());
        lan.alpha.network.inside(|| remove_now("eth0", ip.parse().unwrap())).unwrap();
        assert!(!lan.alpha.has(ip));
        eventually("nothing is said of it", silent);
        // And by a start again.
        lan.alpha.start(&held).unwrap();
        assert!(lan.alpha.has(ip) && !silent());
    }
}

#[test]
fn the_machines_own_address_and_a_service_address_of_its_network_are_independent() {
    for (own, cidr, ip) in [("10.99.0.2", "10.99.0.10/24", "10.99.0.10"), ("fd99::2", "fd99::10/64", "fd99::10")] {
        let Some(lan) = Lan::new() else { return };
        let length = if ip.contains(':') { "64" } else { "24" };
        let nodad = if ip.contains(':') { " nodad" } else { "" };
        lan.alpha.network.ip(&format!("address add {own}/{length} dev eth0{nodad}"));
        // Its own came first: the service address comes and goes beside it.
        let service = lan.alpha.holding(spec(cidr));
        lan.reach(ip, MAC_ALPHA);
        lan.alpha.stop(&service).unwrap();
        assert!(lan.alpha.has(own) && !lan.alpha.has(ip));
        lan.reach(own, MAC_ALPHA);
        // Its own goes from under the service address, which stays in service.
        lan.alpha.start(&service).unwrap();
        lan.alpha.network.ip(&format!("address delete {own}/{length} dev eth0"));
        assert_eq!(lan.alpha.monitor(&service), Verdict::Good, "{ip}");
    }
}
