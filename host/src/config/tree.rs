//! The configuration as a tree of values that know where they were written.

use std::fmt;
use std::sync::Arc;

use saphyr::{MarkedYaml, Scalar, ScalarStyle, YamlData, YamlLoader};
use saphyr_parser::{Marker, Parser};

use crate::model::Fault;

/// Deepest nesting of mappings and lists; the options need seven, the rest is for a plugin's own options.
const MAX_DEPTH: usize = 64;
/// The key under which a mapping takes over the entries of others (`<<: *defaults`).
const MERGE: &str = "<<";
/// How the keys at the top begin that are for anchors only, as in Compose.
const EXTENSION: &str = "x-";

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file: line and column, both from 1.
    File {
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// In an environment variable of that name.
    Variable(Arc<str>),
}

impl Place {
    fn of(marker: Marker) -> Self {
        Self::File { line: marker.line(), column: marker.col() + 1 }
    }
}

/// Names a place for a message, `tidegate.yaml:14:7` or a variable.
pub struct Located<'a> {
    /// The file's name.
    pub file: &'a str,
    /// Where in it, or elsewhere.
    pub place: Option<&'a Place>,
}

impl fmt::Display for Located<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(Place::File { line, column }) => write!(f, "{}:{line}:{column}", self.file),
            Some(Place::Variable(name)) => write!(f, "environment variable `{name}`"),
            None => f.write_str(self.file),
        }
    }
}

/// How a scalar was written, which decides what it can be read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Without quotes: a number, a truth value or a string, whichever the option wants.
    Plain,
    /// In quotes, or put together from variables: a string.
    Quoted,
    /// A single `${VAR}` and nothing else: a string, or a number or truth value where the option wants one. Where the
    /// option takes anything it stays a string, so that a variable never changes the structure (S121).
    Variable,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it begins; of a mapping's value, where its key begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing written.
    Null,
    /// A text that is read as what the option wants.
    Scalar(String, Form),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order written.
    Map(Vec<(String, Node)>),
}

impl Value {
    /// The kind of value, in words for the reader of an error.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
            Self::Scalar(text, Form::Plain) => match Scalar::parse_from_cow(text.as_str().into()) {
                Scalar::Null => "nothing",
                Scalar::Boolean(_) => "true or false",
                Scalar::Integer(_) | Scalar::FloatingPoint(_) => "a number",
                Scalar::String(_) => "a string",
            },
            Self::Scalar(..) => "a string",
        }
    }
}

impl Node {
    /// The entry of that name, if this is a mapping that has it.
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The value at a path of mapping keys.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, name| node.get(name))
    }

    /// Removes the value at a path; `[3]` is an index. False when there is none.
    pub fn remove(&mut self, path: &[String]) -> bool {
        let [name, rest @ ..] = path else { return false };
        let index = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).and_then(|index| index.parse().ok());
        match &mut self.value {
            Value::Map(entries) => match entries.iter().position(|(key, _)| key == name) {
                Some(found) if rest.is_empty() => {
                    entries.remove(found);
                    true
                }
                Some(found) => entries[found].1.remove(rest),
                None => false,
            },
            Value::List(items) => {
                index.and_then(|index: usize| items.get_mut(index)).is_some_and(|item| item.remove(rest))
            }
            _ => false,
        }
    }
}

/// Reads YAML text. `file` is the name that errors give.
pub fn parse(text: &str, file: &str) -> Result<Node, Fault> {
    match read(text, file)? {
        Some(node) => Ok(node),
        None => Err(fault(file, None, "the configuration is empty").hint("start with `kafka:` and `sinks:`")),
    }
}

/// The same, for a text that may be empty: the environment says the rest.
pub fn parse_what_there_is(text: &str, file: &str) -> Result<Node, Fault> {
    let none = || Node { place: Place::File { line: 1, column: 1 }, value: Value::Map(Vec::new()) };
    Ok(read(text, file)?.unwrap_or_else(none))
}

fn read(text: &str, file: &str) -> Result<Option<Node>, Fault> {
    // An editor's byte order mark is no part of the text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut loader = YamlLoader::<MarkedYaml<'_>>::default();
    // Scalars keep their text: `1.10` stays that where an option wants a string.
    loader.early_parse(false);
    let loaded = Parser::new_from_str(text).load(&mut loader, true);
    if let Some(error) = loaded.err().or_else(|| loader.error().cloned()) {
        return Err(syntax(text, file, &error));
    }
    let mut documents = loader.into_documents();
    let root = documents.pop();
    if let Some(second) = root.as_ref().filter(|_| !documents.is_empty()) {
        let place = Place::of(second.span.start);
        return Err(fault(file, Some(&place), "the configuration must be a single YAML document"));
    }
    let node = root.map(|root| convert(&root, Place::of(root.span.start), file, 0)).transpose()?;
    match node {
        Some(Node { place, value: Value::Map(mut entries) }) => {
            entries.retain(|(name, _)| !name.starts_with(EXTENSION));
            Ok(Some(Node { place, value: Value::Map(entries) }))
        }
        Some(Node { place, value }) if value != Value::Null => {
            let kind = value.kind();
            Err(fault(file, Some(&place), &format!("the configuration must be a mapping of options, found {kind}")))
        }
        _ => Ok(None),
    }
}

