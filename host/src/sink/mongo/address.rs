//! Where the server is, how it is spoken to, and how all that is shown without its secrets.

use std::time::Duration;

use mongodb::bson::Bson;
use mongodb::error::Error;
use mongodb::options::{
    Acknowledgment, ClientOptions, ConnectionString, HostInfo, Tls as DriverTls, TlsOptions, WriteConcern,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{Options, SEARCH_PATIENCE, refusal};
use crate::model::{CallError, Fault};
use crate::sink::tls::Tls;

/// Longest name of a collection together with its database's and the dot between them, in bytes.
const LONGEST_NAMESPACE: usize = 255;
/// Longest name of a database, in bytes.
const LONGEST_DATABASE: usize = 63;

/// A database of a server.
pub(super) struct Address {
    uri: ConnectionString,
    tls: Tls,
    database: String,
    collection: String,
    /// `host:port/database`.
    place: String,
    /// Where the sink stands in the configuration.
    option: String,
    /// What no text may hold.
    secrets: Vec<String>,
}

impl Address {
    pub(super) fn new(option: &str, options: &Options) -> Result<Self, Fault> {
        // The driver's own words may quote the URI.
        let uri = ConnectionString::parse(&options.uri).map_err(|_| {
            Fault::config(format!("`{option}.uri` is not a MongoDB URI"))
                .hint("write `mongodb://user:password@host:27017`, and percent-encode the password")
        })?;
        if uri.write_concern.as_ref().is_some_and(|concern| concern.w == Some(Acknowledgment::Nodes(0))) {
            return Err(Fault::config(format!("`{option}.uri` asks for writes without an answer"))
                .hint("take `w=0` out: without answers nobody knows what arrived"));
        }
        database(&options.database).map_err(|reason| Fault::config(format!("`{option}.database` {reason}")))?;
        files(option, &options.tls)?;
        if options.tls.is_given() && uri.tls == Some(DriverTls::Disabled) {
            return Err(Fault::config(format!("`{option}.tls` is given, but `{option}.uri` turns TLS off"))
                .hint("take `tls=false` out of the URI"));
        }
        let hosts = match &uri.host_info {
            HostInfo::HostIdentifiers(hosts) => hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            HostInfo::DnsRecord(host) => host.clone(),
            _ => "server".into(),
        };
        let mut secrets = Vec::new();
        if let Some(credential) = &uri.credential {
            secrets.extend(credential.password.clone());
            let properties = credential.mechanism_properties.iter().flat_map(|properties| properties.values());
            secrets.extend(properties.filter_map(Bson::as_str).map(str::to_owned));
        }
        secrets.retain(|secret| !secret.is_empty());
        Ok(Self {
            uri,
            tls: options.tls.clone(),
            database: options.database.clone(),
            collection: options.collection.clone(),
            place: format!("{hosts}/{}", options.database),
            option: option.to_owned(),
            secrets,
        })
    }

    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// Whether the collection is the one for rows that name none.
    pub(super) fn is_configured(&self, collection: &str) -> bool {
        self.collection == collection
    }

    /// `host:port/database`.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// What the driver is told; asks the DNS where the URI names a service.
    pub(super) async fn options(&self) -> Result<ClientOptions, CallError> {
        let parsed = ClientOptions::parse(self.uri.clone()).await;
        let mut options =
            parsed.map_err(|error| CallError::Unavailable(self.unavailable("cannot be found", &error)))?;
        options.app_name.get_or_insert_with(|| "tidegate".into());
        options.write_concern.get_or_insert_with(WriteConcern::majority);
        let selection = options.server_selection_timeout.map_or(SEARCH_PATIENCE, |wanted| wanted.min(SEARCH_PATIENCE));
        options.server_selection_timeout = Some(selection);
        if self.tls.is_given() {
            let mut tls = match options.tls.take() {
                Some(DriverTls::Enabled(tls)) => tls,
                _ => TlsOptions::default(),
            };
            tls.ca_file_path = self.tls.ca_file.clone().or(tls.ca_file_path);
            tls.cert_key_file_path = self.tls.certificate_file.clone().or(tls.cert_key_file_path);
            options.tls = Some(DriverTls::Enabled(tls));
        }
        Ok(options)
    }

    /// The text without the login.
    pub(super) fn veiled(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
    }

    pub(super) fn unavailable(&self, what: &str, error: &Error) -> Fault {
        Fault::destination(format!("`{}` {what}", self.place))
            .because(self.veiled(&refusal::words(error)))
            .hint("see that the server runs and has a primary, and that address and login are right")
    }

    pub(super) fn silent(&self, patience: Duration) -> Fault {
        Fault::destination(format!("`{}` does not answer", self.place))
            .because(format!("nothing within {} seconds", patience.as_secs()))
            .hint("see that the server runs and has a primary")
    }

    /// The fault where the driver refuses to start with what the configuration says.
    pub(super) fn unusable(&self, error: &Error) -> Fault {
        Fault::config(format!("`{}` cannot be used as it is", self.option)).because(self.veiled(&refusal::words(error)))
    }
}

/// The driver reads a certificate and its key from one file, and to make that file of two would leave the key on the
/// disk
/// once more.
fn files(place: &str, tls: &Tls) -> Result<(), Fault> {
    let certificates = |option: &str, file| {
        let pem = Tls::read(place, option, file)?;
        if CertificateDer::pem_slice_iter(&pem).flatten().next().is_none() {
            return Err(Fault::config(format!("`{place}.tls.{option}` names a file without a certificate in PEM")));
        }
        Ok(())
    };
    if let Some(file) = &tls.ca_file {
        certificates("ca_file", file)?;
    }
    if let Some((certificate, key)) = tls.identity(place)? {
        if certificate != key {
            return Err(Fault::config(format!("`{place}.tls` names two files for the certificate and its key"))
                .hint("put both into one PEM file, and name it in both options"));
        }
        certificates("certificate_file", certificate)?;
    }
    Ok(())
}

fn database(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".into());
    }
    if name.len() > LONGEST_DATABASE {
        return Err(format!("is longer than {LONGEST_DATABASE} bytes"));
    }
    match name.chars().find(|letter| "/\\. \"$*<>:|?\0".contains(*letter)) {
        Some(letter) => Err(format!("holds {letter:?}, which no database's name may")),
        None => Ok(()),
    }
}

/// Whether a collection of that name can be written to (S110).
pub(super) fn collection(database: &str, name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("neither the payload nor the sink names a collection".into());
    }
    if name.contains(['\0', '$']) {
        return Err(format!("collection {name:?} holds `$` or a NUL character"));
    }
    if name.starts_with("system.") {
        return Err(format!("collection `{name}` is the server's own"));
    }
    if database.len() + 1 + name.len() > LONGEST_NAMESPACE {
        return Err(format!("collection `{name}` is longer than {LONGEST_NAMESPACE} bytes together with its database"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S110: names that the server would read otherwise are refused before it sees them.
    #[test]
    fn names_are_checked_s110() {
        for name in ["a", "a.b", "Größe", "systems", "my system."] {
            assert_eq!(collection("app", name), Ok(()), "{name}");
        }
        for name in ["", "a\0", "a$b", "$cmd", "system.users", &"x".repeat(252)] {
            assert!(collection("app", name).is_err(), "{name:?}");
        }
        assert_eq!(collection("app", &"x".repeat(251)), Ok(()));
        assert_eq!(database("app"), Ok(()));
        for name in ["", "a.b", "a b", "a/b", "a\0", "$a", &"x".repeat(64)] {
            assert!(database(name).is_err(), "{name:?}");
        }
    }
}
