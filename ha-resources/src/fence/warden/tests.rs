use super::process::boot_time as now;
use super::*;
use crate::proc::{ProcessId, Stat};
use crate::resource::Directories;
use crate::resource::address::{Address, AddressSpec};
use crate::resource::process::{Process, ProcessSpec};
use crate::test_support::{Network, context, until};
use ha_core::driver::{Failed, Resource, Watchdog};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const SOCKET: &str = "HA_TEST_WARDEN_SOCKET";

/// No test of its own: the process that the tests below start as their warden.
#[test]
fn warden_process() {
    let Ok(socket) = std::env::var(SOCKET) else { return };
    let settings = Settings {
        margin: Duration::from_millis(200),
        on_expiry: OnExpiry::KillGroups { otherwise: Reset::Refused },
        idle_for: Duration::from_millis(300),
    };
    let code = warden_main(Path::new(&socket), &settings);
    std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("warden.sock")
    }

    fn client(&self) -> WardenClient {
        let program = std::env::current_exe().unwrap().display().to_string();
        let socket = format!("{SOCKET}={}", self.socket().display());
        let test = "fence::warden::tests::warden_process".to_owned();
        let command = ["env".to_owned(), socket, program, "--exact".to_owned(), test, "--nocapture".to_owned()];
        WardenClient::new(self.socket(), command.to_vec(), Duration::from_millis(200), Reset::Refused)
    }

    /// The warden of this place, found by its own words: it is told nothing else.
    fn warden(&self) -> Option<ProcessId> {
        let wanted = format!("{SOCKET}={}", self.socket().display());
        let is_it = |stat: &Stat| {
            let environment = std::fs::read(format!("/proc/{}/environ", stat.pid)).unwrap_or_default();
            stat.is_alive() && environment.split(|b| *b == 0).any(|variable| variable == wanted.as_bytes())
        };
        Stat::all().unwrap().iter().find(|stat| is_it(stat)).map(Stat::id)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(warden) = self.warden() {
            let _ = warden.signal(nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// A service in a process group of its own.
struct Service(Child);

impl Service {
    fn start() -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; sleep 1000 & wait"]).stdin(Stdio::null()).stdout(Stdio::null());
        Service(command.stderr(Stdio::null()).process_group(0).spawn().unwrap())
    }

    fn id(&self) -> ProcessId {
        Stat::of(i32::try_from(self.0.id()).unwrap()).unwrap().id()
    }

    fn guarded(&self, hierarchy: &str, until: Time) -> Guarded {
        let ProcessId { pid, started } = self.id();
        let handles = vec![KillHandle::ProcessGroup { pgid: pid, started }];
        Guarded { hierarchy: HierarchyName::new(hierarchy).unwrap(), until, handles }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(-i32::try_from(self.0.id()).unwrap());
        let _ = nix::sys::signal::kill(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// An address under a lease, as its resource names it.
fn guarded_address(hierarchy: &str, cidr: &str, interface: &str, until: Time) -> Guarded {
    let handles = Address::new(AddressSpec::new(cidr.parse().unwrap(), interface)).handles(&context("address"));
    Guarded { hierarchy: HierarchyName::new(hierarchy).unwrap(), until, handles }
}

/// A machine at a cable: what it runs, an agent and its warden too, has its network.
fn in_a_network_of_its_own<W: Future<Output = ()>>(work: impl FnOnce(std::sync::Arc<Network>) -> W + Send) {
    let (Some(network), Some(other)) = (Network::new(), Network::new()) else { return };
    let network = std::sync::Arc::new(network);
    network.cable("eth0", &other, "far");
    let inside = network.clone();
    network.inside(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work(inside));
    });
}

fn has(network: &Network, ip: &str) -> bool {
    network.ip("-o address show").contains(&format!(" {ip}/"))
}

fn hour() -> Time {
    now().unwrap() + Duration::from_secs(3600)
}

async fn ended(service: &Service) {
    until("the service is killed", || (!service.id().is_alive()).then_some(())).await;
}

#[tokio::test]
async fn what_is_not_prolonged_is_killed_although_its_agent_is_dead() {
    let place = Place::new();
    let (short, long) = (Service::start(), Service::start());
    let agent = place.client();
    let until = now().unwrap() + Duration::from_millis(100);
    agent.feed(&[short.guarded("short", until), long.guarded("long", hour())]).await.unwrap();
    drop(agent);
    ended(&short).await;
    assert!(now().unwrap() >= until);
    assert!(long.id().is_alive());
}

/// The agent may die at any moment of a start, and after: it told of the program before there was one.
#[tokio::test]
async fn a_program_that_was_told_of_before_it_was_started_ends_with_the_tenure() {
    let place = Place::new();
    let path = place.0.path();
    let directories = Directories { run: path.join("run"), logs: path.join("log"), cgroups: None };
    let process = Process::new(ProcessSpec::new(["sleep", "1000"]), directories);
    let app = context("app");
    let agent = place.client();
    let soon = now().unwrap() + Duration::from_millis(500);
    let handles = process.handles(&app);
    let guarded = Guarded { hierarchy: HierarchyName::new("web").unwrap(), until: soon, handles };
    agent.feed(&[guarded]).await.unwrap();
    process.start(&app).await.unwrap();
    assert_eq!(process.monitor(&app).await, ha_core::driver::Verdict::Good);
    drop(agent);
    process.watch(&app).await;
    assert!(now().unwrap() >= soon);
}

#[tokio::test]
async fn the_next_life_of_the_agent_takes_over_and_forgets_nothing_that_it_has_not_found_yet() {
    let place = Place::new();
    let (found, lost) = (Service::start(), Service::start());
    let before = place.client();
    let soon = now().unwrap() + Duration::from_millis(500);
    before.feed(&[found.guarded("found", soon), lost.guarded("lost", soon)]).await.unwrap();
    before.disarm().await.unwrap();
    let warden = place.warden().unwrap();

    let after = place.client();
    after.feed(&[]).await.unwrap();
    after.feed(&[found.guarded("found", hour())]).await.unwrap();
    assert_eq!(place.warden(), Some(warden));
    ended(&lost).await;
    assert!(found.id().is_alive());
}

#[tokio::test]
async fn a_service_that_was_stopped_is_guarded_no_longer_and_a_stranger_with_its_number_is_left_alone() {
    let place = Place::new();
    let (stopped, stranger, last) = (Service::start(), Service::start(), Service::start());
    let agent = place.client();
    let soon = now().unwrap() + Duration::from_millis(300);
    agent.feed(&[stopped.guarded("stopped", soon)]).await.unwrap();
    let mut forged = stranger.guarded("reused", soon);
    if let [KillHandle::ProcessGroup { started, .. }] = forged.handles.as_mut_slice() {
        *started -= 1;
    }
    agent.feed(&[forged, last.guarded("last", soon)]).await.unwrap();
    ended(&last).await;
    assert!(stopped.id().is_alive());
    assert!(stranger.id().is_alive());
}

#[tokio::test]
async fn a_dead_warden_is_noticed_and_replaced() {
    let place = Place::new();
    let service = Service::start();
    let agent = place.client();
    let leases = [service.guarded("web", hour())];
    agent.feed(&leases).await.unwrap();
    let first = place.warden().unwrap();
    agent.feed(&leases).await.unwrap();
    first.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
    until("the warden is dead", || (!first.is_alive()).then_some(())).await;
    agent.feed(&leases).await.unwrap();
    let second = place.warden().unwrap();
    assert_ne!(first, second);
    agent.feed(&[service.guarded("web", now().unwrap())]).await.unwrap();
    ended(&service).await;
}

#[tokio::test]
async fn a_warden_whose_directory_vanishes_keeps_its_deadlines() {
    let place = Place::new();
    let service = Service::start();
    let agent = place.client();
    agent.feed(&[service.guarded("web", now().unwrap() + Duration::from_millis(300))]).await.unwrap();
    std::fs::remove_dir_all(place.0.path()).unwrap();
    drop(agent);
    ended(&service).await;
}

#[tokio::test]
async fn a_warden_that_nobody_needs_ends() {
    let place = Place::new();
    let agent = place.client();
    agent.feed(&[]).await.unwrap();
    let warden = place.warden().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(place.socket()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    agent.disarm().await.unwrap();
    until("the warden ends", || (!warden.is_alive()).then_some(())).await;
}

#[tokio::test]
async fn who_talks_nonsense_is_not_listened_to_and_harms_nothing() {
    use std::io::{Read, Write};
    let place = Place::new();
    let service = Service::start();
    let agent = place.client();
    let leases = [service.guarded("web", hour())];
    agent.feed(&leases).await.unwrap();
    let mut other = std::os::unix::net::UnixStream::connect(place.socket()).unwrap();
    other.write_all(b"{\"number\":1,\"leases\":[],\"more\":1}\n").unwrap();
    assert_eq!(other.read(&mut [0; 16]).unwrap(), 0);
    agent.feed(&[service.guarded("web", hour() + Duration::from_secs(1))]).await.unwrap();
    assert!(service.id().is_alive());
}

#[tokio::test]
async fn a_warden_that_cannot_be_started_is_an_error_that_names_it() {
    let place = Place::new();
    let client = WardenClient::new(place.socket(), vec!["/no/such/program".to_owned()], Duration::ZERO, Reset::Refused);
    let Failed(why) = client.feed(&[]).await.unwrap_err();
    assert!(why.contains("warden.sock"), "{why}");
    let Failed(why) = client.reset("a test").await;
    assert!(why.contains("not allowed"), "{why}");
}

#[test]
fn an_address_that_is_not_prolonged_is_taken_away_although_its_agent_is_dead() {
    in_a_network_of_its_own(async |network| {
        let place = Place::new();
        // The first of their network: the machine's own address, and another hierarchy's, hang on it.
        for address in ["10.99.0.10/24", "10.99.0.2/24", "10.99.0.11/24", "fd99::10/64 nodad", "fd99::2/64 nodad"] {
            network.ip(&format!("address add {address} dev eth0"));
        }
        let service = Service::start();
        let until_then = now().unwrap() + Duration::from_millis(200);
        let mut short = guarded_address("short", "10.99.0.10/24", "eth0", until_then);
        // The length of its prefix is another one than the agent thought.
        short.handles.extend(guarded_address("short", "fd99::10/128", "eth0", until_then).handles);
        short.handles.extend(service.guarded("short", until_then).handles);
        let agent = place.client();
        agent.feed(&[short, guarded_address("long", "10.99.0.11/24", "eth0", hour())]).await.unwrap();
        drop(agent);
        let gone = || (!has(&network, "10.99.0.10") && !has(&network, "fd99::10")).then_some(());
        until("the addresses are gone", gone).await;
        assert!(now().unwrap() >= until_then);
        ended(&service).await;
        for stays in ["10.99.0.2", "10.99.0.11", "fd99::2"] {
            assert!(has(&network, stays), "{stays}");
        }
    });
}

#[test]
fn a_warden_is_done_with_an_address_that_is_nowhere() {
    in_a_network_of_its_own(async |_| {
        let place = Place::new();
        let agent = place.client();
        let soon = now().unwrap() + Duration::from_millis(100);
        let leases = [("web", "10.99.0.10/24", "eth0"), ("db", "fd99::10/64", "eth7")];
        agent.feed(&leases.map(|(name, cidr, interface)| guarded_address(name, cidr, interface, soon))).await.unwrap();
        let warden = place.warden().unwrap();
        agent.disarm().await.unwrap();
        until("the warden ends", || (!warden.is_alive()).then_some(())).await;
    });
}

#[tokio::test]
async fn an_address_that_cannot_be_removed_holds_up_nothing_else() {
    let place = Place::new();
    let (beside, next) = (Service::start(), Service::start());
    let agent = place.client();
    let soon = now().unwrap() + Duration::from_millis(100);
    // No interface can have such a name, and the kernel is not even asked.
    let mut stuck = guarded_address("stuck", "10.99.0.10/24", "eth\0", soon);
    stuck.handles.extend(beside.guarded("stuck", soon).handles);
    agent.feed(&[stuck, next.guarded("next", soon)]).await.unwrap();
    drop(agent);
    ended(&beside).await;
    ended(&next).await;
    // It tries on.
    let warden = place.warden().unwrap();
    let log = || std::fs::read_to_string(place.socket().with_extension("log")).unwrap_or_default();
    until("it says what is left", || log().contains("10.99.0.10 on eth").then_some(())).await;
    assert!(warden.is_alive());
}
