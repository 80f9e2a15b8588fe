//! Identifiers: the only part of a statement that comes from outside (S106).

/// Longest identifier in bytes; PostgreSQL silently cuts off what is longer.
const LONGEST_BYTES: usize = 63;

/// Whether the name can be an identifier: ASCII `[A-Za-z_][A-Za-z0-9_]*`, all of it.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= LONGEST_BYTES
        && bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// An identifier as it stands in a statement: quoted always, so that its case is kept and no word is reserved.
pub(super) fn quoted(identifier: &str) -> String {
    format!("\"{identifier}\"")
}

/// A table's name as it stands in a statement.
///
/// # Errors
/// Why it cannot be one, in words.
pub(super) fn table(name: &str, qualified: bool) -> Result<String, String> {
    let parts: Vec<&str> = if qualified { name.split('.').collect() } else { vec![name] };
    if parts.len() <= 2 && parts.iter().all(|part| is_identifier(part)) {
        return Ok(parts.iter().map(|part| quoted(part)).collect::<Vec<_>>().join("."));
    }
    let schema = if !qualified && name.contains('.') { "; `qualified_tables` allows a schema before it" } else { "" };
    Err(format!("`{}` cannot be a table's name: {RULE}{schema}", name.escape_debug()))
}

/// What an identifier looks like, in words.
pub(super) const RULE: &str = "1 to 63 of the letters A to Z and a to z, digits and `_`, with no digit first";

#[cfg(test)]
mod tests {
    use super::*;

    /// S106: the full name is looked at, and nothing but ASCII letters, digits and underscores passes.
    #[test]
    fn s106_identifiers_are_matched_in_full() {
        for good in ["a", "_", "Users", "select", "t1", &"x".repeat(63)] {
            assert!(is_identifier(good), "{good}");
        }
        let bad =
            ["", "1a", "a b", "a\"b", "a;b", "users\n", "\nusers", "a.b", "üsers", "usеrs", "a\0", &"x".repeat(64)];
        for bad in bad {
            assert!(!is_identifier(bad), "{bad:?}");
            assert!(table(bad, false).is_err(), "{bad:?}");
        }
    }

    /// S106: a schema stands before the table where that is allowed, and is looked at in the same way.
    #[test]
    fn s106_schemas_are_opt_in() {
        assert_eq!(table("Users", false).as_deref(), Ok("\"Users\""));
        assert_eq!(table("app.users", true).as_deref(), Ok("\"app\".\"users\""));
        assert!(table("app.users", false).is_err_and(|why| why.contains("qualified_tables")));
        for bad in ["a.b.c", ".a", "a.", ".", "a.b\n", "a\".b"] {
            assert!(table(bad, true).is_err(), "{bad:?}");
        }
    }
}
