//! Components made of a few lines of WebAssembly text: the contract's exports, each doing nothing well, with a hostile body put into one.
//!
//! Every function answers what stands at [`FINE`]: zeros, which is success and nothing to say in every answer of the contract. A body
//! runs in `collect`, `add` and `deliver` when the first value begins with `!`; that also arms the instance, as options do that are not
//! `{}`, and the bodies of all other functions run when it is armed. So a fresh instance is harmless until it is asked again.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Where 64 zeros stand.
pub(crate) const FINE: u32 = 1024;
/// Where what the host hands over is put.
const HEAP: u32 = 2 << 16;

const CONTRACT: &str = include_str!("../../wit/plugin.wit");
/// As much of WASI 0.2 as the guests use.
const WASI: [&str; 4] = [
    "package wasi:io@0.2.0;
     interface error { resource error; }
     interface poll { resource pollable { ready: func() -> bool; block: func(); } poll: func(in: list<borrow<pollable>>) -> list<u32>; }
     interface streams {
       use error.{error};
       use poll.{pollable};
       variant stream-error { last-operation-failed(error), closed }
       resource output-stream {
         check-write: func() -> result<u64, stream-error>;
         write: func(contents: list<u8>) -> result<_, stream-error>;
         blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
         subscribe: func() -> pollable;
       }
     }",
    "package wasi:clocks@0.2.0;
     interface monotonic-clock { use wasi:io/poll@0.2.0.{pollable}; now: func() -> u64; subscribe-duration: func(when: u64) -> pollable; }",
    "package wasi:cli@0.2.0;
     interface stdout { use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; }
     interface stderr { use wasi:io/streams@0.2.0.{output-stream}; get-stderr: func() -> output-stream; }
     interface exit { exit: func(status: result); }",
    "package wasi:random@0.2.0;
     interface random { get-random-u64: func() -> u64; get-random-bytes: func(len: u64) -> list<u8>; }",
];

const BATCH: &str = "(param $batch i32) (result i32)";
const SOURCE: &str = "(param $topic i32) (param $topic_len i32) (param $partition i32)";
const SETUP: &str = "(param $name i32) (param $name_len i32) (param $slot i32) (param $slots i32) (param $options i32) \
                     (param $options_len i32) (result i32)";

/// (interface, function, its core type), for a sink, and for a collector with every hook.
const SINK: [(&str, &str, &str); 7] = [
    ("sink", "setup", SETUP),
    ("sink", "connect", "(result i32)"),
    ("sink", "add", BATCH),
    ("sink", "flush", SOURCE),
    ("sink", "deliver", BATCH),
    ("sink", "discard", SOURCE),
    ("sink", "close", "(result i32)"),
];
const COLLECTOR: [(&str, &str, &str); 5] = [
    ("collector", "setup", SETUP),
    ("collector", "collect", BATCH),
    (
        "window-hook",
        "on-window-complete",
        "(param i32 i32) (param $partition i32) (param $first i64) (param $last i64) (param $records i32) (result i32)",
    ),
    (
        "delivery-hook",
        "on-delivery-error",
        "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)",
    ),
    ("ready-hook", "on-ready", "(result i32)"),
];

/// A component in the making.
pub(crate) struct Wat {
    functions: &'static [(&'static str, &'static str, &'static str)],
    bodies: BTreeMap<&'static str, String>,
    imports: String,
    interfaces: String,
    package: String,
    memory: String,
    extra: String,
}

impl Wat {
    /// A sink.
    pub(crate) fn sink() -> Self {
        Self::of(&SINK)
    }

    /// A collector with every hook.
    pub(crate) fn collector() -> Self {
        Self::of(&COLLECTOR)
    }

