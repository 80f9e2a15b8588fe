//! The connections: those of the sink, those of plugins, and when they are made anew.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Error, PgConnection};

use super::dsn::Address;
use super::session::Session;
use super::{CLOSE_TIMEOUT, Options, PostgresSink, sqlstate};
use crate::model::{CallError, Fault};
use crate::secret::Secret;

/// How long a call waits for a connection, and how long a server may take to answer on one that is there, or that is made
/// to learn why there was none.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// Most connections that plugins' statements have at a time, beside those of the sink.
const PLUGIN_CONNECTIONS: u32 = 4;
/// How long a plugin's connection is kept that nobody uses.
const PLUGIN_IDLE: Duration = Duration::from_secs(60);

/// What was learnt of the server from the connections to it.
#[derive(Debug)]
pub(super) struct Health {
    /// The connections that are there lead nowhere, or to a server that is no longer the one that writes.
    connections_are_old: AtomicBool,
    /// The address is to be read again before the next connection is asked for: it may name the new server.
    address_is_old: AtomicBool,
    /// The server can look after its client while a statement waits.
    looks_after: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            connections_are_old: AtomicBool::new(false),
            address_is_old: AtomicBool::new(false),
            looks_after: AtomicBool::new(true),
        }
    }
}

impl Health {
    /// Has every connection made anew that is there now, with the host's name resolved again: after a failover the others
    /// may lead to the old server still, and it may not hang up.
    pub(super) fn renew(&self) {
        self.connections_are_old.store(true, Ordering::Relaxed);
        self.address_is_old.store(true, Ordering::Relaxed);
    }

    pub(super) fn server_looks_after(&self) -> bool {
        self.looks_after.load(Ordering::Relaxed)
    }

    pub(super) fn set_server_looks_after(&self, whether: bool) {
        self.looks_after.store(whether, Ordering::Relaxed);
    }
}

/// The connections of a sink.
pub(super) struct Pools {
    least: u32,
    most: u32,
    health: Arc<Health>,
    current: Mutex<Current>,
}

struct Current {
    connect: PgConnectOptions,
    pair: Pair,
}

#[derive(Clone)]
struct Pair {
    /// Those that rows are written on.
    rows: PgPool,
    /// Those that plugins' statements run on, so that what one leaves behind can never meet a row.
    plugins: PgPool,
}

impl Pair {
    /// Pools that open their connections when they are needed.
    fn new(least: u32, most: u32, connect: &PgConnectOptions) -> Self {
        // Who takes a connection looks whether it answers: the pool would wait for it, and then for its end.
        let options = PgPoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).test_before_acquire(false);
        let rows = options.clone().min_connections(least).max_connections(most);
        let plugins = options.max_connections(most.min(PLUGIN_CONNECTIONS)).idle_timeout(PLUGIN_IDLE);
        Self { rows: rows.connect_lazy_with(connect.clone()), plugins: plugins.connect_lazy_with(connect.clone()) }
    }

    async fn close(&self) {
        tokio::join!(self.rows.close(), self.plugins.close());
    }
}

impl Pools {
    fn new(options: &Options, address: &Address, health: &Arc<Health>) -> Self {
        let (least, most) = (options.min_connections, options.max_connections.max(1));
        let connect = address.connect.clone();
        let pair = Pair::new(least, most, &connect);
        Self { least, most, health: Arc::clone(health), current: Mutex::new(Current { connect, pair }) }
    }

    /// The pool to take a connection of. When those that are there are old, it is a new one, and they are closed without
    /// that anybody waits: some may be silent.
    fn pool(&self, user: User) -> PgPool {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if self.health.connections_are_old.swap(false, Ordering::Relaxed) {
            let fresh = Pair::new(self.least, self.most, &current.connect);
            let old = std::mem::replace(&mut current.pair, fresh);
            tokio::spawn(async move {
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, old.close()).await;
            });
        }
        match user {
            User::Rows => current.pair.rows.clone(),
            User::Plugin => current.pair.plugins.clone(),
        }
    }

    fn set_address(&self, address: &Address) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.connect = address.connect.clone();
        current.pair.rows.set_connect_options(address.connect.clone());
        current.pair.plugins.set_connect_options(address.connect.clone());
    }

    pub(super) async fn close(&self) {
        let pair = self.current.lock().unwrap_or_else(PoisonError::into_inner).pair.clone();
        pair.close().await;
    }
}

