//! The house's rules, checked: who may import whom, who may name what, and how long a file may be.
//!
//! To change a rule, change its table. A test below plants one violation of each rule and sees it found.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

mod tidy {
    pub mod code;
}

use tidy::code::Code;

/// What each room may import of ours. A room that is not named may import all but what [`ONLY_IN`] keeps to others.
const IMPORTS: &[(&str, &[&str])] = &[
    ("memory", &[]),
    ("model", &[]),
    ("clock", &[]),
    ("address", &[]),
    ("blocking", &[]),
    ("brokers", &["clock"]),
    ("checkpoint", &["model"]),
    ("telemetry", &["model", "clock"]),
    ("collect", &["model", "clock", "telemetry"]),
    ("source", &["model", "clock", "telemetry", "memory", "blocking", "brokers"]),
    ("secret", &["model"]),
    ("sink", &["model", "clock", "telemetry", "address", "blocking", "brokers", "secret"]),
    ("plugin", &["model", "clock", "telemetry", "collect", "sink", "address", "blocking"]),
    ("pipeline", &["model", "clock", "telemetry", "checkpoint", "collect", "source", "sink", "memory"]),
    ("config", &["model", "memory", "telemetry", "admin", "pipeline", "source", "sink", "plugin", "secret"]),
];

/// Every room, so that a path is known to lead into one.
const ROOMS: &[&str] = &[
    "address",
    "admin",
    "blocking",
    "brokers",
    "checkpoint",
    "cli",
    "clock",
    "collect",
    "config",
    "memory",
    "model",
    "pipeline",
    "plugin",
    "secret",
    "sink",
    "source",
    "telemetry",
];

/// Paths that only some files may name: (what it is, the paths' beginnings, where it is allowed).
const ONLY_IN: &[(&str, &[&str], &[&str])] = &[
    ("`wasmtime` is named only under plugin/", &["wasmtime", "wasmtime_wasi", "wasmtime_wasi_http"], &["plugin"]),
    (
        "`rdkafka` is named only where Kafka is talked to",
        &["rdkafka", "rdkafka_sys"],
        &["source/kafka", "source/embedded", "sink/kafka", "pipeline/dlq", "brokers"],
    ),
    ("`sqlx` is named only in the postgres sink", &["sqlx"], &["sink/postgres"]),
    ("`mongodb` is named only in the mongo sink", &["mongodb", "bson"], &["sink/mongo"]),
    ("`reqwest` is named only where HTTP is spoken", &["reqwest"], &["sink/http", "plugin/grants/http"]),
    ("nobody but cli imports config", &["crate::config", "tidegate::config"], &["cli", "config", "main"]),
    ("nobody imports cli", &["crate::cli", "tidegate::cli"], &["cli", "main"]),
    (
        "nobody but cli names concrete sources and sinks; config reads their options",
        &[
            "crate::source::kafka",
            "crate::source::embedded",
            "crate::source::scripted",
            "crate::sink::kafka",
            "crate::sink::postgres",
            "crate::sink::mongo",
            "crate::sink::http",
            "crate::sink::redis",
            "crate::sink::filesystem",
        ],
        &["cli", "config", "source", "sink"],
    ),
    ("time is read only in clock.rs", &["std::time::Instant", "std::time::SystemTime"], &["clock"]),
    ("chance is had only from clock.rs", &["fastrand", "rand", "getrandom"], &["clock"]),
];

/// Paths that a room does without: (the rule, the room, the paths' beginnings).
const NEVER_IN: &[(&str, &str, &[&str])] = &[(
    "checkpoint/ is pure: no tokio, serde, clock or input and output",
    "checkpoint",
    &[
        "tokio",
        "serde",
        "serde_json",
        "schemars",
        "tracing",
        "async_trait",
        "futures_util",
        "std::fs",
        "std::io",
        "std::net",
        "std::process",
        "std::thread",
        "std::time::Instant",
        "std::time::SystemTime",
        "std::env",
    ],
)];

