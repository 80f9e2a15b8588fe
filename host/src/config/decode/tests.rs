#![allow(clippy::unwrap_used, reason = "tests")]

use serde::Deserialize;

use super::super::environment::Environment;
use super::super::substitute::substitute;
use super::super::tree::parse;
use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    text: String,
    count: u32,
    big: u64,
    share: f64,
    flag: bool,
    any: serde_json::Map<String, serde_json::Value>,
    list: Vec<String>,
}

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Wanted, Error> {
    let environment: Environment = variables.iter().copied().collect();
    let mut root = parse(text, "t.yaml").unwrap();
    environment.override_options(&mut root).unwrap();
    substitute(&mut root, &environment, "t.yaml").unwrap();
    Wanted::deserialize(Decoder::new(&root))
}

#[test]
fn the_option_decides_how_a_scalar_is_read() {
    let wanted = read("text: 1.10\ncount: 0x10\nbig: 18446744073709551615\nshare: 2\nflag: true\n", &[]).unwrap();
    let expected =
        Wanted { text: "1.10".into(), count: 16, big: u64::MAX, share: 2.0, flag: true, ..Wanted::default() };
    assert_eq!(wanted, expected);
    assert_eq!(read("text:\n", &[]).unwrap_err().key(), "text");
}

#[test]
fn s121_a_lone_variable_is_a_number_only_where_one_is_wanted() {
    let yaml = "text: ${N}\ncount: ${N}\nshare: \"${N}\"\nflag: ${B}\nany: { n: \"${N}\" }\n";
    let wanted = read(yaml, &[("N", "7"), ("B", "true")]).unwrap();
    assert_eq!((wanted.text.as_str(), wanted.count, wanted.share, wanted.flag), ("7", 7, 7.0, true));
    assert_eq!(wanted.any["n"], serde_json::json!("7"));
    assert!(matches!(read("count: 1${N}\n", &[("N", "7")]).unwrap_err().kind, Kind::Mismatch { .. }));
    let structured = read("any: { n: \"${N}\" }\n", &[("N", "{a: [1]}")]).unwrap();
    assert_eq!(structured.any["n"], serde_json::json!("{a: [1]}"));
}

#[test]
fn s120_an_override_is_read_as_its_option_wants() {
    let variables =
        [("TIDEGATE__TEXT", "12345"), ("TIDEGATE__COUNT", "3"), ("TIDEGATE__ANY__N", "3"), ("TIDEGATE__ANY__S", "~x")];
    let wanted = read("text: a\n", &variables).unwrap();
    assert_eq!((wanted.text.as_str(), wanted.count), ("12345", 3));
    assert_eq!(wanted.any["n"], serde_json::json!(3));
    assert_eq!(wanted.any["s"], serde_json::json!("~x"));
    assert_eq!(read("text: a\n", &[("TIDEGATE__TEXT", "")]).unwrap().text, "");
}

/// A value never gets into an error, whatever is wrong with it.
#[test]
fn s121_errors_hold_no_value() {
    for (yaml, key) in [
        ("count: s3cret\n", "count"),
        ("count: -40961\n", "count"),
        ("list: s3cret\n", "list"),
        ("list: [{ s3: cret }]\n", "list[0]"),
        ("flag: 40961\n", "flag"),
        ("any: s3cret\n", "any"),
    ] {
        let error = read(yaml, &[]).unwrap_err();
        assert_eq!(error.key(), key);
        assert!(!error.to_string().contains("s3cret") && !error.to_string().contains("40961"), "{error}");
    }
}

#[test]
fn nearest_names() {
    let known = ["dsn", "topic", "max_retries", "brokers"];
    assert_eq!(nearest("dns", known), Some("dsn"));
    assert_eq!(nearest("max_retry", known), Some("max_retries"));
    assert_eq!(nearest("broker", known), Some("brokers"));
    assert_eq!(nearest("password", known), None);
}
