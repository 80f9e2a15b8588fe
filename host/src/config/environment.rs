//! What the environment says: overrides of options (S120) and values for `${VAR}` (S121).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

use super::tree::{Form, Node, Place, Value};
use crate::model::Fault;

/// Overrides begin with this; what follows is a path whose parts stand two underscores apart.
pub const PREFIX: &str = "TIDEGATE__";

/// The environment variables at one moment.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// Those of this process. A variable whose name is not UTF-8 cannot be asked for and is left out.
    pub fn current() -> Self {
        Self(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect())
    }

    /// The value, `None` when unset, or a fault when it is not UTF-8. The fault never holds the value.
    pub fn get(&self, name: &str) -> Result<Option<&str>, Fault> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => match value.to_str() {
                Some(value) => Ok(Some(value)),
                None => Err(Fault::config(format!("environment variable `{name}` is not UTF-8"))),
            },
        }
    }

    /// Whether it overrides any option.
    pub fn has_options(&self) -> bool {
        self.0.keys().any(|name| name.starts_with(PREFIX))
    }

    /// Puts every `TIDEGATE__A__B__C` at `a.b.c` of the tree, over what the file says (S120).
    pub fn override_options(&self, root: &mut Node) -> Result<(), Vec<Fault>> {
        let mut faults = Vec::new();
        for name in self.0.keys().filter(|name| name.starts_with(PREFIX)) {
            if let Err(fault) = self.override_option(root, name) {
                faults.push(fault);
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    fn override_option(&self, root: &mut Node, name: &str) -> Result<(), Fault> {
        let path: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_lowercase).collect();
        if path.iter().any(String::is_empty) {
            return Err(Fault::config(format!("environment variable `{name}` names no option"))
                .hint(format!("write `{PREFIX}KAFKA__GROUP` for `kafka.group`")));
        }
        let text = self.get(name)?.unwrap_or_default().to_owned();
        let place = Place::Variable(Arc::from(name));
        let mut node = root;
        for part in path {
            node = entry(node, part, &place);
        }
        *node = Node { place, value: Value::Scalar(text, Form::Plain) };
        Ok(())
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// The entry of that name, made when there is none. A sink whose name has capitals is found although a variable's path
/// is lower-cased. The environment wins: what is no mapping gives way to one.
fn entry<'n>(node: &'n mut Node, name: String, place: &Place) -> &'n mut Node {
    if !matches!(node.value, Value::Map(_)) {
        *node = Node { place: place.clone(), value: Value::Map(Vec::new()) };
    }
    match &mut node.value {
        Value::Map(entries) => {
            let found = entries
                .iter()
                .position(|(key, _)| *key == name)
                .or_else(|| entries.iter().position(|(key, _)| key.eq_ignore_ascii_case(&name)));
            let index = found.unwrap_or_else(|| {
                entries.push((name, Node { place: place.clone(), value: Value::Null }));
                entries.len() - 1
            });
            &mut entries[index].1
        }
        _ => unreachable!("made a mapping above"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::super::tree::parse;
    use super::*;

    fn overridden(text: &str, variables: &[(&str, &str)]) -> Node {
        let mut root = parse(text, "t.yaml").unwrap();
        let environment: Environment = variables.iter().copied().collect();
        environment.override_options(&mut root).unwrap();
        root
    }

    fn text(root: &Node, path: &[&str]) -> String {
        match &root.at(path).unwrap().value {
            Value::Scalar(text, _) => text.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn s120_the_environment_wins_and_merges_deeply() {
        let root = overridden(
            "kafka: { group: a, source_topic: t }\nsinks: { filesystem: { Log: { base_path: /a } } }\n",
            &[
                ("TIDEGATE__KAFKA__GROUP", "b"),
                ("TIDEGATE__WINDOW__MAX_RECORDS", "7"),
                ("TIDEGATE__SINKS__FILESYSTEM__LOG__BASE_PATH", "/b"),
                ("TIDEGATE_CONFIG", "elsewhere.yaml"),
                ("TIDEGATEX", "1"),
            ],
        );
        assert_eq!(text(&root, &["kafka", "group"]), "b");
        assert_eq!(text(&root, &["kafka", "source_topic"]), "t");
        assert_eq!(text(&root, &["window", "max_records"]), "7");
        assert_eq!(text(&root, &["sinks", "filesystem", "Log", "base_path"]), "/b");
        assert_eq!(root.get("config"), None);
        let Value::Map(entries) = &root.value else { panic!() };
        assert_eq!(entries.len(), 3);
    }

    #[test]
    fn s120_a_mapping_replaces_what_stood_there() {
        let root = overridden("dlq:\n", &[("TIDEGATE__DLQ__TOPIC", "letters")]);
        assert_eq!(text(&root, &["dlq", "topic"]), "letters");
        assert_eq!(root.get("dlq").unwrap().place, Place::Variable("TIDEGATE__DLQ__TOPIC".into()));
    }

    #[test]
    fn s120_a_name_without_an_option_is_refused() {
        let mut root = parse("a: 1\n", "t.yaml").unwrap();
        let environment: Environment =
            [("TIDEGATE__", "x"), ("TIDEGATE__KAFKA____GROUP", "secret")].into_iter().collect();
        let faults = environment.override_options(&mut root).unwrap_err();
        assert_eq!(faults.len(), 2);
        assert_eq!(faults[1].to_string(), "environment variable `TIDEGATE__KAFKA____GROUP` names no option");
    }
}
