//! A running `echo`, its log line by line, and what is asked of it.

use super::*;

/// The listener that every test has.
pub(crate) const FRONT: &str = "listeners:\n- {address: 127.0.0.1:0, name: front}\n";

/// Ended with the test, by its own id.
pub(crate) struct Running {
    child: Child,
    pub(crate) folder: TempDir,
    log: Receiver<String>,
    address: String,
    pub(crate) admin: String,
}

/// Cargo builds examples with the tests, beside them.
pub(crate) fn binary() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().and_then(Path::parent).unwrap().join("examples/echo");
    assert!(path.exists(), "{} is missing: cargo build -p groove-common --example echo", path.display());
    path
}

impl Running {
    /// Starts with one TCP listener named `front`, an admin server, and `more` of the configuration.
    pub(crate) fn start(more: &str) -> Self {
        Self::start_with(more, |command| command)
    }

    pub(crate) fn start_with(more: &str, change: impl FnOnce(Command) -> Command) -> Self {
        let folder = tempdir().unwrap();
        let path = folder.path().join("echo.yaml");
        let admin = if more.contains("admin:") { "" } else { "admin: {address: 127.0.0.1:0}\n" };
        fs::write(&path, format!("{FRONT}{admin}{more}\n")).unwrap();
        let mut command = Command::new(binary());
        command.arg("run").arg("--config").arg(&path);
        let mut child = change(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (line, log) = channel();
        thread::spawn(move || {
            // Ends with the program, or with the test.
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|text| line.send(text))
        });
        let mut running = Self { child, folder, log, address: String::new(), admin: String::new() };
        let between = |line: &str, start: &str, end: char| {
            let rest = line.split_once(start).expect("the start of an address").1;
            rest.split(end).next().unwrap_or_default().to_owned()
        };
        running.address = between(&running.wait_for("listening on "), "listening on ", ' ');
        running.admin = between(&running.wait_for("admin on "), "http://", '/');
        running
    }

    /// The next line of the log that has `what` in it.
    pub(crate) fn wait_for(&self, what: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(what) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no {what:?} in the log, but\n{}", seen.join("\n")),
            }
        }
    }

    pub(crate) fn write(&self, config: &str) {
        fs::write(self.folder.path().join("echo.yaml"), config).unwrap();
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a line on a new connection and gets it back.
    pub(crate) fn line(&self, text: &str) {
        let mut stream = self.connect();
        stream.write_all(format!("{text}\n").as_bytes()).unwrap();
        let mut back = String::new();
        BufReader::new(stream).read_line(&mut back).unwrap();
        assert_eq!(back, format!("{text}\n"));
    }

    /// A line there and back on `stream`.
    pub(crate) fn ping(&self, stream: &mut TcpStream) {
        self.begin(stream, "");
    }

    /// A line there and back, and the beginning of the next, which has been read then: it came along.
    pub(crate) fn begin(&self, stream: &mut TcpStream, next: &str) {
        stream.write_all(format!("ping\n{next}").as_bytes()).unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"ping\n");
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, "")
    }

    /// One request to the admin server: status and body.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let host = if headers.contains("Host:") { "" } else { "Host: localhost\r\n" };
        write!(stream, "{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the program to end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        // Its log ends when it does.
        while self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
        assert!(Instant::now() < deadline, "it does not end");
        self.child.wait().unwrap()
    }

    /// All that it wrote to standard output.
    pub(crate) fn output(&mut self) -> String {
        let mut output = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        output
    }

    /// Processor time used up to now, to a hundredth of a second (proc(5), fields 14 and 15).
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        self.child.wait().ok();
    }
}