/// Macros that only some files may call. Tests may print.
const MACROS_ONLY_IN: &[(&str, &[&str], &[&str])] =
    &[("only cli/render.rs prints", &["println", "eprintln", "print", "eprint"], &["cli/render"])];

/// Words that nothing may hold, tests included.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore"];

/// Most lines of a file of host/src.
const FILE_LINES: usize = 400;

/// Files that are longer, with their present length. It may only shrink.
const LONG_FILES: &[(&str, usize)] = &[];

/// One breach of a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    file: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.rule)
    }
}

/// Whether `file`, relative to host/src, is `place` or lies below it.
fn lies_in(file: &str, place: &str) -> bool {
    file.strip_suffix(".rs").unwrap_or(file).strip_prefix(place).is_some_and(|rest| {
        // `source/kafka` is meant to cover `source/kafka.rs`, `source/kafka/thread.rs` and `source/kafka_thread.rs`.
        rest.is_empty() || rest.starts_with('/') || (place.contains('/') && rest.starts_with('_'))
    })
}

/// Whether `path` is `beginning` or leads further.
fn begins(path: &str, beginning: &str) -> bool {
    path.strip_prefix(beginning).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Checks one file of host/src; `file` is relative to it.
fn check(file: &str, text: &str) -> Vec<Finding> {
    let code = Code::parse(text);
    let mut findings = Vec::new();
    let mut found = |line, rule: String| findings.push(Finding { file: file.to_owned(), line, rule });
    if Path::new(file).file_name().is_some_and(|name| name == "mod.rs") {
        found(1, "a folder's own file stands beside it, never in it as mod.rs".into());
    }
    let tests_only = file.ends_with("tests.rs") || file.contains("tests/");
    let room = file.split(['/', '.']).next().unwrap_or_default();
    for (line, path) in code.paths(file) {
        if tests_only || code.is_test(line) {
            continue;
        }
        let target = path.strip_prefix("crate::").map(|rest| rest.split("::").next().unwrap_or_default());
        if let (Some(target), Some((_, allowed))) = (target, IMPORTS.iter().find(|(name, _)| *name == room))
            && target != room
            && ROOMS.contains(&target)
            && !allowed.contains(&target)
        {
            found(line, format!("{room} never imports {target} (`{path}`)"));
        }
        for (rule, beginnings, places) in ONLY_IN {
            if beginnings.iter().any(|beginning| begins(&path, beginning))
                && !places.iter().any(|place| lies_in(file, place))
            {
                found(line, format!("{rule} (`{path}`)"));
            }
        }
        for (rule, place, beginnings) in NEVER_IN {
            if lies_in(file, place) && beginnings.iter().any(|beginning| begins(&path, beginning)) {
                found(line, format!("{rule} (`{path}`)"));
            }
        }
    }
    for (line, name) in code.macros() {
        for (rule, macros, places) in MACROS_ONLY_IN {
            let exempt = tests_only || code.is_test(line) || places.iter().any(|place| lies_in(file, place));
            if macros.contains(&name.as_str()) && !exempt {
                found(line, format!("{rule} (`{name}!`)"));
            }
        }
    }
    findings.extend(unfinished(file, &code));
    let lines = text.lines().count();
    match LONG_FILES.iter().find(|(name, _)| *name == file) {
        None if lines > FILE_LINES => findings.push(Finding {
            file: file.to_owned(),
            line: lines,
            rule: format!("a file has at most {FILE_LINES} lines; split it by noun"),
        }),
        Some((_, known)) if lines != *known => findings.push(Finding {
            file: file.to_owned(),
            line: lines,
            rule: format!("`LONG_FILES` says {known} lines; it may shrink, and then says so, but not grow"),
        }),
        _ => {}
    }
    findings
}

fn unfinished(file: &str, code: &Code) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in code.lines() {
        for word in UNFINISHED {
            let whole = |at: usize| !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
            if line.match_indices(word).any(|(at, _)| whole(at)) {
                findings.push(Finding {
                    file: file.to_owned(),
                    line: number,
                    rule: format!("nothing unfinished is kept (`{word}`)"),
                });
            }
        }
    }
    findings
}

