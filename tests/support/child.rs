//! Servers as children of the test process, gone with it whatever happens, and where they keep their files.
#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What to run when something that tests need is missing.
pub const REMEDY: &str = "run `make setup` first";
/// How long a server may take to answer.
const START_PATIENCE: Duration = Duration::from_secs(90);
/// How often a server that comes up is asked whether it answers.
const LOOK: Duration = Duration::from_millis(20);
/// How much of its log a server that did not come up leaves in the panic.
const LOG_LINES: usize = 30;
/// What a server prints, in its folder.
const LOG: &str = "server.log";
/// Ends the server when its standard input is closed, which happens when the test process ends, in whatever way. The
/// server's own children go first, while it is stopped and can make no new ones.
const WATCHDOG: &str = r#"log=$1; shift; exec 3<&0
"$@" </dev/null >>"$log" 2>&1 3<&- &
pid=$!; echo $pid
{ cat <&3 >/dev/null; kill -STOP $pid; kill -KILL $(cat /proc/$pid/task/$pid/children) $pid; } 2>/dev/null &
dog=$!; exec 3<&- >&- 2>/dev/null; wait $pid; code=$?; kill $dog; exit $code"#;

/// A server with a folder of its own, which goes when this is dropped.
pub struct Server {
    name: &'static str,
    dir: PathBuf,
    running: Option<Running>,
}

/// A program that runs, and ends when this process does.
pub struct Running {
    shell: Child,
    /// Held open: its end is the program's.
    lifeline: ChildStdin,
    pid: u32,
}

impl Running {
    /// Runs the command in the folder; what it prints goes to the end of the log.
    pub fn start(name: &str, command: &Command, dir: &Path, log: &Path) -> Self {
        let mut shell = Command::new("sh")
            .args(["-c", WATCHDOG, name])
            .arg(log)
            .arg(command.get_program())
            .args(command.get_args())
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lifeline = shell.stdin.take().unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { shell, lifeline, pid: line.trim().parse().unwrap() }
    }

    /// The program's process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How the program ended, once it has: its code, or 128 and the number of the signal that ended it.
    pub fn ended(&mut self) -> Option<i32> {
        self.shell.try_wait().unwrap().map(|status| status.code().unwrap_or(-1))
    }

    /// Ends the program and its children as a crash would.
    pub fn kill(self) {
        let Self { mut shell, lifeline, .. } = self;
        drop(lifeline);
        shell.wait().unwrap();
    }
}

impl Server {
    /// A server's folder in [`run_dir`]; nothing runs yet.
    pub fn new(name: &'static str) -> Self {
        Self::under(&run_dir(), name)
    }

    /// The same in another place, which is shared with servers of other test processes.
    pub fn under(place: &Path, name: &'static str) -> Self {
        Self { name, dir: own_dir(place, name), running: None }
    }

    /// The server's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs the command, whose working directory becomes the server's folder, and waits until the server answers.
    ///
    /// # Panics
    /// When it runs already and when it does not come up.
    pub fn start(&mut self, command: &Command, answers: impl FnMut() -> bool) {
        if let Err(ended) = self.try_start(command, answers) {
            panic!("{} did not come up ({ended}); {REMEDY} if it is missing:\n{}", self.name, self.log_end());
        }
    }

    /// The same, for a server whose first attempts may fail.
    pub fn try_start(&mut self, command: &Command, mut answers: impl FnMut() -> bool) -> Result<(), String> {
        assert!(self.running.is_none(), "{} runs already", self.name);
        let running = self.running.insert(Running::start(self.name, command, &self.dir, &self.dir.join(LOG)));
        let started = Instant::now();
        loop {
            // Looked at first: what answers on the port of a server that has ended is another one.
            let failed = match running.ended() {
                Some(code) => format!("code {code}"),
                None if started.elapsed() > START_PATIENCE => format!("no answer in {START_PATIENCE:?}"),
                None if answers() => return Ok(()),
                None => {
                    std::thread::sleep(LOOK);
                    continue;
                }
            };
            self.kill();
            return Err(failed);
        }
    }

    /// Ends the server as a crash would.
    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
        }
    }

    /// Ends the server as an operator would, with the signal (`-TERM`) that it takes for an order to end.
    pub fn stop(&mut self, signal: &str) {
        let Some(mut running) = self.running.take() else { return };
        Command::new("kill").args([signal, &running.pid.to_string()]).status().unwrap();
        running.shell.wait().unwrap();
    }

    /// Sends the server a signal that does not end it.
    pub fn signal(&self, signal: &str) {
        let Some(running) = &self.running else { return };
        Command::new("kill").args([signal, &running.pid.to_string()]).status().unwrap();
    }

    /// What the server wrote last.
    pub fn log_end(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Where the server writes its log.
    pub fn log(&self) -> PathBuf {
        self.dir.join(LOG)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Runs a command to its end and returns what it printed.
///
/// # Panics
/// When it cannot be started, and with what it wrote to standard error when it fails.
pub fn output(command: &mut Command) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("`{name}` cannot be started ({error}): {REMEDY}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{name}` failed ({}): {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A port that nothing listens on and that was given to nobody in this process, where a killed server may want its own back.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

/// Whether something listens on the port.
pub fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// A new folder in a place that test processes share, cleared of what those left behind that have ended: a shared server
/// lives in a static, which nothing drops.
pub fn own_dir(place: &Path, name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    fs::create_dir_all(place).unwrap();
    for entry in fs::read_dir(place).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(owner).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let dir = place.join(format!("{}-{name}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    // An earlier process may have had this one's number.
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    dir
}

/// Where servers keep their folders.
pub fn run_dir() -> PathBuf {
    target_dir().join("services/run")
}

/// The configuration and code that servers are started with.
pub fn services_dir() -> PathBuf {
    root().join("tests/services")
}

/// The binary under test: the one that was built with the tests, or the one that `TIDEGATE_BIN` names.
pub fn binary() -> PathBuf {
    std::env::var_os("TIDEGATE_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_tidegate")), |path| root().join(path))
}

/// Where everything is built and fetched to.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}
