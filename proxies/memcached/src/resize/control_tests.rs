//! Sidecars of one process that share a folder. What needs real servers is in `integration`.

use groove_common::config::{Endpoints, Health, Size};
use groove_common::discovery::{ConnectProber, Told};
use groove_common::ids::Address;
use groove_common::store::Files;
use groove_common::telemetry::Registry;
use tempfile::TempDir;
use tokio::time::sleep;

use super::super::metrics::ResizeMetrics;
use super::super::section::{Policy, Section};
use super::super::shared::Shared;
use super::*;
use crate::upstream::connection::Settings;
use crate::wire::Limits;

const PATIENCE: Duration = Duration::from_secs(20);

fn list(ports: &[u16]) -> Vec<Endpoint> {
    ports.iter().map(|&port| Endpoint::from(Address::tcp("127.0.0.1", port))).collect()
}

fn origin(ports: &[u16]) -> Origin {
    Origin::new(&Endpoints::Static(list(ports))).unwrap()
}

fn means(policy: Policy) -> Means {
    let settings = Settings {
        timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        tls: None,
        limits: Limits::default(),
    };
    let section = Section { policy, bytes_per_second: Size::mib(1), ..Section::default() };
    let metrics = ResizeMetrics::new(&Registry::new(1), "main");
    let (settings, place_of, rule) = (Arc::new(settings), Arc::new(|_: &_, _: &_| None), Rule::default());
    Means { section, standby: None, metrics, settings, place_of, rule }
}

fn sidecar(folder: &TempDir, ports: &[u16], policy: Policy) -> (Arc<Control>, Arc<Cluster>) {
    let runtime = tokio::runtime::Handle::current();
    let health = Health { probe: None, ..Health::default() };
    let source = Box::new(Told("the test".to_owned()));
    let cluster = Cluster::with_source("main", source, &health, Arc::new(ConnectProber), &runtime);
    let beginning = Beginning {
        name: "main".to_owned(),
        store: Arc::new(Files::open(folder.path()).unwrap()),
        cluster: Arc::clone(&cluster),
        origin: origin(ports),
        means: means(policy),
    };
    (Control::start(beginning, &runtime), cluster)
}

/// What the workers of a sidecar go by.
fn servers(control: &Control) -> Vec<Endpoint> {
    let view = control.agreement().view();
    view.old.iter().map(|server| view.server(server).unwrap().clone()).collect()
}

async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap();
}

async fn acknowledged(shared: &Shared) -> Vec<u64> {
    shared.sidecars().await.unwrap().values().map(|sidecar| sidecar.acknowledged).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_list_is_everybodys_whatever_they_were_told() {
    let folder = tempfile::tempdir().unwrap();
    let sidecars: Vec<_> = (1..=4).map(|port| sidecar(&folder, &[port, 9], Policy::Transparent)).collect();
    for (control, cluster) in &sidecars {
        assert!(control.joined(PATIENCE).await);
        assert_eq!(servers(control), servers(&sidecars[0].0));
        assert_eq!(cluster.snapshot().members.len(), 2);
    }
    let shared = sidecars[0].0.shared().clone();
    until(async || acknowledged(&shared).await == [1, 1, 1, 1]).await;
    // Who goes is no longer counted, and who comes starts with what is agreed on.
    drop(sidecars);
    until(async || acknowledged(&shared).await.is_empty()).await;
    let (late, _) = sidecar(&folder, &[7], Policy::Transparent);
    assert!(late.joined(PATIENCE).await);
    assert_eq!(servers(&late), shared.state().await.unwrap().unwrap().0.slots);
    assert_ne!(servers(&late), list(&[7]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_changes_while_it_runs_is_everybodys_and_the_same_list_again_is_no_change() {
    let folder = tempfile::tempdir().unwrap();
    let (one, _) = sidecar(&folder, &[1, 2], Policy::Immediate);
    let (two, cluster) = sidecar(&folder, &[1, 2], Policy::Immediate);
    assert!(one.joined(PATIENCE).await && two.joined(PATIENCE).await);
    one.reconfigure(means(Policy::Immediate), Some(origin(&[1, 3])));
    until(async || servers(&two) == list(&[1, 3])).await;
    // Those that left are let go once nobody uses them any more.
    until(async || cluster.snapshot().members.len() == 2).await;
    let shared = one.shared().clone();
    until(async || acknowledged(&shared).await == [2, 2]).await;
    // The second one's file follows, and then it says something of its own.
    two.reconfigure(means(Policy::Immediate), Some(origin(&[1, 3])));
    two.reconfigure(means(Policy::Immediate), Some(origin(&[4])));
    until(async || servers(&one) == list(&[4])).await;
    assert_eq!(shared.state().await.unwrap().unwrap().0.step, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_not_done_holds_every_step_up() {
    let folder = tempfile::tempdir().unwrap();
    let (one, _) = sidecar(&folder, &[1], Policy::Immediate);
    let (two, _) = sidecar(&folder, &[1], Policy::Immediate);
    assert!(one.joined(PATIENCE).await && two.joined(PATIENCE).await);
    let worker = two.agreement().enrol();
    worker.acknowledge(1);
    let shared = one.shared().clone();
    until(async || acknowledged(&shared).await == [1, 1]).await;
    one.reconfigure(means(Policy::Immediate), Some(origin(&[2])));
    until(async || servers(&two) == list(&[2])).await;
    one.reconfigure(means(Policy::Immediate), Some(origin(&[3])));
    until(async || shared.state().await.unwrap().unwrap().0.next.is_some()).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!((servers(&one), shared.state().await.unwrap().unwrap().0.step), (list(&[2]), 2));
    worker.acknowledge(2);
    until(async || servers(&one) == list(&[3])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_is_told_and_nothing_is_served_by_guess() {
    let folder = tempfile::tempdir().unwrap();
    let _made = Files::open(folder.path()).unwrap();
    std::fs::write(folder.path().join("data/main+state"), "{}").unwrap();
    let (control, cluster) = sidecar(&folder, &[1], Policy::Transparent);
    until(async || control.trouble().is_some_and(|trouble| trouble.contains("damaged"))).await;
    assert!(!control.joined(Duration::ZERO).await);
    assert_eq!((control.agreement().view().step, cluster.snapshot().members.len()), (0, 0));
}
