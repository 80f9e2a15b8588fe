//! What a dead letter leaves out where its topic does not take all of it (S94a).

use super::{Letter, names};

/// Most bytes of an error's text in any letter.
pub(super) const ERROR_BYTES: usize = 16 << 10;
/// Most bytes of an error's text, and of a sink's name, in a letter of coordinates; with everything else there they stay below
/// the smallest limit that a topic is given, 1 KiB.
const SMALLEST_ERROR_BYTES: usize = 80;
const SMALLEST_NAME_BYTES: usize = 48;
/// Below so many bytes of key and headers nothing is kept of them.
const LEAST_BYTES: usize = 256;
/// What a header takes beside its name and value.
const HEADER_FRAMING: usize = 8;

/// How much of a letter is written. Each part is smaller than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// All but the payloads.
    WithoutPayload,
    /// Neither payloads nor more than so many bytes of the key, of the record's headers and of the error.
    Cut(usize),
    /// The record's coordinates, who failed, and the beginning of why.
    Coordinates,
}

impl Extent {
    /// What to write when the topic finds this much of the letter too large; `None` when there is no less.
    pub fn less(self, letter: &Letter) -> Option<Self> {
        let bytes = match self {
            Self::Whole => return Some(Self::WithoutPayload),
            Self::WithoutPayload => {
                let headers = letter.headers.iter().map(|(name, value)| header_bytes(name, value.as_deref()));
                headers.sum::<usize>() + letter.key.as_ref().map_or(0, Vec::len) + letter.error.len()
            }
            Self::Cut(bytes) => bytes,
            Self::Coordinates => return None,
        };
        let half = bytes / 2;
        Some(if half < LEAST_BYTES { Self::Coordinates } else { Self::Cut(half) })
    }

    pub(super) fn has_payload(self) -> bool {
        self == Self::Whole
    }

    /// What of the record's key is written.
    pub(super) fn key(self, key: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Whole | Self::WithoutPayload => Some(key),
            Self::Cut(bytes) => Some(&key[..key.len().min(bytes / 2)]),
            Self::Coordinates => None,
        }
    }

    /// How many of the record's headers are written, from the first.
    pub(super) fn headers(self, letter: &Letter) -> usize {
        match self {
            Self::Whole | Self::WithoutPayload => letter.headers.len(),
            Self::Cut(bytes) => {
                let mut left = bytes / 2;
                let fits = |(name, value): &&(Vec<u8>, Option<Vec<u8>>)| {
                    let rest = left.checked_sub(header_bytes(name, value.as_deref()));
                    left = rest.unwrap_or(left);
                    rest.is_some()
                };
                letter.headers.iter().take_while(fits).count()
            }
            Self::Coordinates => 0,
        }
    }

    /// The error's text.
    pub(super) fn error(self, error: &str) -> String {
        match self {
            Self::Whole | Self::WithoutPayload => bounded(error, ERROR_BYTES),
            Self::Cut(bytes) => bounded(error, bytes.min(ERROR_BYTES)),
            Self::Coordinates => bounded(error, SMALLEST_ERROR_BYTES),
        }
    }

    /// The name of who failed.
    pub(super) fn name(self, name: &str) -> String {
        if self == Self::Coordinates { bounded(name, SMALLEST_NAME_BYTES) } else { name.to_owned() }
    }
}

/// What a header of the record takes in a letter.
fn header_bytes(name: &[u8], value: Option<&[u8]>) -> usize {
    // A name that is no text is written in base64.
    names::SOURCE_HEADER_B64.len() + name.len() * 4 / 3 + value.map_or(0, <[u8]>::len) + HEADER_FRAMING
}

/// The beginning of the text that takes at most so many bytes as a JSON string, marked where it is cut.
fn bounded(text: &str, most: usize) -> String {
    const MARK: &str = "…";
    let escaped = |character: char| match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    };
    let (mut bytes, mut end) = (0, 0);
    for (place, character) in text.char_indices() {
        bytes += escaped(character);
        if bytes > most {
            return format!("{}{MARK}", &text[..end]);
        }
        if bytes + MARK.len() <= most {
            end = place + character.len_utf8();
        }
    }
    text.to_owned()
}
