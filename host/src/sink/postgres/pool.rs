//! The connections: those of the sink, those of plugins, and when they are made anew.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Connection as _, Error, PgConnection};
use tokio::time::Instant;

use super::dsn::Address;
use super::session::Session;
use super::{CLOSE_TIMEOUT, Options, PostgresSink};
use crate::model::{CallError, Fault};
use crate::secret::Secret;

/// How long a call waits for a connection, and a server that is asked why there was none.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// Most connections that plugins' statements have at a time, beside those of the sink.
const PLUGIN_CONNECTIONS: u32 = 4;
/// How long a plugin's connection is kept that nobody uses.
const PLUGIN_IDLE: Duration = Duration::from_secs(60);

/// What was learnt of the server from the connections to it.
#[derive(Debug)]
pub(super) struct Health {
    /// Connections from before this moment lead nowhere, or to a server that is no longer the one that writes.
    renewed: Mutex<Option<Instant>>,
    /// The server can look after its client while a statement waits.
    looks_after: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        Self { renewed: Mutex::default(), looks_after: AtomicBool::new(true) }
    }
}

impl Health {
    /// Has every connection made anew that is there now, with the host's name resolved again: after a failover the others
    /// may lead to the old server still, and it may not hang up.
    pub(super) fn renew(&self) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_current(&self, age: Duration) -> bool {
        let renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        renewed.is_none_or(|renewed| age < renewed.elapsed())
    }

    pub(super) fn server_looks_after(&self) -> bool {
        self.looks_after.load(Ordering::Relaxed)
    }

    pub(super) fn set_server_looks_after(&self, whether: bool) {
        self.looks_after.store(whether, Ordering::Relaxed);
    }
}

/// The connections of a sink.
#[derive(Clone)]
pub(super) struct Pools {
    /// Those that rows are written on.
    rows: PgPool,
    /// Those that plugins' statements run on, so that what one leaves behind can never meet a row.
    plugins: PgPool,
}

impl Pools {
    /// Pools that open their connections when they are needed.
    fn new(options: &Options, address: &Address, health: &Arc<Health>) -> Self {
        let most = options.max_connections.max(1);
        let pool = |pool: PgPoolOptions| {
            let health = Arc::clone(health);
            pool.acquire_timeout(ACQUIRE_TIMEOUT)
                .before_acquire(move |_, connection| {
                    let current = health.is_current(connection.age);
                    Box::pin(async move { Ok(current) })
                })
                .connect_lazy_with(address.connect.clone())
        };
        let plugins = PgPoolOptions::new().max_connections(most.min(PLUGIN_CONNECTIONS)).idle_timeout(PLUGIN_IDLE);
        let rows = PgPoolOptions::new().min_connections(options.min_connections).max_connections(most);
        Self { rows: pool(rows), plugins: pool(plugins) }
    }

    fn set_address(&self, address: &Address) {
        self.rows.set_connect_options(address.connect.clone());
        self.plugins.set_connect_options(address.connect.clone());
    }

    pub(super) async fn close(&self) {
        tokio::join!(self.rows.close(), self.plugins.close());
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

    pub(super) fn pools(&self) -> Option<Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn new_pools(&self) -> Pools {
        Pools::new(&self.options, &self.address(), &self.health)
    }

    /// A connection of the pool. When none can be had, a connection outside of it tells why: the pool keeps that to
    /// itself. Then the address is read again, which files may hold a part of.
    pub(super) async fn session(&self, pools: &Pools, user: User) -> Result<Session, CallError> {
        let pool = match user {
            User::Rows => &pools.rows,
            User::Plugin => &pools.plugins,
        };
        let mut error = match pool.acquire().await {
            Ok(connection) => return Ok(Session::new(connection, Arc::clone(&self.health))),
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
            match pool.acquire().await {
                Ok(connection) => return Ok(Session::new(connection, Arc::clone(&self.health))),
                Err(again) => error = again,
            }
        }
        Err(self.writer().unavailable(&error))
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