fn fault(file: &str, place: Option<&Place>, message: &str) -> Fault {
    Fault::config(format!("{message} ({})", Located { file, place }))
}

fn syntax(text: &str, file: &str, error: &saphyr::ScanError) -> Fault {
    let marker = *error.marker();
    let place = Place::of(marker);
    if error.info() == "duplicated key in mapping" {
        let key: String = text
            .chars()
            .skip(marker.index())
            .take_while(|c| !matches!(c, ':' | '\n'))
            .filter(|c| !matches!(c, '"' | '\''))
            .collect();
        return duplicate(file, &place, key.trim());
    }
    fault(file, Some(&place), "the configuration is not valid YAML")
        .because(error.info())
        .hint("look for a bracket, a quote or an indentation that is off, there or just before")
}

fn duplicate(file: &str, place: &Place, key: &str) -> Fault {
    fault(file, Some(place), &format!("`{key}` is given twice")).hint("keep one of the two")
}

fn convert(yaml: &MarkedYaml<'_>, place: Place, file: &str, depth: usize) -> Result<Node, Fault> {
    if depth > MAX_DEPTH {
        return Err(fault(file, Some(&place), &format!("values are nested more than {MAX_DEPTH} deep")));
    }
    let value = match &yaml.data {
        YamlData::Representation(text, style, tag) => {
            match Scalar::parse_from_cow_and_metadata(text.clone(), *style, tag.as_ref()) {
                Some(Scalar::Null) => Value::Null,
                Some(Scalar::String(text)) if *style != ScalarStyle::Plain || tag.is_some() => {
                    Value::Scalar(text.into_owned(), Form::Quoted)
                }
                Some(_) => Value::Scalar(text.to_string(), Form::Plain),
                None => return Err(fault(file, Some(&place), "the value is not what its YAML tag says")),
            }
        }
        YamlData::Sequence(items) => Value::List(
            items
                .iter()
                .map(|item| convert(item, Place::of(item.span.start), file, depth + 1))
                .collect::<Result<_, _>>()?,
        ),
        YamlData::Mapping(entries) => Value::Map(mapping(entries.iter(), file, depth)?),
        YamlData::Tagged(_, inner) => convert(inner, place.clone(), file, depth + 1)?.value,
        YamlData::Alias(_) | YamlData::BadValue => Value::Null,
        YamlData::Value(_) => return Err(fault(file, Some(&place), "the value cannot be read")),
    };
    Ok(Node { place, value })
}

