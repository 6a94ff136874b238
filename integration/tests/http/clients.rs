//! Client libraries of other languages through groove-http, before apps of other languages.

use std::path::Path;
use std::process::Command;

use harness::{Kind, Port, Process, Proxy, paths, python};

const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  old: {hosts: [old.test], endpoints: [$OLD]}
  new: {hosts: [new.test], endpoints: [$NEW]}
";

pub(crate) fn app(name: &str, port: &Port) -> Process {
    let file = paths::repository().join("integration/python").join(name);
    let mut command = Command::new(python::interpreter().unwrap());
    command.arg(file).arg(port.address().port().to_string());
    let mut process = Process::spawn(name, command).unwrap();
    let address = port.address();
    process.until("accepting", || std::net::TcpStream::connect(address).is_ok()).unwrap();
    process
}

#[test]
fn requests_aiohttp_httpx_h11_and_websockets_are_content() {
    let (old, new) = (Port::reserve().unwrap(), Port::reserve().unwrap());
    let _apps = [app("http_old_app.py", &old), app("http_new_app.py", &new)];
    let proxy = Proxy::of(Kind::Http).config(CONFIG).set("OLD", &old).set("NEW", &new).start().unwrap();
    let counts = python::pytest(
        "http clients",
        Path::new(&paths::repository().join("integration/python")),
        &["http_clients.py"],
        &[("GROOVE_ADDRESS", proxy.address().to_string())],
    )
    .unwrap();
    assert_eq!((counts.failed, counts.skipped), (0, 0));
    assert!(counts.passed >= 10, "{counts:?}");
}