    fn of(functions: &'static [(&'static str, &'static str, &'static str)]) -> Self {
        let empty = String::new;
        let (imports, interfaces, package, extra) = (empty(), empty(), empty(), empty());
        Self { functions, bodies: BTreeMap::new(), imports, interfaces, package, memory: "3".into(), extra }
    }

    /// What the function does when it is asked to: instructions that see its parameters, and may `return` the address of an answer.
    /// `realloc` is asked by more than 64 KiB (`$size`), `post` is the function that cleans up after `collect`, `add` and `deliver`.
    pub(crate) fn on(mut self, function: &'static str, body: impl Into<String>) -> Self {
        let known =
            ["realloc", "post"].contains(&function) || self.functions.iter().any(|(_, name, _)| *name == function);
        assert!(known, "`{function}` is no function of it");
        self.bodies.insert(function, body.into());
        self
    }

    /// Imports a function as `$name`; `of_type` is its core type.
    pub(crate) fn import(mut self, interface: &str, function: &str, name: &str, of_type: &str) -> Self {
        self = self.import_only(interface, function, name, of_type);
        let line = format!("import {interface};\n");
        if !self.interfaces.contains(&line) {
            self.interfaces.push_str(&line);
        }
        self
    }

    /// Imports what is no interface: a function that the component model itself offers.
    pub(crate) fn import_only(mut self, module: &str, function: &str, name: &str, of_type: &str) -> Self {
        let _ = writeln!(self.imports, r#"(import "{module}" "{function}" (func ${name} {of_type}))"#);
        self
    }

    /// More of the guest's own package, and more of its world.
    pub(crate) fn package(mut self, interfaces: &str, world: &str) -> Self {
        self.package.push_str(interfaces);
        self.interfaces.push_str(world);
        self
    }

    /// The limits of its memory: pages at first, and at most.
    pub(crate) fn memory(mut self, pages: impl Into<String>) -> Self {
        self.memory = pages.into();
        self
    }

    /// More fields of the module.
    pub(crate) fn with(mut self, fields: impl AsRef<str>) -> Self {
        self.extra.push_str(fields.as_ref());
        self.extra.push('\n');
        self
    }

    /// The core module's text.
    pub(crate) fn module(&self) -> String {
        let Self { imports, memory, extra, .. } = self;
        let body = |function: &str| self.bodies.get(function).map_or("", String::as_str);
        let mut text = format!(
            r#"(module
            {imports}
            (memory (export "memory") {memory})
            (global $armed (mut i32) (i32.const 0))
            (global $next (mut i32) (i32.const {HEAP}))
            (func $asked (param $batch i32) (result i32)
              (if (i32.eqz (i32.load offset=56 (local.get $batch))) (then (return (i32.const 0))))
              (i32.eq (i32.load8_u (i32.load offset=52 (local.get $batch))) (i32.const 33)))
            (func $realloc (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
              (local $at i32)
              (if (i32.ge_u (local.get $size) (i32.const 65536)) (then {}))
              (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
              (global.set $next (i32.add (local.get $at) (local.get $size)))
              (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
                (then (drop (memory.grow (i32.add (i32.div_u (local.get $size) (i32.const 65536)) (i32.const 1))))))
              (local.get $at))
            {extra}
            "#,
            body("realloc")
        );
        for (interface, function, of_type) in self.functions {
            let export = format!("tidegate:plugin/{interface}@0.1.0#{function}");
            let asked = match *function {
                "collect" | "add" | "deliver" => {
                    "(if (call $asked (local.get $batch)) (then (global.set $armed (i32.const 1))))"
                }
                "setup" => {
                    "(if (i32.gt_u (local.get $options_len) (i32.const 2)) (then (global.set $armed (i32.const 1))))"
                }
                _ => "",
            };
            let run = if of_type == &BATCH { "(call $asked (local.get $batch))" } else { "(global.get $armed)" };
            let returned = if *function == "discard" { String::new() } else { format!("(i32.const {FINE})") };
            let of_type = if *function == "flush" { format!("{of_type} (result i32)") } else { (*of_type).to_owned() };
            let hostile = body(function);
            let _ = writeln!(
                text,
                r#"(func (export "{export}") {of_type} {LOCALS} {asked} (if {run} (then {hostile})) {returned})"#
            );
            if of_type == BATCH && !body("post").is_empty() {
                let post = body("post");
                let _ = writeln!(
                    text,
                    r#"(func (export "cabi_post_{export}") (param i32) {LOCALS} (if (global.get $armed) (then {post})))"#
                );
            }
        }
        text.push(')');
        text
    }

    /// The component.
    pub(crate) fn build(&self) -> Vec<u8> {
        let text = self.module();
        let mut module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let mut resolve = Resolve::default();
        for (number, package) in WASI.iter().chain([&CONTRACT]).enumerate() {
            resolve.push_str(format!("{number}.wit"), package).unwrap();
        }
        let mut world = format!("package attack:guest;\n{}\nworld guest {{\n{}", self.package, self.interfaces);
        let mut known = Vec::new();
        for (interface, _, _) in self.functions {
            if !known.contains(interface) {
                known.push(*interface);
                let _ = writeln!(world, "export tidegate:plugin/{interface}@0.1.0;");
            }
        }
        world.push('}');
        let package = resolve.push_str("guest.wit", &world).unwrap();
        let world = resolve.select_world(&[package], Some("guest")).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        let mut encoder = ComponentEncoder::default();
        encoder.module(&module).unwrap_or_else(|error| panic!("{error:#}\n{text}"));
        encoder.encode().unwrap_or_else(|error| panic!("{error:#}\n{text}"))
    }
}

/// What every body may use.
const LOCALS: &str = "(local $i i32) (local $j i32) (local $wide i64)";

/// Bytes as a string of the text format.
pub(crate) fn bytes(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "\\{byte:02x}");
        text
    })
}

/// Little-endian words as a data segment at `address`.
pub(crate) fn words(address: u32, words: &[u32]) -> String {
    let all: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    format!(r#"(data (i32.const {address}) "{}")"#, bytes(&all))
}
