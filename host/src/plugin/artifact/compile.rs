//! Compiling, in a process of its own: the compiler is by far the largest thing that reads a plugin's bytes, and some
//! components take it hours or all memory there is. A child that meets its limits ends alone.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::model::Fault;
use crate::plugin::engine;
use crate::plugin::limits::{COMPONENT_MEBIBYTES, Limits, MEBIBYTE};
use crate::plugin::report::{WORDS_BYTES, printable};

/// The hidden subcommand that a child is started with.
pub const SUBCOMMAND: &str = "compile-component";
/// The code with which the child ends when the component is not valid.
pub const INVALID: u8 = 2;
/// The code with which it ends when its memory is spent.
pub const SPENT: u8 = 1;
/// Most bytes of native code that are taken from a child. It is a few times as large as what it is compiled from.
const CODE_BYTES: u64 = 1 << 30;
/// Most bytes of what a child may complain.
const COMPLAINT_BYTES: u64 = 16 << 10;
/// Most threads of a child.
const THREADS: usize = 4;

/// Who compiles components.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// A child process of this program, which has to be `tidegate`, under limits of memory and time.
    Child(PathBuf),
    /// This process, without limits: for components that are trusted, as a fuzzer's own.
    Here,
}

impl Compiler {
    /// A child of the program that is running.
    ///
    /// # Errors
    /// When the program cannot be found.
    pub fn this_program() -> Result<Self, Fault> {
        // The link keeps naming the program that runs, also when a newer one has taken its place on disk.
        let link = Path::new("/proc/self/exe");
        if link.exists() {
            return Ok(Self::Child(link.to_owned()));
        }
        let found = std::env::current_exe().map(Self::Child);
        found.map_err(|error| Fault::host("the program that compiles plugins cannot be found").because(error))
    }

    /// Native code for the component in `bytes`, the file `shown` of the plugin at `place`.
    pub(super) async fn compile(
        &self,
        engine: &wasmtime::Engine,
        bytes: Arc<Vec<u8>>,
        shown: &Path,
        place: &str,
        limits: &Limits,
    ) -> Result<Vec<u8>, Fault> {
        let about = About { shown, place, limits };
        match self {
            Self::Child(program) => about.in_child(program, &bytes).await,
            Self::Here => {
                let engine = engine.clone();
                let compiled = tokio::task::spawn_blocking(move || engine.precompile_component(&bytes)).await;
                let compiled = compiled.map_err(|error| about.died(&error.to_string()))?;
                compiled.map_err(|error| about.invalid(&error.root_cause().to_string()))
            }
        }
    }
}

/// What is compiled, for messages.
struct About<'a> {
    shown: &'a Path,
    place: &'a str,
    limits: &'a Limits,
}