/// A mapping's entries; those of a merge key come last, and only those that the mapping itself does not have.
fn mapping<'y>(
    entries: impl Iterator<Item = (&'y MarkedYaml<'y>, &'y MarkedYaml<'y>)>,
    file: &str,
    depth: usize,
) -> Result<Vec<(String, Node)>, Fault> {
    let mut own: Vec<(String, Node)> = Vec::new();
    let mut merged = Vec::new();
    for (key, value) in entries {
        let place = Place::of(key.span.start);
        let YamlData::Representation(name, style, _) = &key.data else {
            return Err(fault(file, Some(&place), "a key must be a plain name"));
        };
        // The loader tells `a` from `"a"`; as an option's name they are the same.
        if own.iter().any(|(known, _)| known == name) {
            return Err(duplicate(file, &place, name));
        }
        let is_merge = name == MERGE && *style == ScalarStyle::Plain;
        let value = convert(value, place.clone(), file, depth + 1)?;
        if !is_merge {
            own.push((name.to_string(), value));
            continue;
        }
        // Of several mappings the first that has a key gives it.
        let several = match value.value {
            Value::List(items) => items,
            _ => vec![value],
        };
        for one in several {
            let Value::Map(entries) = one.value else {
                let found = one.value.kind();
                let message = format!("`{MERGE}` takes a mapping, or a list of them, found {found}");
                return Err(fault(file, Some(&place), &message).hint("write `<<: *name` for a mapping marked `&name`"));
            };
            merged.extend(entries);
        }
    }
    for (name, node) in merged {
        if !own.iter().any(|(known, _)| *known == name) {
            own.push((name, node));
        }
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn error(text: &str) -> String {
        parse(text, "t.yaml").unwrap_err().to_string()
    }

    /// S122: an error names line and column.
    #[test]
    fn values_know_where_their_keys_were_written() {
        let root = parse("kafka:\n  group: g\nsinks: { filesystem: { log: {} } }\n", "t.yaml").unwrap();
        assert_eq!(root.at(&["kafka", "group"]).unwrap().place, Place::File { line: 2, column: 3 });
        assert_eq!(root.at(&["sinks", "filesystem", "log"]).unwrap().place, Place::File { line: 3, column: 24 });
    }

    #[test]
    fn scalars_keep_their_text() {
        let root = parse("a: 1.10\nb: '7'\nc: ~\nd: no\ne: !!str 5\n", "t.yaml").unwrap();
        let value = |name: &str| root.get(name).unwrap().value.clone();
        assert_eq!(value("a"), Value::Scalar("1.10".into(), Form::Plain));
        assert_eq!(value("b"), Value::Scalar("7".into(), Form::Quoted));
        assert_eq!(value("c"), Value::Null);
        assert_eq!(value("d"), Value::Scalar("no".into(), Form::Plain));
        assert_eq!(value("e"), Value::Scalar("5".into(), Form::Quoted));
    }

    #[test]
    fn an_alias_stands_where_it_is_used() {
        let root = parse("a: &x { n: 1 }\nb: *x\n", "t.yaml").unwrap();
        assert_eq!(root.at(&["b", "n"]).unwrap().value, Value::Scalar("1".into(), Form::Plain));
    }

    /// C2: `<<` takes over what the mapping itself does not say, and what is there for anchors only is no option.
    #[test]
    fn merge_keys_and_extensions_are_read_as_compose_does() {
        let text = "x-defaults: &defaults\n  a: 1\n  n: { x: 1, y: 2 }\nx-more: &more { a: 2, b: 3 }\n\
                    one:\n  <<: *defaults\n  a: 7\ntwo:\n  c: 4\n  <<: [*more, *defaults]\n\
                    three: { <<: { d: 5 }, n: { x: 9 } }\nfour: { \"<<\": 1 }\n";
        let root = parse(text, "t.yaml").unwrap();
        let text = |path: &[&str]| match root.at(path).map(|node| &node.value) {
            Some(Value::Scalar(text, _)) => text.clone(),
            other => format!("{other:?}"),
        };
        let Value::Map(entries) = &root.value else { panic!() };
        assert_eq!(entries.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["one", "two", "three", "four"]);
        assert_eq!([text(&["one", "a"]), text(&["one", "n", "y"])], ["7", "2"]);
        assert_eq!(
            [text(&["two", "a"]), text(&["two", "b"]), text(&["two", "c"]), text(&["two", "n", "x"])],
            ["2", "3", "4", "1"]
        );
        assert_eq!([text(&["three", "d"]), text(&["three", "n", "x"]), text(&["four", "<<"])], ["5", "9", "1"]);
        // A value that was taken over is found where it was written.
        assert_eq!(root.at(&["one", "n"]).unwrap().place, Place::File { line: 3, column: 3 });
        assert_eq!(
            error("a: &a [1]\nb: { <<: *a }\n"),
            "`<<` takes a mapping, or a list of them, found a number (t.yaml:2:6)"
        );
        assert!(error("a: { <<: 1 }\n").contains("found a number"));
        assert!(error("a: { <<: {}, <<: {} }\n").contains("twice"));
    }

    /// C2: what editors on other systems write.
    #[test]
    fn line_ends_and_a_byte_order_mark_change_nothing() {
        let plain = "a: &x\n  s: one\n  t: |\n    two\n    three\nb:\n  <<: *x\n  # no more\n  u: 'four'\n";
        let wanted = parse(plain, "t.yaml").unwrap();
        for text in [
            plain.replace('\n', "\r\n"),
            format!("\u{feff}{plain}"),
            format!("\u{feff}{}", plain.replace('\n', "\r\n")),
        ] {
            assert_eq!(parse(&text, "t.yaml").unwrap(), wanted, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused_by_name() {
        assert_eq!(error("a: 1\nb: 2\na: 3\n"), "`a` is given twice (t.yaml:3:1)");
        assert_eq!(error("a: 1\n\"a\": 3\n"), "`a` is given twice (t.yaml:2:1)");
        assert_eq!(error(""), "the configuration is empty (t.yaml)");
        assert_eq!(error("# only a comment\n"), "the configuration is empty (t.yaml)");
        assert_eq!(error("- a\n"), "the configuration must be a mapping of options, found a list (t.yaml:1:1)");
        assert_eq!(error("a: 1\n---\nb: 2\n"), "the configuration must be a single YAML document (t.yaml:3:1)");
        assert!(error("a: [1\nb: 2\n").starts_with("the configuration is not valid YAML (t.yaml:"));
        assert!(error(&format!("a: {}1{}", "[".repeat(70), "]".repeat(70))).contains("nested more than 64 deep"));
    }
}
