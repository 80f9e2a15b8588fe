use serde::Deserialize;

/// What the collector is told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Where results go: `kind`, or `kind/name` when there are several sinks of the kind.
    pub sinks: Vec<Target>,
    /// Matches above which an `http` sink is notified; 0: always.
    pub high_match: usize,
    /// Matches above which a `filesystem` sink logs the result; 0: always.
    pub very_high_match: usize,
    /// The file that a `filesystem` sink appends to, below its `base_path`.
    pub file_path: String,
}

impl Default for Options {
    fn default() -> Self {
        use Kind::{Filesystem, Http, Kafka, Mongo, Postgres, Redis};
        Self {
            sinks: [Kafka, Postgres, Mongo, Redis, Http, Filesystem]
                .map(|kind| Target { kind, name: String::new() })
                .into(),
            high_match: 20,
            very_high_match: 50,
            file_path: "high-match-results.jsonl".into(),
        }
    }
}

/// One entry of [`Options::sinks`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Target {
    pub kind: Kind,
    /// Empty for the only sink of the kind.
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Kafka,
    Postgres,
    Mongo,
    Http,
    Redis,
    Filesystem,
    Plugin,
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (kind, name) = text.split_once('/').unwrap_or((&text, ""));
        let kind = match kind {
            "kafka" => Kind::Kafka,
            "postgres" => Kind::Postgres,
            "mongo" => Kind::Mongo,
            "http" => Kind::Http,
            "redis" => Kind::Redis,
            "filesystem" => Kind::Filesystem,
            "plugin" => Kind::Plugin,
            _ => {
                return Err(format!(
                    "`{text}` in `sinks` names no sink: write kafka, postgres, mongo, http, redis, filesystem or plugin, \
                     with `/name` behind it for one of several"
                ));
            }
        };
        Ok(Self { kind, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_kind_with_or_without_a_name() {
        let target = |text: &str| Target::try_from(text.to_owned());
        assert_eq!(target("kafka"), Ok(Target { kind: Kind::Kafka, name: String::new() }));
        assert_eq!(target("plugin/csv"), Ok(Target { kind: Kind::Plugin, name: "csv".into() }));
        assert!(target("files").is_err_and(|reason| reason.starts_with("`files` in `sinks` names no sink")));
    }
}
