//! The options of which files hold a part, so that they can be read again (S121).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::environment::Environment;
use super::substitute;
use crate::model::Fault;
use crate::secret::Secret;

/// How the options are written that name files, by their paths, such as `sinks.postgres.main.dsn`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    written: BTreeMap<String, String>,
    environment: Arc<Environment>,
    folder: PathBuf,
}

impl Secrets {
    pub(super) fn new(written: BTreeMap<String, String>, environment: &Environment, folder: PathBuf) -> Self {
        // Most configurations have none, and need no copy of the environment.
        let environment = if written.is_empty() { Arc::default() } else { Arc::new(environment.clone()) };
        Self { written, environment, folder }
    }

    /// The option at `path`, when a file holds a part of it.
    pub fn get(&self, path: &str) -> Option<Secret> {
        let written = self.written.get(path)?.clone();
        let (path, environment, folder) = (path.to_owned(), Arc::clone(&self.environment), self.folder.clone());
        Some(Secret::new(move || {
            substitute::again(&written, &environment, &folder)
                .map_err(|fault| Fault { message: format!("`{path}`: {}", fault.message), ..fault })
        }))
    }
}

impl fmt::Debug for Secrets {
    /// Without the environment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("options", &self.written.keys()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::super::load;
    use super::*;

    /// S121: what a file holds is read again on demand, with the variables beside it, and a fault does not tell it.
    #[tokio::test]
    async fn s121_a_secret_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.yaml");
        let password = folder.path().join("password");
        std::fs::write(&password, "first\n").unwrap();
        let text = "kafka: { source_topic: orders, group: g }\nsinks:\n  postgres:\n    main: { table: t, dsn: \
            \"postgresql://${WHO}:${file:password}@db/app\" }\n";
        std::fs::write(&file, text).unwrap();
        let environment: Environment = [("WHO", "app")].into_iter().collect();
        let loaded = load(&file, &environment).unwrap();
        assert_eq!(loaded.config.sinks.postgres["main"].options.dsn, "postgresql://app:first@db/app");
        assert!(loaded.secrets.get("sinks.postgres.main.table").is_none());
        let secret = loaded.secrets.get("sinks.postgres.main.dsn").unwrap();
        std::fs::write(&password, "second\n").unwrap();
        assert_eq!(secret.read().await.unwrap(), "postgresql://app:second@db/app");
        std::fs::remove_file(&password).unwrap();
        let fault = secret.read().await.unwrap_err();
        assert!(fault.message.starts_with("`sinks.postgres.main.dsn`: the file `password` cannot be read"), "{fault}");
        let shown = format!("{loaded:?} {secret:?}").replace("postgresql://app:first@db/app", "");
        assert!(!shown.contains("first") && !shown.contains("WHO"), "{shown}");
    }
}
