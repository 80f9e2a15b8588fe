//! The one connection that all partitions share, made anew when it is lost.
//!
//! One connection, because a server takes a connection's commands in their order: a call that was given up or cut short
//! is
//! done with before the next one begins, and an older value never comes after a newer one. That has to hold beyond a
//! connection that we give up while its commands may still wait inside the server, so the next one ends it there first.
//! A proxy
//! that does not know `CLIENT` cannot be asked to.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo as _, Pipeline, RedisError,
    TlsCertificates, Value,
};
use tokio::sync::Mutex;

use super::{Options, reply};
use crate::model::{CallError, Fault};
use crate::sink::tls::{self, Tls};

/// How long a start may take.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long one attempt to connect may take, with login and choice of the database.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a call waits for its answers: less than the 30 seconds that the host gives it by default (S77).
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
/// How long a connection whose last call got no answer has to prove itself.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Link {
    client: Client,
    /// `host:port/database`.
    place: String,
    /// What no text may hold.
    secrets: Vec<String>,
    proven: AtomicBool,
    /// A call ended without its answers: nobody knows whether the connection still works.
    doubted: AtomicBool,
    /// How often connecting was tried, so that those who wait for a try share its failure.
    tries: AtomicU64,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    open: Option<Open>,
    /// A connection that was given up while the server may still be reading from it.
    abandoned: Option<Peer>,
    failed: Option<Fault>,
    /// Counts connections.
    generation: u64,
}

#[derive(Clone)]
struct Open {
    connection: MultiplexedConnection,
    peer: Option<Peer>,
    generation: u64,
}

/// Why there are no answers.
pub(super) enum Lost {
    /// The server took the connection and then ended it.
    HungUp(Fault),
    /// It cannot be reached.
    Unavailable(Fault),
    /// It did not answer in time. Whether it carried out the commands is unknown.
    Late(Fault),
}

impl From<Lost> for CallError {
    fn from(lost: Lost) -> Self {
        match lost {
            // A server that can be reached and hangs up may do so because of what one row holds.
            Lost::HungUp(fault) => Self::Unknown(fault),
            Lost::Unavailable(fault) => Self::Unavailable(fault),
            Lost::Late(fault) => Self::Timeout(fault),
        }
    }
}

impl Lost {
    fn fault(self) -> Fault {
        let (Self::HungUp(fault) | Self::Unavailable(fault) | Self::Late(fault)) = self;
        fault
    }
}

/// A connection as the server names it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Peer {
    id: String,
    address: String,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Doubts the connection when a call ends before its answers are there, in whatever way.
struct Doubt<'l>(Option<&'l AtomicBool>);

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(doubted) = self.0 {
            doubted.store(true, Ordering::Release);
        }
    }
}

