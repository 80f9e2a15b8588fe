//! What a plugin may reach: nothing, and then what its configuration names (S129).

use std::path::Path;
use std::sync::Arc;

use wasmtime_wasi::{FsPerms, WasiCtx};

use super::report::{Channel, Output};
use super::{Access, Grants};
use crate::model::Fault;
use crate::sink::Queries;

pub(crate) mod files;
pub(crate) mod http;
pub(crate) mod sockets;
pub(crate) mod words;

/// The WASI context of one instance: clocks and randomness always, directories and variables as granted, sockets never.
pub(crate) fn context(grants: &Grants, place: &str, base: &Path, output: &Arc<Output>) -> Result<WasiCtx, Fault> {
    let mut wasi = WasiCtx::builder();
    wasi.stdout(output.stream(Channel::Out)).stderr(output.stream(Channel::Error));
    wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
    let refused = Arc::clone(output);
    wasi.socket_addr_check(move |address, _| {
        refused.refused(&format!("a socket to `{address}`; no plugin gets sockets"));
        Box::pin(std::future::ready(false))
    });
    for (number, directory) in grants.directories.iter().enumerate() {
        let key = format!("{place}.grants.directories[{number}]");
        if directory.guest.is_empty() {
            return Err(Fault::config(format!("`{key}.guest` is empty"))
                .hint("give the name under which the plugin sees the directory, such as `/out`"));
        }
        let host = base.join(&directory.host);
        let shown = host.display();
        let kind = std::fs::metadata(&host).map_err(|error| {
            Fault::config(format!("`{key}.host` names `{shown}`, which cannot be opened"))
                .because(error)
                .hint(format!("create it: mkdir -p {shown}"))
        })?;
        if !kind.is_dir() {
            return Err(Fault::config(format!("`{key}.host` names `{shown}`, which is no directory")));
        }
        let permissions = match directory.access {
            Access::Read => FsPerms::ReadOnly,
            Access::Write => FsPerms::ReadWrite,
        };
        wasi.preopened_dir(&host, &directory.guest, permissions).map_err(|error| {
            Fault::config(format!("`{key}.host` names `{shown}`, which cannot be opened")).because(format!("{error:#}"))
        })?;
    }
    for name in &grants.environment {
        let key = format!("{place}.grants.environment");
        let value = std::env::var(name).map_err(|error| match error {
            std::env::VarError::NotPresent => Fault::config(format!("`{key}` names `{name}`, which is not set"))
                .hint(format!("set `{name}`, or take it out of `{key}`")),
            std::env::VarError::NotUnicode(_) => Fault::config(format!("`{key}` names `{name}`, which is not UTF-8")),
        })?;
        wasi.env(name, &value);
    }
    Ok(wasi.build())
}

/// The sinks that the plugin may ask.
pub(crate) fn queries(grants: &Grants, place: &str, known: &Queries) -> Result<Queries, Fault> {
    let granted = grants.postgres.iter().map(|name| match known.get(name) {
        Some(query) => Ok((name.clone(), Arc::clone(query))),
        None => Err(Fault::config(format!("`{place}.grants.postgres` names `{name}`, which is no sink"))
            .hint(format!("add `sinks.postgres.{name}`, or take it out of `{place}.grants.postgres`"))),
    });
    granted.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::plugin::report::Quota;
    use crate::plugin::{Directory, Limits};

    fn fault(grants: &Grants) -> Fault {
        context(
            grants,
            "collect",
            Path::new("/"),
            &Output::new("collect".into(), Quota::new(&Arc::default(), &Limits::default())),
        )
        .err()
        .unwrap()
    }

    fn directory(host: &Path) -> Grants {
        let directories = vec![Directory { host: host.into(), guest: "/out".into(), access: Access::Write }];
        Grants { directories, ..Grants::default() }
    }

    #[test]
    fn a_directory_must_be_there_and_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let missing = fault(&directory(&folder.path().join("gone")));
        assert!(missing.message.starts_with("`collect.grants.directories[0].host` names"), "{missing}");
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(fault(&directory(&file)).message.ends_with("which is no directory"));
    }

    #[test]
    fn an_unset_variable_is_named() {
        let grants = Grants { environment: vec!["TIDEGATE_NEVER_SET".into()], ..Grants::default() };
        let fault = fault(&grants);
        assert_eq!(fault.message, "`collect.grants.environment` names `TIDEGATE_NEVER_SET`, which is not set");
    }
}
