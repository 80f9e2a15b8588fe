//! Where the database is: read from the DSN without ever repeating it (S85).

use std::str::FromStr as _;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::Options;
use crate::model::Fault;
use crate::sink::tls::{self, Tls};

/// What a server sees of us unless the DSN says otherwise.
const APPLICATION: &str = "tidegate";

/// Parameters that a DSN may have behind its `?`.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// A database's address, with all that logging in takes.
pub(super) struct Address {
    /// As it was read, to tell whether it changed.
    pub(super) dsn: String,
    pub(super) connect: PgConnectOptions,
    /// `host:port/database`.
    pub(super) shown: String,
}

impl Address {
    /// Reads the DSN and the TLS files. `place` is where the sink stands in the configuration.
    ///
    /// # Errors
    /// When one of them cannot be right; never with the DSN in it.
    pub(super) fn new(place: &str, options: &Options) -> Result<Self, Fault> {
        let wrong = |why: String| {
            Fault::config(format!("`{place}.dsn` {why}"))
                .hint("write it as `postgresql://user:password@host:5432/database`, with `%40` for an `@` in a password, `%2F` for `/`, `%3F` for `?` and `%23` for `#`")
        };
        let dsn = options.dsn.as_str();
        let rest = dsn
            .strip_prefix("postgresql://")
            .or_else(|| dsn.strip_prefix("postgres://"))
            .ok_or_else(|| wrong("does not begin with `postgresql://`".into()))?;
        // What is behind the host must not be a part of the password that was taken for it.
        let behind = rest.find(['/', '?', '#']).and_then(|at| rest.get(at..)).unwrap_or_default();
        if behind.contains(['@', '#']) {
            return Err(wrong("has an `@` or `#` behind its host".into()));
        }
        let query = behind.split_once('?').map_or("", |(_, query)| query);
        let names = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split('=').next().unwrap_or(pair));
        for (number, name) in (1_u32..).zip(names) {
            if !PARAMETERS.contains(&name) && !name.starts_with("options[") && !name.starts_with("options%5B") {
                // Not by its name, which may be what stands behind a `?` in a password.
                return Err(wrong(format!("has a parameter that is not known, number {number} behind its `?`")));
            }
        }
        tls::provide();
        // The parser's own words may repeat what it could not read.
        let connect = PgConnectOptions::from_str(dsn).map_err(|_| wrong("cannot be read".into()))?;
        // The parser leaves the brackets of an IPv6 address where they are.
        let bare = connect.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']')).map(str::to_owned);
        let connect = bare.map_or(connect.clone(), |host| connect.host(&host));
        // Poolers refuse parameters of the session that they do not know. No float is ever read here.
        let connect = connect.extra_float_digits(None);
        let connect = with_tls(place, &options.tls, connect)?.disable_statement_logging();
        let connect = match connect.get_application_name() {
            Some(_) => connect,
            None => connect.application_name(APPLICATION),
        };
        let database = connect.get_database().map(|database| format!("/{database}")).unwrap_or_default();
        let shown = match connect.get_socket() {
            Some(socket) => format!("{}:{}{database}", socket.display(), connect.get_port()),
            None if connect.get_host().contains(':') => {
                format!("[{}]:{}{database}", connect.get_host(), connect.get_port())
            }
            None => format!("{}:{}{database}", connect.get_host(), connect.get_port()),
        };
        Ok(Self { dsn: dsn.to_owned(), connect, shown })
    }

    pub(super) fn user(&self) -> &str {
        self.connect.get_username()
    }
}

fn with_tls(place: &str, tls: &Tls, mut connect: PgConnectOptions) -> Result<PgConnectOptions, Fault> {
    let identity = tls.identity(place)?;
    if tls.is_given() {
        connect = connect.ssl_mode(PgSslMode::VerifyFull);
    }
    if let Some(file) = &tls.ca_file {
        connect = connect.ssl_root_cert_from_pem(Tls::read(place, "ca_file", file)?);
    }
    if let Some((certificate, key)) = identity {
        connect = connect
            .ssl_client_cert_from_pem(Tls::read(place, "certificate_file", certificate)?)
            .ssl_client_key_from_pem(Tls::read(place, "key_file", key)?);
    }
    Ok(connect)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn address(dsn: &str) -> Result<Address, Fault> {
        let options = Options { dsn: dsn.into(), ..Options::default() };
        Address::new("sinks.postgres.main", &options)
    }

    #[test]
    fn s85_an_address_shows_no_user_and_no_password() {
        let address = address("postgresql://someone:s3cret@db:5433/app?sslmode=require").unwrap();
        assert_eq!(address.shown, "db:5433/app");
    }

    #[test]
    fn ipv6_addresses_stand_in_brackets_and_are_used_without() {
        for (dsn, host, shown) in [
            ("postgresql://a:b@[::1]:5433/app", "::1", "[::1]:5433/app"),
            ("postgresql://a:b@db/app?hostaddr=2001:db8::2", "2001:db8::2", "[2001:db8::2]:5432/app"),
            ("postgresql://a:b@127.0.0.1/app", "127.0.0.1", "127.0.0.1:5432/app"),
        ] {
            let address = address(dsn).unwrap();
            assert_eq!((address.connect.get_host(), address.shown.as_str()), (host, shown));
        }
        let socket = address("postgresql://a:b@%2Frun%2Fpostgresql/app").unwrap();
        assert_eq!(socket.shown, "/run/postgresql:5432/app");
    }

    #[test]
    fn s85_a_wrong_dsn_is_not_repeated() {
        let wrong = [
            "someone:s3cret@db/app",
            "mysql://someone:s3cret@db/app",
            "postgresql://someone:s3c/ret@db/app",
            "postgresql://someone:12/s3cret@db/app",
            "postgresql://someone:12#s3cret@db/app",
            "postgresql://someone:s3cret@db:notaport/app",
            "postgresql://someone:s3cret@db/app?sslmode=s3cret",
            "postgresql://someone@db/app?pasword=s3cret",
            "postgresql://someone:12?s3cret=x",
            "postgresql://db/app?sslmode=require&s3cret",
            "host=db password=s3cret",
            "",
        ];
        for dsn in wrong {
            let fault = address(dsn).err().unwrap();
            let told = format!("{fault} {:?}", fault.hint);
            assert!(fault.message.starts_with("`sinks.postgres.main.dsn` "), "{told}");
            assert!(!told.contains("s3c") && !told.contains("someone"), "{told}");
        }
    }

    #[test]
    fn a_certificate_needs_its_key_and_files_are_named() {
        let tls = |tls| Options { dsn: "postgresql://db/app".into(), tls, ..Options::default() };
        let of = |options| Address::new("sinks.postgres.main", &options).err().unwrap().message;
        let alone = Tls { certificate_file: Some("c.pem".into()), ..Tls::default() };
        assert_eq!(of(tls(alone)), "`sinks.postgres.main.tls.key_file` is missing");
        let gone = Tls { ca_file: Some("/nowhere/ca.pem".into()), ..Tls::default() };
        assert!(of(tls(gone)).contains("`/nowhere/ca.pem`"));
    }
}
