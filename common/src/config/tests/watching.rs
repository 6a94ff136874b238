//! A watch on real files. Every wait is for an event; the bound only ends a test that would hang.

use std::cell::RefCell;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration as Time;

use super::*;

const BOUND: Time = Time::from_secs(20);

fn text(port: u16) -> String {
    format!("listeners: [{{address: 127.0.0.1:{port}}}]\n")
}

fn start(path: &Path) -> Watch<Sample> {
    Watch::start(&load(path).unwrap_or_else(|report| panic!("{report}"))).unwrap()
}

async fn next(watch: &mut Watch<Sample>) -> Attempt<Sample> {
    tokio::time::timeout(BOUND, watch.next()).await.expect("no reload was tried")
}

fn port(attempt: &Attempt<Sample>) -> String {
    attempt.outcome.as_ref().unwrap_or_else(|report| panic!("{report}")).document.listeners[0]
        .address
        .to_string()
}

#[tokio::test]
async fn a_file_written_in_place_or_renamed_over_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("groove.yaml");
    std::fs::write(&path, text(1)).unwrap();
    let mut watch = start(&path);

    std::fs::write(&path, text(2)).unwrap();
    let attempt = next(&mut watch).await;
    assert_eq!(
        (attempt.cause.clone(), port(&attempt).as_str()),
        (Cause::Changed(path.clone()), "127.0.0.1:2")
    );

    // Twice, as what is watched is another file after the first time.
    for round in 3..5 {
        let new = folder.path().join("groove.yaml.new");
        std::fs::write(&new, text(round)).unwrap();
        std::fs::rename(&new, &path).unwrap();
        assert_eq!(port(&next(&mut watch).await), format!("127.0.0.1:{round}"));
    }
}

#[tokio::test]
async fn a_swapped_link_two_levels_up_is_followed() {
    // As Kubernetes mounts a ConfigMap: groove.yaml -> ..data/groove.yaml, ..data -> ..1
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for version in 1..4 {
        std::fs::create_dir(at(&format!("..{version}"))).unwrap();
        std::fs::write(at(&format!("..{version}/groove.yaml")), text(version)).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/groove.yaml", at("groove.yaml")).unwrap();
    let mut watch = start(&at("groove.yaml"));

    for version in 2..4 {
        symlink(format!("..{version}"), at("..data_tmp")).unwrap();
        std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
        std::fs::remove_dir_all(at(&format!("..{}", version - 1))).unwrap();
        assert_eq!(port(&next(&mut watch).await), format!("127.0.0.1:{version}"));
    }
}

#[tokio::test]
async fn a_folder_that_is_a_link_is_followed() {
    // As a deployment swaps `current`.
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for version in 1..3 {
        std::fs::create_dir(at(&format!("{version}"))).unwrap();
        std::fs::write(at(&format!("{version}/groove.yaml")), text(version)).unwrap();
    }
    symlink("1", at("current")).unwrap();
    let mut watch = start(&at("current/groove.yaml"));

    symlink("2", at("next")).unwrap();
    std::fs::rename(at("next"), at("current")).unwrap();
    assert_eq!(port(&next(&mut watch).await), "127.0.0.1:2");
}

#[tokio::test]
async fn a_bad_file_is_reported_and_a_good_one_follows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("groove.yaml");
    std::fs::write(&path, text(1)).unwrap();
    let mut watch = start(&path);

    std::fs::write(&path, "listeners: [{address: 127.0.0.1}]\n").unwrap();
    let report = next(&mut watch).await.outcome.unwrap_err();
    assert_eq!(report.findings()[0].line, 1);

    std::fs::remove_file(&path).unwrap();
    assert!(next(&mut watch).await.outcome.is_err(), "a file that is gone is an error too");

    std::fs::write(&path, text(2)).unwrap();
    assert_eq!(port(&next(&mut watch).await), "127.0.0.1:2");
}

#[tokio::test]
async fn files_it_depends_on_are_watched_even_those_to_come() {
    let (folder, secrets) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, secret) = (folder.path().join("groove.yaml"), secrets.path().join("token"));
    std::fs::write(&path, text(1)).unwrap();
    let mut watch = start(&path);

    let admin =
        format!("{}admin: {{address: 127.0.0.1:9, token: {{file: {}}}}}\n", text(1), secret.display());
    std::fs::write(&path, admin).unwrap();
    assert!(next(&mut watch).await.outcome.is_err(), "the secret is not there yet");

    for token in ["one", "two"] {
        std::fs::write(secrets.path().join("new"), token).unwrap();
        std::fs::rename(secrets.path().join("new"), &secret).unwrap();
        let attempt = next(&mut watch).await;
        assert_eq!(attempt.cause, Cause::Changed(secret.clone()));
        let loaded = attempt.outcome.unwrap_or_else(|report| panic!("{report}"));
        assert_eq!(loaded.document.admin.unwrap().token.unwrap().expose(), token);
    }
}

#[tokio::test]
async fn who_asks_gets_a_try_although_nothing_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("groove.yaml");
    std::fs::write(&path, text(1)).unwrap();
    let mut watch = start(&path);
    // Asked twice before anybody looks: one try.
    watch.ask();
    watch.ask();
    let attempt = next(&mut watch).await;
    assert_eq!((attempt.cause.clone(), port(&attempt).as_str()), (Cause::Asked, "127.0.0.1:1"));
}

#[tokio::test]
async fn what_is_no_change_is_no_reload() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("groove.yaml");
    std::fs::write(&path, text(1)).unwrap();
    let mut watch = start(&path);

    // The same again, and a file beside it; then something that does count, which must come first.
    std::fs::write(&path, text(1)).unwrap();
    std::fs::write(folder.path().join("other"), "x").unwrap();
    let waited = tokio::time::timeout(Time::from_millis(1), watch.next()).await;
    assert!(waited.is_err(), "cancelled before it was calm");
    std::fs::write(&path, text(2)).unwrap();
    assert_eq!(port(&next(&mut watch).await), "127.0.0.1:2");
}

/// A document whose check takes so long that its file changes meanwhile.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Slow {
    listeners: Vec<Listener>,
    #[serde(default)]
    log: Log,
}

thread_local! {
    /// What somebody writes during the next check, and where to.
    static MEANWHILE: RefCell<Option<(PathBuf, String)>> = const { RefCell::new(None) };
}

impl Document for Slow {
    fn basics(&self) -> Basics<'_> {
        Basics {
            listeners: &self.listeners,
            admin: None,
            log: &self.log,
            drain: default_drain(),
            workers: None,
            handover: None,
        }
    }

    fn validate(&self, _: &mut Issues) {
        if let Some((path, text)) = MEANWHILE.take() {
            std::fs::write(path, text).unwrap();
        }
    }
}

#[tokio::test]
async fn what_changes_while_it_is_read_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("groove.yaml");
    let change_meanwhile = |port| MEANWHILE.set(Some((path.clone(), text(port))));
    let next_port = async |watch: &mut Watch<Slow>| {
        let attempt = tokio::time::timeout(BOUND, watch.next()).await.expect("no reload was tried");
        attempt.outcome.unwrap().document.listeners[0].address.to_string()
    };
    std::fs::write(&path, text(1)).unwrap();
    change_meanwhile(2);
    let mut watch = Watch::<Slow>::start(&load(&path).unwrap()).unwrap();
    change_meanwhile(3);
    assert_eq!(next_port(&mut watch).await, "127.0.0.1:2");
    assert_eq!(next_port(&mut watch).await, "127.0.0.1:3");
}
