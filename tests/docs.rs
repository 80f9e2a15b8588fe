//! What the README shows is run, and what it names is there.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

#[path = "outages/matrix.rs"]
#[allow(dead_code, reason = "the tests of the outages use the rest")]
mod matrix;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The fenced blocks of a page in that language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// One space between words; the sizes of components, which change with every build, as a word.
fn comparable(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_size = |at: usize| words.get(at + 1).is_some_and(|unit| ["KiB", "MiB"].contains(unit));
    let sized = (0..words.len()).map(|at| if is_size(at) { "[size]" } else { words[at] });
    sized.collect::<Vec<_>>().join(" ")
}

/// Every command of the README's consoles, in its order and in one folder, says what the page says.
#[test]
fn the_readmes_consoles_are_true() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let yaml = blocks(&readme, "yaml").remove(0);
    fs::write(folder.path().join("tidegate.yaml"), yaml).unwrap();
    assert!(root().join("target/guests/csv.wasm").exists(), "the plugins are not built: run `make setup`");
    fs::create_dir(folder.path().join("target")).unwrap();
    std::os::unix::fs::symlink(root().join("target/guests"), folder.path().join("target/guests")).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut commands = 0;
    for console in blocks(&readme, "console") {
        for example in console.split("$ ").skip(1) {
            let (command, told) = example.split_once('\n').unwrap();
            let output = Command::new("sh")
                .args(["-c", &format!("{{ {command}; }} 2>&1")])
                .current_dir(folder.path())
                .env("PATH", &path)
                .output()
                .unwrap();
            let output = String::from_utf8(output.stdout).unwrap();
            assert_eq!(comparable(&output), comparable(told), "{command} says:\n{output}");
            commands += 1;
        }
    }
    assert!(commands >= 3, "the consoles were not found");
}

/// Every page of ours.
fn pages() -> Vec<PathBuf> {
    fn below(folder: &Path, pages: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, pages);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    let mut pages: Vec<PathBuf> =
        ["README.md", "wit/VERSIONING.md", "CHANGELOG.md", "SECURITY.md"].map(|page| root().join(page)).into();
    below(&root().join("docs"), &mut pages);
    pages.sort();
    pages
}

/// Every configuration that a page shows can be loaded.
#[test]
fn every_configuration_shown_is_sound() {
    let mut shown = 0;
    for page in pages() {
        for yaml in blocks(&fs::read_to_string(&page).unwrap(), "yaml") {
            let variables: BTreeMap<&str, &str> = yaml
                .split("${")
                .skip(1)
                .map(|rest| (rest.split(['}', ':']).next().unwrap(), "postgresql://app@localhost/app"))
                .collect();
            let loaded = tidegate::config::parse(&yaml, "shown.yaml", &variables.into_iter().collect());
            assert!(loaded.is_ok(), "{}: {:?}\n{yaml}", page.display(), loaded.unwrap_err());
            shown += 1;
        }
    }
    assert!(shown >= 8, "the examples were not found");
}

/// What pages say about options and errors is what the code says. `TIDEGATE_DOCS=update cargo test --test docs` writes it anew.
#[test]
fn tables_are_those_of_the_code() {
    let mut tables = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let mut fresh = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find("<!-- ") {
            let (before, marked) = rest.split_at(at);
            let (marker, after) = marked.split_once("-->\n").unwrap();
            let table = match marker.trim_start_matches("<!-- ").trim().split_once(": ") {
                Some(("options", "common")) => option_table(&common_options(), ""),
                Some(("options", kind)) => option_table(&sink_options(kind), ""),
                Some(("errors", file)) => error_table(file),
                Some(("failures", "rows")) => tidegate::pipeline::policy::row_table(),
                Some(("outages", "matrix")) => matrix::table(),
                Some(("failures", "calls")) => tidegate::pipeline::policy::call_table(),
                // Written by the test that holds it, which takes a server.
                Some(("values", _)) => after.split_once("<!-- end -->").unwrap().0.to_owned(),
                other => panic!("{}: {other:?} is no table", page.display()),
            };
            let (_, after) = after.split_once("<!-- end -->").unwrap();
            fresh.push_str(&format!("{before}{marker}-->\n{table}<!-- end -->"));
            rest = after;
            tables += 1;
        }
        fresh.push_str(rest);
        if std::env::var_os("TIDEGATE_DOCS").is_some_and(|wish| wish == "update") {
            fs::write(&page, fresh).unwrap();
        } else {
            assert!(fresh == text, "{} is behind: TIDEGATE_DOCS=update cargo test --test docs", page.display());
        }
    }
    assert!(tables >= 10, "the tables were not found");
}

/// The options that every sink has, and no more.
const COMMON: [&str; 2] = ["on_error", "topics"];