/// The Rust files below `folder`, relative to it, with their texts.
fn sources(folder: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap_or_else(|error| panic!("`{}`: {error}", next.display())) {
            let path = entry.unwrap_or_else(|error| panic!("`{}`: {error}", next.display())).path();
            if path.is_dir() {
                // Guests are packages of their own, with their own build directories.
                if !path.ends_with("target") && !path.ends_with("guests") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()));
                all.insert(name, text);
            }
        }
    }
    all
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn report(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("{finding}\n")).collect()
}

/// The house as it stands.
#[test]
fn the_house_is_tidy() {
    let host = sources(&root().join("host/src"));
    assert!(host.contains_key("lib.rs"), "the sources are where this test looks");
    let mut findings: Vec<Finding> = host.iter().flat_map(|(file, text)| check(file, text)).collect();
    for (file, text) in sources(&root().join("tests")) {
        findings.extend(unfinished(&format!("tests/{file}"), &Code::parse(&text)));
    }
    for (file, _) in LONG_FILES {
        assert!(host.contains_key(*file), "`LONG_FILES` names `{file}`, which is gone");
    }
    assert!(findings.is_empty(), "\n{}", report(&findings));
}

/// Every rule goes red on a planted violation, at its line.
#[test]
fn each_rule_finds_what_breaks_it() {
    let long = "\n".repeat(FILE_LINES + 1);
    let cases: &[(&str, &str, usize, &str)] = &[
        ("model/batch.rs", "\nuse crate::clock::Clock;", 2, "model never imports clock"),
        ("checkpoint.rs", "use super::clock::Millis;", 1, "checkpoint never imports clock"),
        ("checkpoint/ledger.rs", "use super::super::source::Read;", 1, "checkpoint never imports source"),
        ("checkpoint/ledger.rs", "fn f() { tokio::spawn(g()); }", 1, "checkpoint/ is pure"),
        ("checkpoint/ledger.rs", "use std::{\n    fmt,\n    io::{self, Read},\n};", 3, "checkpoint/ is pure"),
        ("checkpoint/ledger.rs", "#[derive(serde::Deserialize)]", 1, "checkpoint/ is pure"),
        ("sink/redis.rs", "use crate::{model::Fault, pipeline::Deliver};", 1, "sink never imports pipeline"),
        ("sink.rs", "use crate::plugin::Adapter;", 1, "sink never imports plugin"),
        ("plugin/adapter.rs", "fn f(x: crate::pipeline::options::X) {}", 1, "plugin never imports pipeline"),
        ("pipeline/route.rs", "use crate::sink::kafka::KafkaSink;", 1, "nobody but cli names concrete"),
        ("pipeline.rs", "use crate::plugin;", 1, "pipeline never imports plugin"),
        ("pipeline.rs", "use crate::address;", 1, "pipeline never imports address"),
        ("admin.rs", "use crate::config::Root;", 1, "nobody but cli imports config"),
        ("telemetry.rs", "use crate::cli::render;", 1, "nobody imports cli"),
        ("cli/run.rs", "use wasmtime::Engine;", 1, "`wasmtime` is named only"),
        ("cli/run.rs", "fn f() -> wasmtime_wasi::WasiCtx {}", 1, "`wasmtime` is named only"),
        ("plugins.rs", "use wasmtime::Engine;", 1, "`wasmtime` is named only"),
        ("pipeline.rs", "use rdkafka::Message as _;", 1, "`rdkafka` is named only"),
        ("sink/http.rs", "use sqlx::Row as _;", 1, "`sqlx` is named only"),
        ("pipeline.rs", "use mongodb::Client;", 1, "`mongodb` is named only"),
        ("plugin/grants.rs", "use reqwest::Client;", 1, "`reqwest` is named only"),
        ("source/scripted.rs", "use ::rdkafka::Message;", 1, "`rdkafka` is named only"),
        ("cli/run.rs", "fn f() {\n    println!(\"{x}\");\n}", 2, "only cli/render.rs prints"),
        ("cli/run.rs", "fn f() { std::eprint!(\"x\"); }", 1, "only cli/render.rs prints"),
        ("telemetry.rs", "use std::time::{Duration, Instant};", 1, "time is read only"),
        ("telemetry.rs", "fn f() { std::time::SystemTime::now(); }", 1, "time is read only"),
        ("pipeline.rs", "fn f() { fastrand::f64(); }", 1, "chance is had only"),
        ("pipeline.rs", "fn f() { todo!() }", 1, "nothing unfinished"),
        ("pipeline.rs", "fn f() { unimplemented!() }", 1, "nothing unfinished"),
        ("pipeline.rs", "#[cfg(test)]\nmod tests {\n    #[ignore = \"slow\"]\n}", 3, "nothing unfinished"),
        ("pipeline.rs", "fn f() { dbg!(1); }", 1, "nothing unfinished"),
        ("sink/mod.rs", "", 1, "never in it as mod.rs"),
        ("sink/redis.rs", &long, FILE_LINES + 1, "a file has at most"),
    ];
    for (file, text, line, rule) in cases {
        let findings = check(file, text);
        assert!(
            findings.iter().any(|finding| finding.line == *line && finding.rule.contains(rule)),
            "{file} must break \"{rule}\" at line {line}:\n{text}\n{}",
            report(&findings)
        );
        assert!(report(&findings).contains(&format!("{file}:{line}: ")));
    }
}

