//! `${VAR}`, `${VAR:-default}`, `${file:/path}` and `$${` in string values (S121): one pass, after parsing, so that no value
//! of a variable or file can change the structure or be expanded again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::environment::Environment;
use super::tree::{Form, Located, Node, Place, Value};
use crate::model::Fault;

/// Largest file that a value may be read from, in bytes: certificates and keys are far smaller.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// The values that substitution made, and how each was written. A fault shows what was written: the value may be a secret.
#[derive(Debug, Default)]
pub struct Written {
    values: BTreeMap<String, String>,
    /// How options are written of which a file holds a part, by their paths.
    files: BTreeMap<String, String>,
}

impl Written {
    /// The value as a fault may show it.
    pub fn shown<'v>(&'v self, value: &'v str) -> &'v str {
        self.values.get(value).map_or(value, String::as_str)
    }

    /// How options are written of which a file holds a part, by their paths.
    pub fn into_files(self) -> BTreeMap<String, String> {
        self.files
    }
}

/// Substitutes in one text that had its variables and files once before.
///
/// # Errors
/// When a file cannot be read any more; never with what it holds.
pub fn again(text: &str, environment: &Environment, folder: &Path) -> Result<String, Fault> {
    match expand(text, environment, folder) {
        Ok(expanded) => Ok(expanded.map_or_else(|| text.to_owned(), |expanded| expanded.text)),
        Err(Problem::Other(fault)) => Err(fault),
        // The environment is the one that it was.
        Err(Problem::Unset(_) | Problem::Malformed) => Err(Fault::host("its variables cannot be filled in again")),
    }
}

/// Substitutes in every string below `root`. Reports every value that cannot be substituted, never what it holds. Relative
/// paths of files start at the folder of `file`, the configuration file.
pub fn substitute(root: &mut Node, environment: &Environment, file: &str) -> Result<Written, Vec<Fault>> {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    let mut walk = Walk { environment, file, folder, written: Written::default(), faults: Vec::new() };
    walk.node(root, "");
    if walk.faults.is_empty() { Ok(walk.written) } else { Err(walk.faults) }
}

struct Walk<'a> {
    environment: &'a Environment,
    file: &'a str,
    folder: &'a Path,
    written: Written,
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
            // The value of a variable is never expanded again, whichever way it came here.
            Value::Scalar(..) if matches!(node.place, Place::Variable(_)) => {}
            Value::Scalar(text, form) => match expand(text, self.environment, self.folder) {
                Ok(None) => {}
                Ok(Some(expanded)) => {
                    let written = std::mem::replace(text, expanded.text);
                    if expanded.has_file {
                        self.written.files.insert(path.to_owned(), written.clone());
                    }
                    self.written.values.insert(text.clone(), written);
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
    /// A file holds a part of it.
    has_file: bool,
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
                .hint("write `${NAME}`, `${NAME:-default}` or `${file:/path}`, and `$${` for a literal `${`"),
            Self::Other(fault) => Fault { message: format!("`{path}`: {} ({at})", fault.message), ..fault },
        }
    }
}

/// `None` when there is nothing to substitute.
fn expand(text: &str, environment: &Environment, folder: &Path) -> Result<Option<Expanded>, Problem> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let (mut whole, mut has_file) = (false, false);
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$${") {
            out.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let (reference, after) = after.split_once('}').ok_or(Problem::Malformed)?;
            whole = rest.len() == text.len() && after.is_empty();
            out.push_str(&match reference.strip_prefix("file:") {
                Some(path) => {
                    has_file = true;
                    contents(path, &folder.join(path)).map_err(Problem::Other)?
                }
                None => resolve(reference, environment)?,
            });
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Ok(Some(Expanded { text: out, whole, has_file }))
}

/// What a file holds, without the line break at its end, which editors put there.
fn contents(path: &str, file: &Path) -> Result<String, Fault> {
    let unreadable = |error: std::io::Error| {
        Fault::config(format!("the file `{path}` cannot be read"))
            .because(error)
            .hint(format!("create `{}` and let the user that runs Tidegate read it", file.display()))
    };
    let mut text = String::new();
    File::open(file).map_err(unreadable)?.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_SECRET_BYTES {
        return Err(Fault::config(format!("the file `{path}` is larger than {MAX_SECRET_BYTES} bytes")));
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
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
        expand(text, &environment, Path::new(""))
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

    /// C1: what an overriding variable holds is taken as it is, as through `${URL}`.
    #[test]
    fn s121_an_overriding_variable_is_not_expanded() {
        for value in ["p${HOST}w", "p${w", "$${HOST}", "${file:/etc/hostname}", "a$b"] {
            let environment: Environment =
                [("HOST", "db"), ("URL", value), ("TIDEGATE__A__URL", value), ("TIDEGATE__B", value)]
                    .into_iter()
                    .collect();
            let mut root = parse("a: { url: x }\nc: ${URL}\nd: ${HOST}\n", "t.yaml").unwrap();
            environment.override_options(&mut root).unwrap();
            substitute(&mut root, &environment, "t.yaml").unwrap();
            let text = |path: &[&str]| match &root.at(path).unwrap().value {
                Value::Scalar(text, _) => text.clone(),
                other => panic!("{other:?}"),
            };
            assert_eq!([text(&["a", "url"]), text(&["b"]), text(&["c"])], [value; 3]);
            assert_eq!(text(&["d"]), "db");
        }
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

    /// A value from a file is as good as one from a variable; what goes wrong names the file and never what is in it.
    #[test]
    fn s121_secrets_come_from_files() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("password", b"s3cret ${HOST}: [x]\r\n");
        write("binary", b"s3cret\xff");
        write("large", &vec![b'x'; (MAX_SECRET_BYTES + 1) as usize]);
        let file = folder.path().join("t.yaml").display().to_string();
        let absolute = folder.path().join("password").display().to_string();
        let text = format!("a: \"postgresql://u:${{file:password}}@db\"\nb: ${{file:{absolute}}}\n");
        let mut root = parse(&text, &file).unwrap();
        substitute(&mut root, &Environment::default(), &file).unwrap();
        let scalar = |key: &str, form| Value::Scalar(key.to_owned(), form);
        let a = scalar("postgresql://u:s3cret ${HOST}: [x]@db", Form::Quoted);
        assert_eq!(root.get("a").unwrap().value, a);
        assert_eq!(root.get("b").unwrap().value, scalar("s3cret ${HOST}: [x]", Form::Variable));
        for (name, said) in [("none", "cannot be read"), ("binary", "cannot be read"), ("large", "is larger than")] {
            let mut root = parse(&format!("k: {{ p: \"x${{file:{name}}}\" }}\n"), &file).unwrap();
            let fault = substitute(&mut root, &Environment::default(), &file).unwrap_err().remove(0);
            assert!(fault.message.starts_with(&format!("`k.p`: the file `{name}` {said}")), "{fault}");
            assert!(!format!("{fault:?}").contains("s3cret"), "{fault:?}");
        }
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