fn sink_schema(kind: &str) -> Value {
    let schema = tidegate::config::schema();
    let reference = &schema["$defs"]["Sinks"]["properties"][kind]["additionalProperties"];
    resolved(&schema, reference)
}

fn sink_options(kind: &str) -> Value {
    let mut schema = sink_schema(kind);
    schema["properties"].as_object_mut().unwrap().retain(|name, _| !COMMON.contains(&name.as_str()));
    schema
}

fn common_options() -> Value {
    let mut schema = sink_schema("kafka");
    schema["properties"].as_object_mut().unwrap().retain(|name, _| COMMON.contains(&name.as_str()));
    schema["required"] = json!([]);
    schema
}

/// What a reference refers to, alone or as the non-null half of an optional value.
fn resolved(schema: &Value, value: &Value) -> Value {
    let halves = value["anyOf"].as_array();
    let reference = value.get("$ref").or_else(|| halves?.iter().find_map(|half| half.get("$ref")));
    match reference.and_then(Value::as_str) {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).unwrap().clone(),
        None => value.clone(),
    }
}

/// One line per option; those of a mapping in it follow with its name in front.
fn option_table(of: &Value, prefix: &str) -> String {
    let schema = tidegate::config::schema();
    let mut table = if prefix.is_empty() {
        "| Option | Default | What it says |\n|---|---|---|\n".to_owned()
    } else {
        String::new()
    };
    for (name, option) in of["properties"].as_object().unwrap() {
        let full = format!("{prefix}{name}");
        let inner = resolved(&schema, option);
        if inner.get("properties").is_some() {
            table.push_str(&option_table(&inner, &format!("{full}.")));
            continue;
        }
        let required = of["required"].as_array().is_some_and(|required| required.contains(&json!(name)));
        let default = match option.get("default").filter(|default| !default.is_null()) {
            _ if required => "required".to_owned(),
            Some(Value::String(text)) if text.is_empty() => String::new(),
            Some(Value::Array(list)) if list.is_empty() => String::new(),
            Some(Value::Object(map)) if map.is_empty() => String::new(),
            Some(Value::String(text)) => format!("`{text}`"),
            Some(default) => format!("`{}`", default.to_string().trim_end_matches(".0")),
            None => String::new(),
        };
        let mut text = option["description"].as_str().unwrap().replace('\n', " ");
        for choice in inner["oneOf"].as_array().into_iter().flatten() {
            let about = choice["description"].as_str().unwrap().replace('\n', " ");
            text.push_str(&format!("<br>`{}`: {about}", choice["const"].as_str().unwrap()));
        }
        table.push_str(&format!("| `{full}` | {default} | {text} |\n"));
    }
    table
}

/// The table in a module's own text.
fn error_table(file: &str) -> String {
    let source = fs::read_to_string(root().join(file)).unwrap();
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let table: String = lines.filter(|line| line.starts_with(" |")).map(|line| format!("{}\n", line.trim())).collect();
    assert!(table.contains("---"), "{file} has no table");
    table
}

/// Every `make` target that a page names is one.
#[test]
fn every_make_target_is_there() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let page = page.display();
        for part in text.split("make ").skip(1) {
            let target: String = part.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            let named = text.contains(&format!("`make {target}`")) || text.contains(&format!("\nmake {target}"));
            assert!(!named || makefile.contains(&format!("\n{target}:")), "{page}: `make {target}`");
        }
    }
}

/// Every link to a file leads to one.
#[test]
fn every_link_to_a_file_leads_there() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for part in text.split("](").skip(1) {
            let link = part.split(')').next().unwrap();
            if !link.contains("://") {
                let file = link.split('#').next().unwrap();
                assert!(page.parent().unwrap().join(file).exists(), "{}: {link}", page.display());
            }
        }
    }
}

/// Every test that a page names as its proof is one.
#[test]
fn every_test_named_as_proof_is_there() {
    let sources: Vec<String> =
        ["tests", "host/src"].iter().flat_map(|folder| rust_files(&root().join(folder))).collect();
    let mut named = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for name in text.split('`').skip(1).step_by(2) {
            let is_proof = name.split('_').count() > 3 && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
            if is_proof && name.bytes().all(|b| !b.is_ascii_uppercase()) {
                // A test of its own, or a row of the list of attacks.
                let known = [format!("fn {name}("), format!("    {name} =")];
                let known = sources.iter().any(|source| known.iter().any(|known| source.contains(known)));
                assert!(known, "{} names `{name}`, which is no test", page.display());
                named += 1;
            }
        }
    }
    assert!(named > 20, "only {named} proofs were found");
}

fn rust_files(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(fs::read_to_string(&path).unwrap());
        }
    }
    files
}
