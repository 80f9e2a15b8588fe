//! `${VAR}`, `${VAR:-default}` and `$${` in string values (S121): one pass, after parsing, so that no value of a variable
//! can change the structure or be expanded again.

use super::environment::Environment;
use super::tree::{Form, Located, Node, Place, Value};
use crate::model::Fault;

/// Substitutes in every string below `root`. Reports every value that cannot be substituted, never what it holds.
pub fn substitute(root: &mut Node, environment: &Environment, file: &str) -> Result<(), Vec<Fault>> {
    let mut walk = Walk { environment, file, faults: Vec::new() };
    walk.node(root, "");
    if walk.faults.is_empty() { Ok(()) } else { Err(walk.faults) }
}

struct Walk<'a> {
    environment: &'a Environment,
    file: &'a str,
    faults: Vec<Fault>,
}

impl Walk<'_> {
    fn node(&mut self, node: &mut Node, path: &str) {
        match &mut node.value {
            Value::Null => {}
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.node(item, &format!("{path}[{index}]"));
                }
            }
            Value::Map(entries) => {
                for (key, value) in entries {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    self.node(value, &path);
                }
            }
            Value::Scalar(text, form) => match expand(text, self.environment) {
                Ok(None) => {}
                Ok(Some(expanded)) => {
                    *text = expanded.text;
                    *form = if expanded.whole { Form::Variable } else { Form::Quoted };
                }
                Err(problem) => self.faults.push(problem.fault(path, self.file, &node.place)),
            },
        }
    }
}

/// A text with its variables filled in.
#[derive(Debug, PartialEq, Eq)]
struct Expanded {
    text: String,
    /// The text was one variable and nothing else.
    whole: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    Unset(String),
    Malformed,
    Other(Fault),
}

impl Problem {
    fn fault(self, path: &str, file: &str, place: &Place) -> Fault {
        let at = Located { file, place: Some(place) };
        match self {
            Self::Unset(name) => {
                Fault::config(format!("`{path}` needs the environment variable `{name}`, which is not set ({at})"))
                    .hint(format!("set `{name}`, or give a default with `${{{name}:-default}}`"))
            }
            Self::Malformed => Fault::config(format!("`{path}` has a `${{` that does not begin a variable ({at})"))
                .hint("write `${NAME}` or `${NAME:-default}`, and `$${` for a literal `${`"),
            Self::Other(fault) => Fault { message: format!("`{path}`: {} ({at})", fault.message), ..fault },
        }
    }
}

/// `None` when there is nothing to substitute.
fn expand(text: &str, environment: &Environment) -> Result<Option<Expanded>, Problem> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut whole = false;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$${") {
            out.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let (reference, after) = after.split_once('}').ok_or(Problem::Malformed)?;
            whole = rest.len() == text.len() && after.is_empty();
            out.push_str(&resolve(reference, environment)?);
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Ok(Some(Expanded { text: out, whole }))
}

fn resolve(reference: &str, environment: &Environment) -> Result<String, Problem> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !named {
        return Err(Problem::Malformed);
    }
    let value = environment.get(name).map_err(Problem::Other)?;
    match (value, default) {
        // As in a shell: an empty variable takes the default too.
        (Some(""), Some(default)) | (None, Some(default)) => Ok(default.to_owned()),
        (Some(value), _) => Ok(value.to_owned()),
        (None, None) => Err(Problem::Unset(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::super::tree::parse;
    use super::*;

    fn expanded(text: &str) -> Result<Option<Expanded>, Problem> {
        let environment: Environment =
            [("HOST", "db"), ("EMPTY", ""), ("NESTED", "${HOST}"), ("_X1", "x")].into_iter().collect();
        expand(text, &environment)
    }

    fn text(text: &str) -> String {
        expanded(text).unwrap().unwrap().text
    }

    #[test]
    fn s121_variables_defaults_and_escapes() {
        assert_eq!(text("${HOST}"), "db");
        assert_eq!(text("a ${HOST}:${_X1} b"), "a db:x b");
        assert_eq!(text("${NONE:-fallback}"), "fallback");
        assert_eq!(text("${NONE:-}"), "");
        assert_eq!(text("${EMPTY:-fallback}"), "fallback");
        assert_eq!(text("${EMPTY}"), "");
        assert_eq!(text("${NONE:-a:-b}"), "a:-b");
        assert_eq!(text("$${HOST}"), "${HOST}");
        assert_eq!(text("$$${HOST}"), "$${HOST}");
        assert_eq!(text("$5 ${HOST} $"), "$5 db $");
        assert_eq!(expanded("no $variable here"), Ok(None));
    }

    #[test]
    fn s121_one_pass_only() {
        assert_eq!(text("${NESTED}"), "${HOST}");
        assert_eq!(text("${NONE:-$}{HOST}"), "${HOST}");
    }

    #[test]
    fn s121_unset_and_malformed_are_refused() {
        assert_eq!(expanded("a${NONE}"), Err(Problem::Unset("NONE".into())));
        for malformed in ["${", "${}", "${HOST", "${1A}", "${A B}", "${A-b}", "${:-x}"] {
            assert_eq!(expanded(malformed), Err(Problem::Malformed), "{malformed}");
        }
    }

    #[test]
    fn s121_the_fault_names_key_and_variable_and_no_value() {
        let mut root = parse("a:\n  - x\n  - pre-s3cret-${NONE}\n", "t.yaml").unwrap();
        let faults = substitute(&mut root, &Environment::default(), "t.yaml").unwrap_err();
        assert_eq!(
            faults[0].to_string(),
            "`a[1]` needs the environment variable `NONE`, which is not set (t.yaml:3:5)"
        );
        let unreadable: Environment =
            [("NONE", std::ffi::OsString::from_vec(b"s3cret\xff".to_vec()))].into_iter().collect();
        let mut root = parse("a: ${NONE}\n", "t.yaml").unwrap();
        let faults = substitute(&mut root, &unreadable, "t.yaml").unwrap_err();
        assert_eq!(faults[0].to_string(), "`a`: environment variable `NONE` is not UTF-8 (t.yaml:1:1)");
    }

    fn shape(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".into(),
            Value::Scalar(..) => "scalar".into(),
            Value::List(items) => format!("[{}]", items.iter().map(shape).collect::<Vec<_>>().join(",")),
            Value::Map(entries) => {
                format!(
                    "{{{}}}",
                    entries.iter().map(|(k, v)| format!("{k}={}", shape(v))).collect::<Vec<_>>().join(",")
                )
            }
        }
    }

    proptest! {
        /// S121: whatever a variable holds, the tree keeps its keys and kinds, and the value arrives as it is.
        #[test]
        fn s121_substitution_never_changes_structure(value in "\\PC*|[\\[\\]{}:,&*#!|>'\"%@`\\n \\-]*|\\$\\{V\\}") {
            let environment: Environment = [("V", value.as_str())].into_iter().collect();
            let mut root = parse("a: { b: \"${V}\", c: [1, \"x${V}y\"] }\nd: ${V}\ne:\n", "t.yaml").unwrap();
            let before = shape(&root);
            substitute(&mut root, &environment, "t.yaml").unwrap();
            prop_assert_eq!(shape(&root), before);
            prop_assert_eq!(&root.get("d").unwrap().value, &Value::Scalar(value.clone(), Form::Variable));
            let Value::List(items) = &root.at(&["a", "c"]).unwrap().value else { panic!() };
            prop_assert_eq!(&items[1].value, &Value::Scalar(format!("x{value}y"), Form::Quoted));
        }
    }
}
