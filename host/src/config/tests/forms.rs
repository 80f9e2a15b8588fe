//! The forms in which options may be written: units, anchors, and everything in the environment.

use super::*;

/// Durations and sizes have a unit of their own wherever an option is one, in the file, a variable or an override.
#[test]
fn s122_durations_and_sizes_have_units() {
    let text = "kafka: { source_topic: t, group: g, revoke_budget_seconds: 1m, start_timeout_seconds: \"${WAIT}\" }\n\
                checkpoint: { interval_seconds: 250ms, max_bytes: 32MiB }\n\
                window: { max_bytes: \"1 MiB\" }\n\
                memory: { max_mebibytes: 1GiB }\n\
                executor: { drain_timeout_seconds: \"${SECONDS}s\" }\n\
                sinks:\n  redis: { cache: { ttl_seconds: 1h30m } }\n  http: { hook: { url: 'http://h/', timeout_seconds: 10 } }\n";
    let variables = [("WAIT", "5s"), ("SECONDS", "20"), ("TIDEGATE__EXECUTOR__DELIVERY_TIMEOUT_SECONDS", "45s")];
    let config = parse(text, "t.yaml", &variables.into_iter().collect()).unwrap();
    assert_eq!((config.kafka.revoke_budget_seconds, config.kafka.start_timeout_seconds), (60.0, 5.0));
    assert_eq!((config.checkpoint.interval_seconds, config.checkpoint.max_bytes), (0.25, 32 << 20));
    assert_eq!((config.window.max_bytes, config.memory.max_mebibytes), (1 << 20, 1024));
    assert_eq!((config.executor.drain_timeout_seconds, config.executor.delivery_timeout_seconds), (20.0, 45.0));
    assert_eq!(config.sinks.redis["cache"].options.ttl_seconds, Some(5400));
    assert_eq!(config.sinks.http["hook"].options.timeout_seconds, 10.0);
}

/// Every option whose name counts seconds or bytes takes a unit; a number of something else does not.
#[test]
fn s122_units_are_for_what_has_them() {
    let limits = schema::schema()["$defs"]["Limits"]["properties"].as_object().unwrap().clone();
    let mut units = 0;
    for name in limits.keys() {
        let value = match units::Unit::of(name) {
            Some(units::Unit::Seconds) => "3s",
            Some(units::Unit::Bytes | units::Unit::Mebibytes) => "8MiB",
            None => continue,
        };
        units += 1;
        let text = format!("{SOUND}collect: {{ component: c.wasm, limits: {{ {name}: {value} }} }}\n");
        let faults = faults(&text);
        assert!(!faults.iter().any(|fault| fault.contains("must be a ")), "{name}: {faults:?}");
    }
    assert!(units >= 10, "{units}");
    for (text, words) in [
        (
            "checkpoint: { interval_seconds: 5MiB }",
            "must be a number, or a duration such as `250ms`, `5s` or `1h30m`, found",
        ),
        ("checkpoint: { max_bytes: s3cret }", "or a size such as `64MiB` or `1GiB`, found a string"),
        (
            "checkpoint: { max_records: 5s }",
            "`checkpoint.max_records` must be a whole number, 0 or more, found a string",
        ),
        ("memory: { max_mebibytes: 100kB }", "must be a whole number"),
    ] {
        let faults = faults(&format!("{SOUND}{text}\n"));
        assert!(faults.len() == 1 && faults[0].contains(words) && !faults[0].contains("s3cret"), "{text}: {faults:?}");
    }
    // What is passed on is not ours to read.
    let passed = format!("{SOUND}collect: {{ component: c.wasm, options: {{ wait_seconds: 5s, n_bytes: 1 }} }}\n");
    let options = parse(&passed, "t.yaml", &Environment::default()).unwrap().collect.unwrap().options;
    assert_eq!((options["wait_seconds"].as_str(), options["n_bytes"].as_u64()), (Some("5s"), Some(1)));
}