/// What only looks like a violation is none.
#[test]
fn what_is_allowed_is_not_found() {
    let cases = [
        ("model.rs", "//! See [`crate::pipeline`].\n/* use tokio; */ use std::time::Duration;"),
        ("checkpoint/ledger.rs", "use super::ledger::Ledger;\nuse crate::model::Offset;\nuse crate::checkpoint::X;"),
        ("checkpoint/ledger.rs", "fn f() { let x = \"tokio::spawn todo!()\"; let y = r#\"serde::\"#; let z = '\"'; }"),
        ("checkpoint/ledger.rs", "fn f<'a>(x: &'a str) {}\n#[cfg(test)]\nmod tests {\n    use fastrand::Rng;\n}"),
        ("plugin.rs", "use wasmtime::Engine;"),
        ("plugin/engine.rs", "use wasmtime::{Engine, component::Linker};\nuse crate::sink::Sink;"),
        ("source/kafka.rs", "use rdkafka::consumer::BaseConsumer;"),
        ("source/kafka/thread.rs", "use rdkafka::consumer::BaseConsumer;"),
        ("pipeline/dlq.rs", "use rdkafka::producer::FutureProducer;"),
        ("pipeline/tests.rs", "use crate::sink::filesystem::FilesystemSink;\nfn f() { fastrand::u8(..); }"),
        ("pipeline.rs", "fn f() { brand::new(); tokio::time::Instant::now(); my_todo!(); x.print(); }"),
        ("cli/render.rs", "fn f() { println!(\"{x}\"); }"),
        ("cli/run.rs", "use crate::config::Root;\nuse crate::sink::kafka::KafkaSink;"),
        ("config.rs", "use crate::sink::kafka::Options;"),
        ("clock.rs", "fn f() { std::time::SystemTime::now(); fastrand::f64(); }"),
        ("sink/redis.rs", &"\n".repeat(FILE_LINES)),
    ];
    for (file, text) in cases {
        assert_eq!(check(file, text), [], "{file}:\n{text}");
    }
}