impl About<'_> {
    async fn in_child(&self, program: &Path, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
        let limits = self.limits;
        let time = Duration::from_secs_f64(limits.compile_timeout_seconds);
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(THREADS));
        // The parent's clock is what counts; this ends a child whose parent was killed.
        let processor_seconds = (time.as_secs() + 1) * threads as u64;
        let mut command = Command::new(program);
        command
            .arg0("tidegate")
            .arg(SUBCOMMAND)
            .args(["--memory-mebibytes", &limits.compile_memory_mebibytes.to_string()])
            .args(["--processor-seconds", &processor_seconds.to_string()])
            // What the environment holds is no business of a process that reads a stranger's bytes.
            .env_clear()
            .envs(std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH", path)))
            .env("RAYON_NUM_THREADS", threads.to_string())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let child = command.spawn().map_err(|error| {
            Fault::host("the process that compiles plugins could not be started")
                .because(format!("`{}`: {error}", program.display()))
        })?;
        match tokio::time::timeout(time, talk(child, bytes)).await {
            Ok(Ok((status, code, complaint))) => self.judge(status, code, &complaint),
            Ok(Err(error)) => Err(self.died(&error.to_string())),
            Err(_) => Err(Fault::plugin(format!(
                "`{}` was not compiled when its {} s were over",
                self.shown.display(),
                limits.compile_timeout_seconds
            ))
            .hint(format!("if that is legitimate, raise `{}.limits.compile_timeout_seconds`", self.place))),
        }
    }

    fn judge(&self, status: ExitStatus, code: Vec<u8>, complaint: &[u8]) -> Result<Vec<u8>, Fault> {
        let words = printable(String::from_utf8_lossy(complaint).trim(), WORDS_BYTES);
        if status.success() {
            return Ok(code);
        }
        let spent = words.starts_with("memory allocation of ");
        match status.code() {
            Some(code) if code == i32::from(INVALID) => Err(self.invalid(&words)),
            Some(code) if code == i32::from(SPENT) => Err(self.spent()),
            _ if spent => Err(self.spent()),
            _ => Err(self.died(&format!("{status}; {words}"))),
        }
    }

    fn invalid(&self, words: &str) -> Fault {
        Fault::config(format!("`{}` is no valid component", self.shown.display()))
            .because(words)
            .hint("the file may be cut off or damaged: build or copy it again")
    }

    fn spent(&self) -> Fault {
        let most = self.limits.compile_memory_mebibytes;
        Fault::plugin(format!("`{}` takes more than {most} MiB to compile", self.shown.display()))
            .hint(format!("if that is legitimate, raise `{}.limits.compile_memory_mebibytes`", self.place))
    }

    fn died(&self, how: &str) -> Fault {
        Fault::plugin(format!("compiling `{}` ended badly", self.shown.display()))
            .because(how)
            .hint(format!("it may need more than `{}.limits.compile_memory_mebibytes`", self.place))
    }
}

/// Gives the child the component, and takes what it answers.
async fn talk(mut child: Child, bytes: &[u8]) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut code, mut complaint) = (Vec::new(), Vec::new());
    let give = async {
        if let Some(mut input) = input {
            // A child that ends before it has read everything says why by itself.
            let _ = input.write_all(bytes).await;
        }
        Ok(())
    };
    let take = async {
        if let Some(output) = output {
            output.take(CODE_BYTES + 1).read_to_end(&mut code).await?;
        }
        match code.len() as u64 > CODE_BYTES {
            // The child is ended with the future that holds it.
            true => Err(std::io::Error::other(format!("it becomes more than {} MiB of native code", CODE_BYTES >> 20))),
            false => Ok(()),
        }
    };
    let hear = async {
        match errors {
            Some(errors) => errors.take(COMPLAINT_BYTES).read_to_end(&mut complaint).await.map(|_| ()),
            None => Ok(()),
        }
    };
    tokio::try_join!(give, take, hear)?;
    Ok((child.wait().await?, code, complaint))
}

/// Why a child has no code to give.
#[derive(Debug)]
pub enum Failed {
    /// The component is not valid: [`INVALID`].
    Invalid(String),
    /// The memory is spent: [`SPENT`].
    Spent(String),
}

/// What the child does: takes a component from standard input, and gives its native code back. From then on the process has no
/// more memory than `memory_mebibytes` and no more processor time than `processor_seconds`.
///
/// # Errors
/// When the component is not valid, or the memory is spent.
pub fn compile_in_this_process(memory_mebibytes: u64, processor_seconds: u64) -> Result<Vec<u8>, Failed> {
    let failed = |error: &dyn std::fmt::Display| Failed::Spent(error.to_string());
    let limits = [
        (Resource::Data, memory_mebibytes.saturating_mul(MEBIBYTE)),
        (Resource::Cpu, processor_seconds),
        // A compiler that crashed leaves no copy of its memory behind.
        (Resource::Core, 0),
    ];
    for (resource, most) in limits {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).map_err(|error| failed(&error))?;
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(COMPONENT_MEBIBYTES * MEBIBYTE)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error))?;
    let engine = wasmtime::Engine::new(&engine::config()).map_err(|error| failed(&error))?;
    engine.precompile_component(&bytes).map_err(|error| {
        let words = error.root_cause().to_string();
        if is_spent(&error) { Failed::Spent(words) } else { Failed::Invalid(words) }
    })
}

fn is_spent(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref() == Some(&Errno::NOMEM)
            || cause
                .downcast_ref()
                .is_some_and(|error: &std::io::Error| error.kind() == std::io::ErrorKind::OutOfMemory)
    })
}