/// C2: a whole configuration with a block for anchors, merge keys, and an override over what was merged.
#[test]
fn s122_anchors_and_merge_keys_make_one_configuration() {
    let text = "\u{feff}x-hook: &hook\r\n  url: http://hooks/one\r\n  timeout_seconds: 5s\r\n  headers: { A: \"${UNUSED:-b}\" }\r\n\
                x-notes: ${NOBODY}\r\n\
                kafka: { source_topic: t, group: g }\r\n\
                sinks:\r\n  http:\r\n    one: *hook\r\n    two:\r\n      <<: *hook\r\n      url: http://hooks/two\r\n";
    let environment = [("TIDEGATE__SINKS__HTTP__ONE__TIMEOUT_SECONDS", "7")].into_iter().collect();
    let config = parse(text, "t.yaml", &environment).unwrap();
    let (one, two) = (&config.sinks.http["one"].options, &config.sinks.http["two"].options);
    assert_eq!((one.url.as_str(), one.timeout_seconds, one.headers["A"].as_str()), ("http://hooks/one", 7.0, "b"));
    assert_eq!((two.url.as_str(), two.timeout_seconds, two.headers["A"].as_str()), ("http://hooks/two", 5.0, "b"));
    assert!(faults(&format!("{SOUND}y-more: 1\n"))[0].contains("`y-more` is not an option"));
}

/// S120: as a container is started, with variables and without a file; lists are separated by commas.
#[test]
fn s120_everything_may_be_in_the_environment() {
    let variables = [
        ("TIDEGATE__KAFKA__BROKERS", "a:9092,b:9092"),
        ("TIDEGATE__KAFKA__SOURCE_TOPICS", "orders, payments"),
        ("TIDEGATE__KAFKA__GROUP", "g"),
        ("TIDEGATE__KAFKA__PROPERTIES__CLIENT.RACK", "r1"),
        ("TIDEGATE__SINKS__MONGO__ARCHIVE__URI", "mongodb://app:p${w}d@db/"),
        ("TIDEGATE__SINKS__MONGO__ARCHIVE__DATABASE", "app"),
        ("TIDEGATE__SINKS__MONGO__ARCHIVE__COLLECTION", "orders"),
        ("TIDEGATE__SINKS__MONGO__ARCHIVE__KEY", "id"),
        ("TIDEGATE__SINKS__MONGO__ARCHIVE__TOPICS", "orders"),
        ("TIDEGATE__SINKS__REDIS__CACHE__TTL_SECONDS", "1h"),
    ];
    let environment: Environment = variables.into_iter().collect();
    let missing = Path::new(DEFAULT_FILE);
    assert!(!missing.exists(), "the tests run where there is no `{DEFAULT_FILE}`");
    let config = load(missing, &environment).unwrap().config;
    assert_eq!(config.kafka.brokers.joined(), "a:9092,b:9092");
    assert_eq!(config.kafka.topics(), ["orders", "payments"]);
    assert_eq!(config.kafka.properties["client.rack"], "r1");
    let archive = &config.sinks.mongo["archive"];
    assert_eq!(
        (archive.options.uri.as_str(), &archive.options.key[..]),
        ("mongodb://app:p${w}d@db/", &["id".to_owned()][..])
    );
    assert_eq!(archive.delivery.topics, ["orders"]);
    assert_eq!(config.sinks.redis["cache"].options.ttl_seconds, Some(3600));
    // What is missing then is missing in the environment.
    let few: Environment = [("TIDEGATE__KAFKA__SOURCE_TOPIC", "t")].into_iter().collect();
    let told = load(missing, &few).unwrap_err();
    assert!(told.len() == 2 && told[0].message.contains("(the environment)"), "{told:?}");
    // A file without options, as an empty one that is mounted, is as none.
    assert_eq!(parse("# nothing yet\n", "t.yaml", &environment).unwrap(), config);
    // One that is named has to be there, and without variables any.
    for (file, environment) in [("named.yaml", &environment), (DEFAULT_FILE, &Environment::default())] {
        let faults = load(Path::new(file), environment).unwrap_err();
        assert!(faults[0].message.contains("does not exist"), "{faults:?}");
    }
    // A list in the file is written as one.
    assert!(faults("kafka: { source_topics: 'a,b', group: g }\n")[0].contains("must be a list"));
}
