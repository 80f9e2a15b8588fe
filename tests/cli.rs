//! The built binary as a user meets it: exit code, standard output and standard error (S58, S122).

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A folder with a `tidegate.yaml`, and the variables that the binary is started with.
struct Scene {
    folder: TempDir,
    variables: Vec<(&'static str, &'static str)>,
}

impl Scene {
    fn new(yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tidegate.yaml"), yaml).unwrap();
        Self { folder, variables: Vec::new() }
    }

    /// A sound Kafka block before what the test is about.
    fn with(yaml: &str) -> Self {
        Self::new(&format!("kafka: {{ source_topic: orders, group: out }}\n{yaml}"))
    }

    fn variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    /// Runs the binary in the folder and writes down how it ended and what it said.
    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(self.variables.iter().copied())
            .output()
            .unwrap();
        let code = output.status.code().unwrap();
        let mut told = format!("exit: {code}\n");
        for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
            let text = String::from_utf8(bytes).unwrap();
            let text = text.replace(&*self.folder.path().to_string_lossy(), "[folder]");
            let text = if text.is_empty() { "(nothing)\n".into() } else { text };
            told.push_str(&format!("--- {name}\n{text}"));
        }
        told
    }

    fn check(&self) -> String {
        self.run(&["check"])
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

const LOG: &str = "sinks: { filesystem: { log: { base_path: . } } }\n";

/// Brokers where nobody listens.
const NOWHERE: &str = "kafka: { source_topic: orders, group: out, brokers: '127.0.0.1:1' }\n";

#[test]
fn a_sound_configuration() {
    insta::assert_snapshot!(Scene::with(LOG).check(), @"
    exit: 0
    --- stdout
    source   orders (group out)   ok
    sink     filesystem/log  .    ok

    memory:
      fetched ahead from Kafka          24 MiB  divided by the partitions
      windows, payloads, buffered rows  72 MiB
      filesystem/log                    16 MiB  at most, for each window that is being written
    --- stderr
    (nothing)
    ");
}

#[test]
fn s122_a_typo_gets_the_nearest_name() {
    let yaml = "sinks:\n  kafka:\n    results:\n      topc: search-results\n";
    insta::assert_snapshot!(Scene::with(yaml).check(), @"
    exit: 2
    --- stdout
    (nothing)
    --- stderr
    error: `sinks.kafka.results.topc` is not an option (tidegate.yaml:5:7)

    hint: did you mean `topic`?
    ");
}

#[test]
fn s121_an_unset_variable() {
    let yaml = "sinks:\n  kafka:\n    results:\n      topic: r\n      properties:\n        sasl.password: \"s3cret-${KAFKA_PASSWORD}\"\n";
    insta::assert_snapshot!(Scene::with(yaml).check(), @"
    exit: 2
    --- stdout
    (nothing)
    --- stderr
    error: `sinks.kafka.results.properties.sasl.password` needs the environment variable `KAFKA_PASSWORD`, which is not set (tidegate.yaml:7:9)

    hint: set `KAFKA_PASSWORD`, or give a default with `${KAFKA_PASSWORD:-default}`
    ");
}

#[test]
fn a_yaml_syntax_error() {
    insta::assert_snapshot!(Scene::new("kafka:\n  brokers: [localhost:9092\n  group: g\n").check(), @"
    exit: 2
    --- stdout
    (nothing)
    --- stderr
    error: the configuration is not valid YAML (tidegate.yaml:3:8)
      Caused by: illegal placement of ':' indicator

    hint: look for a bracket, a quote or an indentation that is off, there or just before
    ");
}

#[test]
fn a_key_given_twice() {
    insta::assert_snapshot!(Scene::new("kafka:\n  group: a\n  group: b\n").check(), @"
    exit: 2
    --- stdout
    (nothing)
    --- stderr
    error: `group` is given twice (tidegate.yaml:3:3)

    hint: keep one of the two
    ");
}

#[test]
fn a_value_of_the_wrong_type() {
    insta::assert_snapshot!(Scene::with(&format!("{LOG}checkpoint:\n  interval_seconds: often\n")).check(), @"
    exit: 2
    --- stdout
    (nothing)
    --- stderr
    error: `checkpoint.interval_seconds` must be a number, or a duration such as `250ms`, `5s` or `1h30m`, found a string (tidegate.yaml:4:3)

    hint: `checkpoint.interval_seconds`: Seconds from a checkpoint's creation until it is due; 0 makes one due after every window
    ");
}

#[test]
fn s73_no_group_and_no_sinks_are_told_at_once() {
    insta::assert_snapshot!(Scene::new("kafka:\n  source_topic: orders\n").check(), @"
    exit: 2
    --- stdout
    (nothing)
    --- stderr
    error: there is no sink, so nothing would be delivered (tidegate.yaml) [C001]

    hint: add one, for example `sinks: { filesystem: { log: { base_path: /var/lib/tidegate } } }`

    error: `kafka.group` is missing (tidegate.yaml:1:1) [C004]

    hint: name the consumer group under which offsets are committed
    ");
}

/// S85, S106, S111: what can be seen to be wrong without a server is told before any server is asked, and shows no secret.
#[test]
fn sinks_whose_options_cannot_be_right() {
    let yaml = r#"sinks:
  postgres:
    dsn: { dsn: "postgres//user:s3cret@db/app" }
    table: { dsn: "postgresql://user:s3cret@db/app", table: "users\n" }
    key: { dsn: "postgresql://user:s3cret@db/app", table: users, key: ["id; drop table users"] }
  mongo:
    uri: { uri: "mongo://user:s3cret@db", database: app }
    collection: { uri: "mongodb://user:s3cret@db", database: app, collection: system.users }
  http:
    scheme: { url: "ftp://user:s3cret@host/" }
    metadata: { url: "http://user:s3cret@169.254.169.254/latest" }
    header: { url: "http://host/", headers: { Authorization: "Bearer s3cret\nX: y" } }
    method: { url: "http://host/", method: GET }
  redis:
    url: { url: "http://user:s3cret@cache/0" }
"#;
    let said = Scene::with(yaml).check();
    assert!(!said.contains("s3cret"), "{said}");
    insta::assert_snapshot!(said, @r"
    exit: 2
    --- stdout
    source   orders (group out)               ok
    sink     postgres/dsn                     fault
    sink     postgres/key                     fault
    sink     postgres/table                   fault
    sink     mongo/collection  database app   fault
    sink     mongo/uri  database app          fault
    sink     http/header                      fault
    sink     http/metadata                    fault
    sink     http/method                      fault
    sink     http/scheme                      fault
    sink     redis/url                        fault
    --- stderr
    error: `sinks.postgres.dsn.dsn` does not begin with `postgresql://`

    hint: write it as `postgresql://user:password@host:5432/database`, with `%40` for an `@` in a password, `%2F` for `/`, `%3F` for `?` and `%23` for `#`

    error: `sinks.postgres.key.key` names `id; drop table users`, which cannot be a column

    hint: a column's name is 1 to 63 of the letters A to Z and a to z, digits and `_`, with no digit first

    error: `sinks.postgres.table.table` is no table
      Caused by: `users\n` cannot be a table's name: 1 to 63 of the letters A to Z and a to z, digits and `_`, with no digit first

    error: `sinks.mongo.collection.collection` cannot be used: collection `system.users` is the server's own

    error: `sinks.mongo.uri.uri` is not a MongoDB URI

    hint: write `mongodb://user:password@host:27017`, and percent-encode the password

    error: `sinks.http.header.headers.Authorization` has a value with a control character

    hint: usually the line break at the end of the file that it was read from

    error: `sinks.http.metadata.url` names `169.254.169.254`, a cloud's metadata service

    hint: nothing is ever sent there; name the endpoint that is meant

    error: `sinks.http.method.method` is `GET`

    hint: it has to be `POST`, `PUT` or `PATCH`, in capitals

    error: `sinks.http.scheme.url` does not begin with `http://` or `https://`

    hint: an address looks like `https://hooks.example.com/notify`

    error: `sinks.redis.url.url` is not a Redis URL

    hint: write `redis://user:password@host:6379/0`, with `rediss://` for TLS, and percent-encode the password
    ");
}

#[test]
fn a_sink_that_feeds_the_source() {
    insta::assert_snapshot!(Scene::with("sinks: { kafka: { out: { topic: orders } } }\n").check(), @"
    exit: 2
    --- stdout
    (nothing)
    --- stderr
    error: `sinks.kafka.out` writes to `orders`, which is a source topic: its records would come round again (tidegate.yaml:2:26) [C007]

    hint: write to another topic, or to other brokers
    ");
}

#[test]
fn no_file() {
    let scene = Scene::with(LOG);
    insta::assert_snapshot!(scene.run(&["check", "other.yaml"]), @"
    exit: 2
    --- stdout
    (nothing)
    --- stderr
    error: `other.yaml` does not exist

    hint: name the configuration file: `tidegate check path/to/tidegate.yaml`
    ");
    insta::assert_snapshot!(scene.run(&["run", "other.yaml"]), @"
    exit: 2
    --- stdout
    (nothing)
    --- stderr
    error: `other.yaml` does not exist

    hint: name the configuration file: `tidegate check path/to/tidegate.yaml`
    ");
}

#[test]
fn an_empty_file() {
    insta::assert_snapshot!(Scene::new("# nothing yet\n").check(), @"
    exit: 2
    --- stdout
    (nothing)
    --- stderr
    error: the configuration is empty (tidegate.yaml)

    hint: start with `kafka:` and `sinks:`
    ");
}

#[test]
fn a_file_that_is_not_utf8() {
    let scene = Scene::new("");
    std::fs::write(scene.path().join("tidegate.yaml"), b"kafka:\n  group: caf\xe9\n").unwrap();
    insta::assert_snapshot!(scene.check(), @"
    exit: 2
    --- stdout
    (nothing)
    --- stderr
    error: `tidegate.yaml` is not UTF-8 from line 2 on

    hint: save the file as UTF-8
    ");
}

#[test]
fn json_for_machines() {
    insta::assert_snapshot!(Scene::with(LOG).run(&["check", "--json"]), @r#"
    exit: 0
    --- stdout
    {
      "ok": true,
      "lines": [
        {
          "what": "source",
          "name": "orders (group out)",
          "detail": [],
          "verdict": "ok",
          "grants": null,
          "limits": null,
          "fault": null
        },
        {
          "what": "sink",
          "name": "filesystem/log",
          "detail": [
            "."
          ],
          "verdict": "ok",
          "grants": null,
          "limits": null,
          "fault": null
        }
      ],
      "memory": {
        "max_mebibytes": 96,
        "prefetch_bytes": 25165824,
        "record_bytes": 75497472,
        "partitions": null,
        "sinks": [
          {
            "name": "filesystem/log",
            "window_bytes": 16777216
          }
        ],
        "plugins": []
      },
      "faults": []
    }
    --- stderr
    (nothing)
    "#);
    insta::assert_snapshot!(Scene::new("kafka: { group: g, grup: h }\n").run(&["check", "--json"]), @r#"
    exit: 2
    --- stdout
    {
      "ok": false,
      "lines": [],
      "memory": null,
      "faults": [
        {
          "owner": "config",
          "message": "`kafka.grup` is not an option (tidegate.yaml:1:20)",
          "causes": [],
          "hint": "did you mean `group`?"
        }
      ]
    }
    --- stderr
    (nothing)
    "#);
}

/// C1, C2: as a container starts it, with variables alone; what they hold is taken as it is.
#[test]
fn s120_a_container_needs_no_file() {
    let mut scene = Scene::new("")
        .variable("TIDEGATE__KAFKA__SOURCE_TOPICS", "orders,payments")
        .variable("TIDEGATE__KAFKA__GROUP", "out")
        .variable("TIDEGATE__CHECKPOINT__INTERVAL_SECONDS", "250ms")
        .variable("TIDEGATE__SINKS__REDIS__CACHE__URL", "redis://app:${w@cache:6379/0");
    let sound = "exit: 0\n--- stdout\nsource   orders, payments (group out)   ok\n";
    assert!(scene.check().starts_with(sound), "{}", scene.check());
    std::fs::remove_file(scene.path().join("tidegate.yaml")).unwrap();
    assert!(scene.check().starts_with(sound), "{}", scene.check());
    scene.variables.retain(|(name, _)| *name != "TIDEGATE__KAFKA__GROUP");
    let told = scene.check();
    assert!(told.contains("`kafka.group` is missing (") && !told.contains("${w"), "{told}");
    scene.variables.clear();
    assert!(scene.check().contains("`tidegate.yaml` does not exist"), "{}", scene.check());
}

#[test]
fn s120_the_environment_names_file_and_options() {
    let scene = Scene::with(LOG)
        .variable("TIDEGATE_CONFIG", "tidegate.yaml")
        .variable("TIDEGATE__KAFKA__GROUP", "another")
        .variable("TIDEGATE__KAFKA__SOURCE_TOPIC", "2024");
    insta::assert_snapshot!(scene.check(), @"
    exit: 0
    --- stdout
    source   2024 (group another)   ok
    sink     filesystem/log  .      ok

    memory:
      fetched ahead from Kafka          24 MiB  divided by the partitions
      windows, payloads, buffered rows  72 MiB
      filesystem/log                    16 MiB  at most, for each window that is being written
    --- stderr
    (nothing)
    ");
    let scene = Scene::with(LOG).variable("TIDEGATE__WINDOW__MAX_RECORDS", "s3cret");
    insta::assert_snapshot!(scene.check(), @"
    exit: 2
    --- stdout
    (nothing)
    --- stderr
    error: `window.max_records` must be a whole number, 0 or more, found a string (environment variable `TIDEGATE__WINDOW__MAX_RECORDS`)

    hint: `window.max_records`: Most records of one window
    ");
}

#[test]
fn help_fits_on_a_screen() {
    insta::assert_snapshot!(Scene::new("").run(&["--help"]), @"
    exit: 0
    --- stdout
    Takes records from Kafka to native and WebAssembly sinks, and commits offsets only for what arrived.

    Usage: tidegate <COMMAND>

    Commands:
      run     Take records to the sinks until told to stop, or, with --from and --until-end, a part of them again
      check   Check the configuration and load the plugins; with --connect also reach every server
      dlq     Look at what stands in the dead letter topic, and send it through again
      demo    Run a pipeline on this machine alone, with a broker inside this process
      schema  Print the JSON Schema of the configuration file
      help    Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version
    --- stderr
    (nothing)
    ");
    insta::assert_snapshot!(Scene::new("").run(&["check", "-h"]), @"
    exit: 0
    --- stdout
    Check the configuration and load the plugins; with --connect also reach every server

    Usage: tidegate check [OPTIONS] [CONFIG]

    Arguments:
      [CONFIG]  The configuration file [env: TIDEGATE_CONFIG] [default: tidegate.yaml]

    Options:
          --connect  Reach the brokers and every sink's destination as well
          --json     Print JSON for a machine to read
      -h, --help     Print help
      -V, --version  Print version
    --- stderr
    (nothing)
    ");
}

#[test]
fn wrong_use() {
    insta::assert_snapshot!(Scene::with(LOG).run(&["chekc"]), @"
    exit: 2
    --- stdout
    (nothing)
    --- stderr
    error: unrecognized subcommand 'chekc'

      tip: some similar subcommands exist: 'schema', 'check'

    Usage: tidegate <COMMAND>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(Scene::with(LOG).run(&["demo", "--records", "0"]), @"
    exit: 2
    --- stdout
    (nothing)
    --- stderr
    error: invalid value '0' for '--records <RECORDS>': 0 is not in 1..=40000

    For more information, try '--help'.
    ");
}

/// The schema stands for the structs: whoever changes an option sees it here.
#[test]
fn the_schema() {
    insta::assert_snapshot!("schema", Scene::new("").run(&["schema"]));
}

/// S85: a secret that stands in the configuration or in a variable is in no output, whatever else is wrong.
#[test]
fn s85_no_secret_in_any_output() {
    let yaml = "sinks:\n  kafka:\n    out:\n      topic: out\n      brokres: x\n      properties: { sasl.password: s3cret, acks: s3cret }\n  plugin:\n    p: { component: none.wasm, sha256: s3cret, options: { token: \"${TOKEN}\", dsn: \"postgresql://u:s3cret@db/app\" } }\n";
    let sound = yaml.replace("      brokres: x\n", "");
    let quiet = sound.replace(", acks: s3cret", "").replace(" sha256: s3cret,", "");
    for yaml in [yaml, &sound, &quiet] {
        for arguments in [["check", "--json"].as_slice(), &["check"], &["run"]] {
            let told = Scene::with(yaml).variable("TOKEN", "s3cret").run(arguments);
            assert!(!told.contains("s3cret"), "{told}");
        }
    }
}

/// A collector at `plugin.wasm` beside a sound rest.
const COLLECT: &str = "collect: { component: plugin.wasm }\nsinks: { filesystem: { log: { base_path: . } } }\n";

fn with_component(yaml: &str, bytes: impl AsRef<[u8]>) -> Scene {
    let scene = Scene::with(yaml);
    std::fs::write(scene.path().join("plugin.wasm"), bytes).unwrap();
    scene
}

/// A component that exports an empty instance of that name: enough to tell what it was built for.
fn exporting(name: &str) -> Vec<u8> {
    wat::parse_str(format!("(component (instance $i) (export \"{name}\" (instance $i)))")).unwrap()
}

#[test]
fn no_component() {
    insta::assert_snapshot!(Scene::with(COLLECT).check(), @"
    exit: 2
    --- stdout
    source   orders (group out)   ok
    collect  plugin               fault  no grants
    sink     filesystem/log  .    ok
    --- stderr
    error: `collect.component` names `plugin.wasm`, which cannot be read
      Caused by: No such file or directory (os error 2)

    hint: build the plugin, or correct the path: a relative one starts at the configuration file's folder
    ");
}

#[test]
fn a_core_module_instead_of_a_component() {
    insta::assert_snapshot!(with_component(COLLECT, wat::parse_str("(module)").unwrap()).check(), @"
    exit: 2
    --- stdout
    source   orders (group out)   ok
    collect  plugin               fault  no grants
    sink     filesystem/log  .    ok
    --- stderr
    error: `plugin.wasm` is a core WebAssembly module, not a component

    hint: Rust: build with `--target wasm32-wasip2`; others: `wasm-tools component new module.wasm -o component.wasm`
    ");
}

#[test]
fn a_text_file_as_component() {
    insta::assert_snapshot!(with_component(COLLECT, "(component)\n").check(), @r"
    exit: 2
    --- stdout
    source   orders (group out)   ok
    collect  plugin               fault  no grants
    sink     filesystem/log  .    ok
    --- stderr
    error: `plugin.wasm` is not WebAssembly
      Caused by: it does not begin with `\0asm`

    hint: name the component's file, which ends in `.wasm`
    ");
}

#[test]
fn a_component_cut_off() {
    let bytes = exporting("tidegate:plugin/collector@0.1.0");
    insta::assert_snapshot!(with_component(COLLECT, &bytes[..bytes.len() - 3]).check(), @"
    exit: 2
    --- stdout
    source   orders (group out)   ok
    collect  plugin               fault  no grants
    sink     filesystem/log  .    ok
    --- stderr
    error: `plugin.wasm` is no valid component
      Caused by: unexpected end-of-file (at offset 0x36)

    hint: the file may be cut off or damaged: build or copy it again
    ");
}

#[test]
fn a_component_of_another_world() {
    insta::assert_snapshot!(with_component(COLLECT, exporting("wasi:cli/run@0.2.3")).check(), @"
    exit: 2
    --- stdout
    source   orders (group out)   ok
    collect  plugin               fault  no grants
    sink     filesystem/log  .    ok
    --- stderr
    error: `plugin.wasm` is a component, but no Tidegate plugin
      Caused by: it exports `wasi:cli/run@0.2.3`
      Caused by: a plugin exports `tidegate:plugin/sink@0.1.0` or `tidegate:plugin/collector@0.1.0`

    hint: build it for the world `tidegate:plugin/sink-plugin@0.1.0` or `tidegate:plugin/collector-plugin@0.1.0`
    ");
}

#[test]
fn a_sink_where_a_collector_is_wanted() {
    insta::assert_snapshot!(with_component(COLLECT, exporting("tidegate:plugin/sink@0.1.0")).check(), @"
    exit: 2
    --- stdout
    source   orders (group out)              ok
    collect  plugin  contract 0.1  0.1 KiB   fault  no grants
    sink     filesystem/log  .               ok
    --- stderr
    error: `plugin.wasm` is a sink, and `collect` wants a collector
      Caused by: it exports `tidegate:plugin/sink@0.1.0`

    hint: build it for the world `tidegate:plugin/collector-plugin@0.1.0`
    ");
}

#[test]
fn another_version_of_the_contract() {
    insta::assert_snapshot!(with_component(COLLECT, exporting("tidegate:plugin/collector@0.2.0")).check(), @"
    exit: 2
    --- stdout
    source   orders (group out)   ok
    collect  plugin               fault  no grants
    sink     filesystem/log  .    ok
    --- stderr
    error: `plugin.wasm` speaks version 0.2.0 of the plugin contract, and this Tidegate speaks 0.1.0
      Caused by: its type names `tidegate:plugin/collector@0.2.0`

    hint: use a newer Tidegate, or build the plugin with version 0.1.0 of the contract
    ");
}

#[test]
fn a_component_with_another_hash() {
    let yaml = COLLECT.replace("plugin.wasm", &format!("plugin.wasm, sha256: {}", "0123456789abcdef".repeat(4)));
    insta::assert_snapshot!(with_component(&yaml, exporting("tidegate:plugin/collector@0.1.0")).check(), @"
    exit: 2
    --- stdout
    source   orders (group out)   ok
    collect  plugin               fault  no grants
    sink     filesystem/log  .    ok
    --- stderr
    error: `plugin.wasm` is not the file that `collect.sha256` asks for
      Caused by: wanted `0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef`
      Caused by: found `3acab01b0959c597176188de2581d31fe303608c7c5924c69586dae36f7004a2`

    hint: if the new file is the one you want, put its hash into `collect.sha256`
    ");
}

#[test]
fn every_part_is_told_of_and_not_only_the_first_that_is_broken() {
    let yaml = "collect: { component: plugin.wasm }\nsinks:\n  filesystem: { log: { base_path: missing }, here: { base_path: . } }\n  plugin: { csv: { component: none.wasm, grants: { directories: [{ host: ., guest: /out, access: write }], environment: [REGION], http: ['HTTPS://API.example.com:443'], http_addresses: [10.1.2.0/24] } } }\n";
    let scene = with_component(yaml, "not wasm");
    insta::assert_snapshot!(scene.check(), @r"
    exit: 2
    --- stdout
    source   orders (group out)        ok
    collect  plugin                    fault  no grants
    sink     filesystem/here  .        ok
    sink     filesystem/log  missing   ok
    sink     plugin/csv                fault  directory /out (write), variable REGION, http https://api.example.com, http address 10.1.2.0/24
    --- stderr
    error: `plugin.wasm` is not WebAssembly
      Caused by: it does not begin with `\0asm`

    hint: name the component's file, which ends in `.wasm`

    error: `sinks.plugin.csv.component` names `none.wasm`, which cannot be read
      Caused by: No such file or directory (os error 2)

    hint: build the plugin, or correct the path: a relative one starts at the configuration file's folder
    ");
}

#[test]
fn s117_a_base_path_that_is_not_there() {
    let sinks = "sinks: { filesystem: { log: { base_path: missing }, here: { base_path: . } } }\n";
    let scene = Scene::new(&format!("{NOWHERE}{sinks}"));
    insta::assert_snapshot!(scene.check(), @"
    exit: 0
    --- stdout
    source   orders (group out)        ok
    sink     filesystem/here  .        ok
    sink     filesystem/log  missing   ok

    memory:
      fetched ahead from Kafka          24 MiB  divided by the partitions
      windows, payloads, buffered rows  72 MiB
      filesystem/here                   16 MiB  at most, for each window that is being written
      filesystem/log                    16 MiB  at most, for each window that is being written
    --- stderr
    (nothing)
    ");
    stable(|| {
        insta::assert_snapshot!(scene.run(&["check", "--connect"]), @"
    exit: 2
    --- stdout
    source   orders (group out)        fault
    sink     filesystem/here  .        ok
    sink     filesystem/log  missing   fault
    dlq      orders_dlq                fault
    --- stderr
    error: no broker of `127.0.0.1:1` answered within 10 s
      Caused by: 127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after a while)

    hint: check `kafka.brokers`, that the cluster runs, and its TLS and SASL settings under `kafka.properties`

    error: `sinks.filesystem.log.base_path` is not an existing directory: `missing`
      Caused by: No such file or directory (os error 2)

    hint: create the directory, or point `sinks.filesystem.log.base_path` at one that exists

    error: `dlq`: no broker of `127.0.0.1:1` answered for topic `orders_dlq`
      Caused by: 127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after a while)

    hint: check `brokers`, that the cluster runs, and its TLS and SASL settings
    ");
    });
}

/// The guests that `make guests` builds.
fn guest(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests").join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; build the guests first", path.display()))
}

/// What differs from one build of the guests, or one machine, to the next.
fn stable(check: impl FnOnce()) {
    let filters = vec![
        (r"\d+\.\d [KM]iB +", "[size]  "),
        (r"\(after \d+ms.*", "(after a while)"),
        (r"lib\.rs:\d+", "lib.rs:[line]"),
    ];
    insta::with_settings!({ filters => filters }, { check() });
}

#[test]
fn s66_check_sets_plugins_up_and_does_not_connect() {
    let yaml = "collect: { component: collect.wasm }\nsinks:\n  plugin: { faulty: { component: plugin.wasm, options: { connect: fatal } } }\n";
    let scene = with_component(yaml, guest("faulty-sink"));
    std::fs::write(scene.path().join("collect.wasm"), guest("faulty-collector")).unwrap();
    stable(|| {
        insta::assert_snapshot!(scene.check(), @"
    exit: 0
    --- stdout
    source   orders (group out)                       ok
    collect  collect  contract 0.1  [size]  ok     no grants
    sink     plugin/faulty  contract 0.1  [size]  ok     no grants

    limits of collect, plugin/faulty:
      memory 64 MiB, table elements 262144, call timeout 10 s, setup timeout 30 s, instances automatic,
      output lines per second 200, output bytes per second 65536, payloads per call 100000, payload per call 64 MiB,
      hostcall 128 MiB, handles 256, http requests in flight 16, http requests per call 1000, http request 8 MiB,
      http response 16 MiB, http timeout 10 s, component 128 MiB, compile timeout 300 s, compile memory 4096 MiB

    memory:
      fetched ahead from Kafka          24 MiB  divided by the partitions
      windows, payloads, buffered rows  72 MiB
      collect                           64 MiB  for each instance, one per core, at most 4
      plugin/faulty                     64 MiB  for each instance, one per core, at most 4, rows buffered 16 MiB
    --- stderr
    (nothing)
    ");
    });
}

/// S66: a cache folder that cannot be created slows every start, and is no fault. The path is below a regular file, which
/// stops root as well.
#[test]
fn s66_check_tells_of_a_cache_folder_that_cannot_be_created() {
    let yaml = "sinks: { plugin: { faulty: { component: plugin.wasm } } }\n";
    let scene = with_component(yaml, guest("faulty-sink")).variable("XDG_CACHE_HOME", "/dev/null/cache");
    for arguments in [&["check"][..], &["check", "--json"]] {
        let told = scene.run(arguments);
        assert!(told.starts_with("exit: 0\n"), "{told}");
        let (stdout, _) = told.split_once("--- stderr").unwrap();
        assert!(stdout.contains("compiled at every start: `/dev/null/cache/tidegate` cannot be created"), "{told}");
    }
}

#[test]
fn a_plugin_whose_setup_fails() {
    let yaml =
        |act| format!("sinks: {{ plugin: {{ faulty: {{ component: plugin.wasm, options: {{ setup: {act} }} }} }} }}\n");
    let told = |act| with_component(&yaml(act), guest("faulty-sink")).check();
    stable(|| {
        insta::assert_snapshot!(told("reject"), @"
    exit: 2
    --- stdout
    source   orders (group out)                       ok
    sink     plugin/faulty  contract 0.1  [size]  fault  no grants
    --- stderr
    error: `plugin/faulty` does not accept its options
      Caused by: setup was told to fail

    hint: correct `sinks.plugin.faulty.options`
    ");
        insta::assert_snapshot!(told("poison"), @"
    exit: 2
    --- stdout
    source   orders (group out)                       ok
    sink     plugin/faulty  contract 0.1  [size]  fault  no grants
    --- stderr
    error: `plugin/faulty` trapped in `setup`
      Caused by: guest panic: poison in setup (tests/guests/rust/faults/src/lib.rs:[line])
      Caused by: wasm trap: wasm `unreachable` instruction executed
    ");
    });
}

#[test]
fn a_guest_of_another_contract() {
    stable(|| {
        insta::assert_snapshot!(with_component(COLLECT, guest("future-collector")).check(), @"
    exit: 2
    --- stdout
    source   orders (group out)   ok
    collect  plugin               fault  no grants
    sink     filesystem/log  .    ok
    --- stderr
    error: `plugin.wasm` speaks version 0.2.0 of the plugin contract, and this Tidegate speaks 0.1.0
      Caused by: its type names `tidegate:plugin/collector@0.2.0`

    hint: use a newer Tidegate, or build the plugin with version 0.1.0 of the contract
    ");
        insta::assert_snapshot!(with_component(COLLECT, guest("stranger")).check(), @"
    exit: 2
    --- stdout
    source   orders (group out)   ok
    collect  plugin               fault  no grants
    sink     filesystem/log  .    ok
    --- stderr
    error: `plugin.wasm` is a component, but no Tidegate plugin
      Caused by: it exports `greet`
      Caused by: a plugin exports `tidegate:plugin/sink@0.1.0` or `tidegate:plugin/collector@0.1.0`

    hint: build it for the world `tidegate:plugin/sink-plugin@0.1.0` or `tidegate:plugin/collector-plugin@0.1.0`
    ");
    });
}

#[test]
fn s58_servers_that_do_not_answer() {
    let sinks = "sinks:\n  kafka: { out: { topic: out } }\n  filesystem: { log: { base_path: . } }\n  plugin: { faulty: { component: plugin.wasm, options: { connect: fatal } } }\n";
    let scene = Scene::new(&format!("{NOWHERE}{sinks}"));
    std::fs::write(scene.path().join("plugin.wasm"), guest("faulty-sink")).unwrap();
    stable(|| {
        insta::assert_snapshot!(scene.run(&["check", "--connect"]), @"
    exit: 3
    --- stdout
    source   orders (group out)                       fault
    sink     kafka/out  topic out                     fault
    sink     filesystem/log  .                        ok
    sink     plugin/faulty  contract 0.1  [size]  fault  no grants
    dlq      orders_dlq                               fault
    --- stderr
    error: no broker of `127.0.0.1:1` answered within 10 s
      Caused by: 127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after a while)

    hint: check `kafka.brokers`, that the cluster runs, and its TLS and SASL settings under `kafka.properties`

    error: `kafka/out`: no broker of `127.0.0.1:1` answered for topic `out`
      Caused by: 127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after a while)

    hint: check `brokers`, that the cluster runs, and its TLS and SASL settings

    error: `plugin/faulty` cannot go on after `connect`
      Caused by: connect was told to give up

    error: `dlq`: no broker of `127.0.0.1:1` answered for topic `orders_dlq`
      Caused by: 127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after a while)

    hint: check `brokers`, that the cluster runs, and its TLS and SASL settings
    ");
    });
}
