//! A decoding error in words: key, place, what was expected, and what to do.

use super::decode::{Error, Kind, nearest};
use super::schema::description;
use super::tree::Located;
use crate::model::Fault;
use crate::pipeline::options::DeliveryOptions;

/// Says what is wrong with a value and what would be right.
pub fn explain(error: &Error, file: &str) -> Fault {
    let path = error.path();
    let key = error.key();
    let at = Located { file, place: error.place.as_ref() };
    let about = description(&path).map(|text| format!("`{key}`: {text}"));
    let fault = match &error.kind {
        Kind::Unknown { known } => return unknown(&path, &key, known, &at),
        Kind::Missing => Fault::config(format!("`{key}` is missing ({at})")),
        Kind::Mismatch { expected, found } => {
            Fault::config(format!("`{key}` must be {expected}, found {found} ({at})"))
        }
        Kind::Choice { known, nearest } => {
            let fault = Fault::config(format!("`{key}` must be {} ({at})", listed(known, "or")));
            return match nearest {
                Some(nearest) => fault.hint(format!("did you mean `{nearest}`?")),
                None => fault,
            };
        }
        Kind::Shape => Fault::config(format!("`{key}` has a value of the wrong type ({at})")),
    };
    match about {
        Some(about) => fault.hint(about),
        None => fault,
    }
}

fn unknown(path: &[String], key: &str, known: &[&str], at: &Located<'_>) -> Fault {
    let written = path.last().map_or("", String::as_str);
    let of_a_sink = matches!(path, [sinks, _, _, _] if sinks == "sinks");
    let common = if of_a_sink { DeliveryOptions::KEYS } else { &[] };
    let known: Vec<&str> = known.iter().chain(common).copied().collect();
    let hint = match nearest(written, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("there are {}", listed(&known, "and")),
    };
    Fault::config(format!("`{key}` is not an option ({at})")).hint(hint)
}

/// Names in backticks: `a`, `b` and `c`.
pub fn listed<S: AsRef<str>>(names: &[S], last: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    match quoted.split_last() {
        None => "none".into(),
        Some((only, [])) => only.clone(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
    }
}