impl Link {
    pub(super) fn new(place: &str, options: &Options) -> Result<Self, Fault> {
        tls::provide();
        // The client's own words may quote the URL.
        let not_a_url = || {
            Fault::config(format!("`{place}.url` is not a Redis URL")).hint(
                "write `redis://user:password@host:6379/0`, with `rediss://` for TLS, and percent-encode the password",
            )
        };
        let info = options.url.as_str().into_connection_info().map_err(|_| not_a_url())?;
        // There are proxies that hang up on `CLIENT SETINFO`.
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let info = info.set_redis_settings(settings.clone());
        let secrets =
            settings.password().filter(|password| !password.is_empty()).map(str::to_owned).into_iter().collect();
        let (database, secure) = (settings.db(), matches!(info.addr(), ConnectionAddr::TcpTls { .. }));
        let shown = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                format!("{host}:{port}/{database}")
            }
            ConnectionAddr::Unix(path) => format!("{}/{database}", path.display()),
            _ => return Err(not_a_url()),
        };
        let client = if options.tls.is_given() {
            if !secure {
                return Err(Fault::config(format!("`{place}.tls` is given, but `{place}.url` speaks no TLS"))
                    .hint("begin the URL with `rediss://`, and name the port that speaks TLS"));
            }
            Client::build_with_tls(info, certificates(place, &options.tls)?).map_err(|error| {
                Fault::config(format!("`{place}.tls` names files that cannot be used")).because(error.category())
            })?
        } else {
            Client::open(info).map_err(|_| not_a_url())?
        };
        Ok(Self {
            client,
            place: shown,
            secrets,
            proven: AtomicBool::new(false),
            doubted: AtomicBool::new(false),
            tries: AtomicU64::new(0),
            slot: Mutex::default(),
        })
    }

    /// `host:port/database`.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// S78: a sink that never was connected writes nothing.
    pub(super) fn ready(&self) -> Result<(), CallError> {
        if self.proven.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(CallError::Fatal(Fault::host(format!("`{}` is not connected", self.place))))
    }

    /// Connects and asks for an answer (S124), and for those to the probes.
    pub(super) async fn prove(&self, probes: &Pipeline) -> Result<Vec<Value>, CallError> {
        let probe = async {
            let mut open = self.open().await?;
            let answer = open.connection.send_packed_command(&redis::cmd("PING")).await;
            match answer {
                Ok(Value::ServerError(error)) => Err(self.fault(
                    "answers, but is not ready",
                    &format!("{} {}", error.code(), error.details().unwrap_or_default()),
                )),
                Ok(_) => {
                    let answers = open.connection.send_packed_commands(probes, 0, probes.len()).await;
                    answers.map_err(|error| self.fault("does not answer", &error.to_string()))
                }
                Err(error) => Err(self.fault("does not answer", &error.to_string())),
            }
        };
        let timeout = || self.fault("does not answer", &format!("nothing within {} seconds", START_PATIENCE.as_secs()));
        tokio::time::timeout(START_PATIENCE, probe)
            .await
            .unwrap_or_else(|_| Err(timeout()))
            .map_err(CallError::Unavailable)
    }

    /// From now on rows are taken.
    pub(super) fn proven(&self) {
        self.proven.store(true, Ordering::Release);
    }

    /// Sends the commands and waits for as many answers.
    pub(super) async fn send(&self, pipeline: &Pipeline, commands: usize) -> Result<Vec<Value>, Lost> {
        let mut open = self.open().await.map_err(Lost::Unavailable)?;
        let mut doubt = Doubt(Some(&self.doubted));
        let answers = open.connection.send_packed_commands(pipeline, 0, commands).await;
        if !answers.as_ref().is_err_and(RedisError::is_timeout) {
            doubt.0 = None;
        }
        drop(doubt);
        match answers {
            Ok(answers) if answers.len() == commands => {
                // After a failover the server that was the master stays up and refuses: its name may lead to another
                // one now.
                let stale = |answer: &Value| matches!(answer, Value::ServerError(error) if reply::is_stale(error));
                if answers.iter().any(stale) {
                    self.renew(open.generation).await;
                }
                Ok(answers)
            }
            Ok(answers) => {
                let why = format!("{} answers to {commands} commands", answers.len());
                self.forget(open.generation).await;
                Err(Lost::HungUp(self.fault("answers oddly", &why)))
            }
            Err(error) if error.is_timeout() => Err(Lost::Late(self.fault("does not answer", &error.to_string()))),
            Err(error) => {
                self.forget(open.generation).await;
                Err(Lost::HungUp(self.fault("hung up", &error.to_string())))
            }
        }
    }

    pub(super) async fn close(&self) {
        self.proven.store(false, Ordering::Release);
        *self.slot.lock().await = Slot::default();
    }

    /// The connection, once it is known to work.
    async fn open(&self) -> Result<Open, Fault> {
        let tries = self.tries.load(Ordering::Acquire);
        let mut slot = self.slot.lock().await;
        if self.doubted.swap(false, Ordering::AcqRel)
            && let Some(open) = &mut slot.open
        {
            // A cancelled probe leaves the doubt behind.
            let mut doubt = Doubt(Some(&self.doubted));
            let ping = redis::cmd("PING");
            let probe = open.connection.send_packed_command(&ping);
            let works = matches!(tokio::time::timeout(PROBE_PATIENCE, probe).await, Ok(Ok(_)));
            doubt.0 = None;
            if !works {
                slot.abandoned = slot.open.take().and_then(|open| open.peer);
            }
        }
        if let Some(open) = &slot.open {
            return Ok(open.clone());
        }
        if self.tries.load(Ordering::Acquire) != tries
            && let Some(fault) = &slot.failed
        {
            return Err(fault.clone());
        }
        let connected = match self.connected(slot.abandoned.as_ref()).await {
            // A proxy may have hung up on `CLIENT`.
            Err(Lost::HungUp(fault)) => self.connected_plainly().await.map_err(|_| fault),
            connected => connected.map_err(Lost::fault),
        };
        self.tries.fetch_add(1, Ordering::AcqRel);
        match connected {
            Ok((connection, peer)) => {
                slot.generation += 1;
                let open = Open { connection, peer, generation: slot.generation };
                (slot.open, slot.abandoned, slot.failed) = (Some(open.clone()), None, None);
                Ok(open)
            }
            Err(fault) => {
                slot.failed = Some(fault.clone());
                Err(fault)
            }
        }
    }

    /// A new connection, and the end of the abandoned one inside the server.
    async fn connected(&self, abandoned: Option<&Peer>) -> Result<(MultiplexedConnection, Option<Peer>), Lost> {
        let mut pipeline = Pipeline::new();
        if let Some(peer) = abandoned {
            // By number and address: after a restart the number may be somebody else's.
            pipeline.cmd("CLIENT").arg("KILL").arg("ID").arg(&peer.id).arg("ADDR").arg(&peer.address);
        }
        pipeline.cmd("CLIENT").arg("INFO");
        // Servers before 6.2 do not know, and users may not ask: then there is nothing to end by.
        let (connection, answers) = self.greeted(&pipeline).await?;
        Ok((connection, answers.last().and_then(peer)))
    }

    /// A new connection to what does not know `CLIENT`.
    async fn connected_plainly(&self) -> Result<(MultiplexedConnection, Option<Peer>), Lost> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("PING");
        self.greeted(&pipeline).await.map(|(connection, _)| (connection, None))
    }

    /// A new connection, and its answers to the first commands.
    async fn greeted(&self, pipeline: &Pipeline) -> Result<(MultiplexedConnection, Vec<Value>), Lost> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_PATIENCE))
            .set_response_timeout(Some(ANSWER_PATIENCE));
        let unavailable = |error: &RedisError| Lost::Unavailable(self.fault("cannot be reached", &error.to_string()));
        let attempt = async {
            let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
            let mut connection = connecting.await.map_err(|error| unavailable(&error))?;
            let answers = match connection.send_packed_commands(pipeline, 0, pipeline.len()).await {
                Ok(answers) => answers,
                Err(error) if error.is_timeout() => return Err(unavailable(&error)),
                Err(error) => return Err(Lost::HungUp(self.fault("cannot be reached", &error.to_string()))),
            };
            match answers.iter().find_map(reply::too_many_clients) {
                Some(words) => Err(Lost::Unavailable(self.fault("takes no connection", words))),
                None => Ok((connection, answers)),
            }
        };
        let patience = || format!("nothing within {} seconds", CONNECT_PATIENCE.as_secs());
        tokio::time::timeout(CONNECT_PATIENCE, attempt)
            .await
            .unwrap_or_else(|_| Err(Lost::Unavailable(self.fault("cannot be reached", &patience()))))
    }

    /// Gives a connection up that the server has ended, unless somebody did before.
    async fn forget(&self, generation: u64) {
        let mut slot = self.slot.lock().await;
        if slot.open.as_ref().is_some_and(|open| open.generation == generation) {
            slot.abandoned = slot.open.take().and_then(|open| open.peer);
        }
    }

    /// Lets the next call connect anew. Whoever still waits for answers on the old connection gets them.
    async fn renew(&self, generation: u64) {
        let mut slot = self.slot.lock().await;
        if slot.open.as_ref().is_some_and(|open| open.generation == generation) {
            slot.open = None;
        }
    }

    fn fault(&self, what: &str, why: &str) -> Fault {
        // A server that does not know a command repeats its arguments, and the login is one.
        let why = self.secrets.iter().fold(why.to_owned(), |why, secret| why.replace(secret.as_str(), "***"));
        Fault::destination(format!("`{}` {what}", self.place))
            .because(why.trim_end())
            .hint("see that the server runs, and that address, login and database number are right")
    }
}

/// The client that `CLIENT INFO` describes.
fn peer(answer: &Value) -> Option<Peer> {
    let text: String = redis::from_redis_value_ref(answer).ok()?;
    let field = |name: &str| {
        text.split_ascii_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
    };
    Some(Peer { id: field("id")?, address: field("addr")? })
}

fn certificates(place: &str, tls: &Tls) -> Result<TlsCertificates, Fault> {
    let root_cert = tls.ca_file.as_ref().map(|file| Tls::read(place, "ca_file", file)).transpose()?;
    let client_tls = match tls.identity(place)? {
        Some((certificate, key)) => Some(ClientTlsConfig {
            client_cert: Tls::read(place, "certificate_file", certificate)?,
            client_key: Tls::read(place, "key_file", key)?,
        }),
        None => None,
    };
    Ok(TlsCertificates { client_tls, root_cert })
}