/// Who asks for a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum User {
    Rows,
    Plugin,
}

impl PostgresSink {
    /// The sink with an address that may change: its DSN is read from `dsn` when the server lets nobody in.
    #[must_use]
    pub fn with_secret(self, dsn: Option<Secret>) -> Self {
        Self { secret: dsn, ..self }
    }

    pub(super) fn address(&self) -> Arc<Address> {
        Arc::clone(&self.address.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn pools(&self) -> Option<Arc<Pools>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn new_pools(&self) -> Pools {
        Pools::new(&self.options, &self.address(), &self.health)
    }

    /// A connection of the pool. When none can be had, a connection outside of it tells why: the pool keeps that to
    /// itself. Then the address is read again, which files may hold a part of.
    pub(super) async fn session(&self, pools: &Pools, user: User) -> Result<Session, CallError> {
        if self.health.address_is_old.swap(false, Ordering::Relaxed) {
            // What it was until now may do as well.
            let _ = self.read_address_again(Some(pools)).await;
        }
        let mut error = match self.connection(pools, user).await {
            Ok(session) => return Ok(session),
            Err(error) => error,
        };
        let changed = self.read_address_again(Some(pools)).await.map_err(CallError::Unavailable)?;
        if matches!(error, Error::PoolTimedOut) {
            let address = self.address();
            match tokio::time::timeout(ASK_TIMEOUT, PgConnection::connect_with(&address.connect)).await {
                Ok(Ok(connection)) => {
                    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close()).await;
                }
                Ok(Err(why)) => error = why,
                Err(_) => {}
            }
        } else if changed {
            match self.connection(pools, user).await {
                Ok(session) => return Ok(session),
                Err(again) => error = again,
            }
        }
        Err(self.writer().unavailable(&error))
    }

    /// A connection on which the server answers.
    async fn connection(&self, pools: &Pools, user: User) -> Result<Session, Error> {
        for _ in 0..=pools.most {
            let mut connection = pools.pool(user).acquire().await?;
            match tokio::time::timeout(ASK_TIMEOUT, connection.ping()).await {
                Ok(Ok(())) => return Ok(Session::new(connection, Arc::clone(&self.health))),
                // A pooler says why it has no session for us.
                Ok(Err(error)) if sqlstate::is_poolers(&error) => return Err(error),
                // Dropped and not closed, which would wait for the server again.
                Ok(Err(_)) => drop(connection.detach()),
                // Where the server says nothing at all, as behind a firewall that forgot the connection, it will say nothing
                // on the others either. A new one needs no proof; a pooler with too much to do may be as slow.
                Err(_) => {
                    drop(connection.detach());
                    self.health.renew();
                    let connection = pools.pool(user).acquire().await?;
                    return Ok(Session::new(connection, Arc::clone(&self.health)));
                }
            }
        }
        Err(Error::PoolTimedOut)
    }

    /// Reads the address again: a password and certificates may have been replaced. Says whether the DSN is another one.
    pub(super) async fn read_address_again(&self, pools: Option<&Pools>) -> Result<bool, Fault> {
        let dsn = match &self.secret {
            Some(secret) => secret.read().await?,
            None => self.options.dsn.clone(),
        };
        let (place, options) = (self.place(), Options { dsn, ..self.options.clone() });
        let known = self.address();
        let changed = options.dsn != known.dsn;
        if !changed && !options.tls.is_given() {
            return Ok(false);
        }
        // Certificates are read from files.
        let address = tokio::task::spawn_blocking(move || Address::new(&place, &options)).await;
        let address = address.unwrap_or_else(|error| {
            Err(Fault::host("the address of the database could not be read again").because(error))
        })?;
        if let Some(pools) = pools {
            pools.set_address(&address);
        }
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(address);
        Ok(changed)
    }
}
