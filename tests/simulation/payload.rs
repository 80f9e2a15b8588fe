//! What payloads are made of, so that each can be told from the others wherever it turns up again.

/// The value of the `ordinal`-th payload that a record yields for a sink, or that the window hook does.
pub fn value(window: bool, ordinal: u32) -> Vec<u8> {
    if window { format!("\"w{ordinal}\"").into_bytes() } else { ordinal.to_string().into_bytes() }
}

/// Whether the value is one of the window hook's, and its ordinal. A record that nobody changed is its only payload.
pub fn identity(value: &[u8]) -> (bool, u32) {
    let text = std::str::from_utf8(value).unwrap_or_default().trim_matches('"');
    let window = text.strip_prefix('w');
    (window.is_some(), window.unwrap_or(text).parse().unwrap_or(0))
}

/// The same of a payload as it stands in a dead letter, where the value comes last.
pub fn of_letter(text: &str) -> Option<(bool, u32)> {
    let (_, value) = text.strip_suffix('}')?.rsplit_once("\"data\":")?;
    Some(identity(value.as_bytes()))
}
