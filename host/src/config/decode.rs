//! From the tree to the option structs, with errors that know key and place and never hold a value.
//!
//! The option's type decides how a scalar is read: `group: 2024` is a string because `group` wants one, and `${PORT}` is a
//! number where one is wanted. `serde_json::Value` in between could not keep that apart.

use std::fmt;

use saphyr::Scalar;
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};

use super::tree::{Form, Node, Place, Value};
use super::units::{Amount, Unit};

/// Why a value is not what its option wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is no such option; those that there are.
    Unknown {
        /// The names known at that place.
        known: &'static [&'static str],
    },
    /// The option has to be given.
    Missing,
    /// The wrong type of value, both in words.
    Mismatch {
        /// What the option wants.
        expected: String,
        /// What was written; never the value itself.
        found: &'static str,
    },
    /// None of the words that the option takes.
    Choice {
        /// The words.
        known: &'static [&'static str],
        /// The one that is nearest to what was written.
        nearest: Option<&'static str>,
    },
    /// The value fits none of several shapes.
    Shape,
}

/// Why a tree is not the wanted struct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What is wrong.
    pub kind: Kind,
    /// The keys down to it, innermost first.
    path: Vec<String>,
    /// Where the innermost key stands; `None` at the root.
    pub place: Option<Place>,
}

impl Error {
    fn new(kind: Kind) -> Self {
        Self { kind, path: Vec::new(), place: None }
    }

    fn within(mut self, segment: String, place: &Place) -> Self {
        self.path.push(segment);
        self.place.get_or_insert_with(|| place.clone());
        self
    }

    fn mismatch(expected: &dyn fmt::Display, found: &'static str) -> Self {
        Self::new(Kind::Mismatch { expected: in_words(&expected.to_string()), found })
    }

    /// The keys down to what is wrong, outermost first; an index is `[3]`.
    pub fn path(&self) -> Vec<String> {
        self.path.iter().rev().cloned().collect()
    }

    /// The keys as one writes them: `kafka.source_topics[1]`.
    pub fn key(&self) -> String {
        let mut key = String::new();
        for segment in self.path.iter().rev() {
            if !key.is_empty() && !segment.starts_with('[') {
                key.push('.');
            }
            key.push_str(segment);
        }
        key
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is wrong: {:?}", self.key(), self.kind)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    /// Text from elsewhere may quote the value, so it is left out: only the key and its place are said.
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::new(Kind::Shape)
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::mismatch(&expected, in_kind(unexpected))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match unexpected {
            Unexpected::Signed(_) | Unexpected::Unsigned(_) => "a number outside of that",
            other => in_kind(other),
        };
        Self::mismatch(&expected, found)
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(Kind::Unknown { known })
    }

    fn missing_field(field: &'static str) -> Self {
        Self { kind: Kind::Missing, path: vec![field.to_owned()], place: None }
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        Self::new(Kind::Choice { known, nearest: nearest(variant, known.iter().copied()) })
    }
}

/// The known name that `written` most likely means.
pub fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let close = |name: &&str| strsim::damerau_levenshtein(written, name);
    let best = known.into_iter().min_by_key(close)?;
    let longest = written.chars().count().max(best.chars().count());
    // A third of the name may be wrong, and of a short one a single letter.
    let near = close(&best) <= (longest / 3).max(1) || (written.len() > 3 && best.starts_with(written));
    near.then_some(best)
}

fn in_kind(unexpected: Unexpected<'_>) -> &'static str {
    match unexpected {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a number",
        Unexpected::Float(_) => "a number with a fraction",
        Unexpected::Unit | Unexpected::Option => "nothing",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a mapping",
        _ => "a string",
    }
}

/// Serde names Rust's types; a reader of YAML knows others.
fn in_words(expected: &str) -> String {
    match expected {
        "u64" | "usize" | "u128" => "a whole number, 0 or more".into(),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "i64" | "i32" => "a whole number".into(),
        "f64" | "f32" => "a number".into(),
        "a boolean" => "true or false".into(),
        "path string" => "a path".into(),
        "a sequence" => "a list".into(),
        other if other.starts_with("struct ") || other == "a map" => "a mapping".into(),
        other if other.starts_with("enum ") => "a string".into(),
        other => other.to_owned(),
    }
}

/// Reads one value as what its option wants.
#[derive(Clone, Copy)]
pub struct Decoder<'n> {
    node: &'n Node,
    /// In what the option counts where it is a number.
    unit: Option<Unit>,
}

enum Number {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

fn number(text: &str) -> Option<Number> {
    // Beyond i64 YAML's reader would fall back to an inexact float.
    if let Ok(value) = text.parse::<u64>() {
        return Some(Number::Unsigned(value));
    }
    match Scalar::parse_from_cow(text.into()) {
        Scalar::Integer(value) => Some(u64::try_from(value).map_or(Number::Signed(value), Number::Unsigned)),
        Scalar::FloatingPoint(value) => Some(Number::Float(value.0)),
        _ => None,
    }
}

impl<'n> Decoder<'n> {
    /// Reads the whole tree.
    pub fn new(node: &'n Node) -> Self {
        Self { node, unit: None }
    }

    fn number<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Scalar(text, Form::Plain | Form::Variable) => match number(text) {
                Some(Number::Unsigned(value)) => visitor.visit_u64(value),
                Some(Number::Signed(value)) => visitor.visit_i64(value),
                Some(Number::Float(value)) => visitor.visit_f64(value),
                None => self.amount(text, visitor),
            },
            Value::Scalar(text, Form::Quoted) => self.amount(text, visitor),
            _ => Err(self.no_number(&visitor)),
        }
    }

    /// A number with a unit, as a string.
    fn amount<V: Visitor<'n>>(self, text: &str, visitor: V) -> Result<V::Value, Error> {
        match self.unit.and_then(|unit| unit.read(text)) {
            Some(Amount::Whole(value)) => visitor.visit_u64(value),
            Some(Amount::Part(value)) => visitor.visit_f64(value),
            None => Err(self.no_number(&visitor)),
        }
    }

    fn no_number(self, expected: &dyn de::Expected) -> Error {
        let also = self.unit.map(|unit| format!(", or {}", unit.examples())).unwrap_or_default();
        let expected = in_words(&expected.to_string()) + &also;
        Error::new(Kind::Mismatch { expected, found: self.node.value.kind() })
    }

    fn text<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Scalar(text, _) => visitor.visit_str(text),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn mismatch(self, expected: &dyn de::Expected) -> Error {
        Error::mismatch(&expected, self.node.value.kind())
    }
}

macro_rules! forward {
    ($to:ident: $($method:ident)*) => {$(
        fn $method<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
            self.$to(visitor)
        }
    )*};
}

impl<'n> de::Deserializer<'n> for Decoder<'n> {
    type Error = Error;

    /// What takes anything gets what YAML would say, and a string where a variable stood.
    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
            Value::Scalar(text, Form::Quoted | Form::Variable) => visitor.visit_str(text),
            Value::Scalar(text, Form::Plain) => match Scalar::parse_from_cow(text.as_str().into()) {
                Scalar::Null => visitor.visit_unit(),
                Scalar::Boolean(value) => visitor.visit_bool(value),
                Scalar::String(text) => visitor.visit_str(&text),
                Scalar::Integer(_) | Scalar::FloatingPoint(_) => self.number(visitor),
            },
        }
    }

    forward!(number: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64);
    forward!(text: deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_identifier);

    fn deserialize_bool<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Scalar(text, Form::Plain | Form::Variable) => match Scalar::parse_from_cow(text.as_str().into()) {
                Scalar::Boolean(value) => visitor.visit_bool(value),
                _ => Err(self.mismatch(&visitor)),
            },
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value.kind() {
            "nothing" => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value.kind() {
            "nothing" => visitor.visit_unit(),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'n>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'n>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            // A variable of the environment holds one text.
            Value::Scalar(text, Form::Plain) if matches!(self.node.place, Place::Variable(_)) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                visitor.visit_seq(de::value::SeqDeserializer::new(items))
            }
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'n>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'n>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    /// A key with nothing behind it, as when all its options are commented out, is a mapping without entries.
    fn deserialize_map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Null => visitor.visit_map(Entries { entries: [].iter(), next: None }),
            Value::Map(entries) => visitor.visit_map(Entries { entries: entries.iter(), next: None }),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    /// Options choose among words; no option has cases with contents.
    fn deserialize_enum<V: Visitor<'n>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Scalar(text, _) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

struct Items<'n> {
    items: std::iter::Enumerate<std::slice::Iter<'n, Node>>,
}

impl<'n> SeqAccess<'n> for Items<'n> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((index, item)) = self.items.next() else { return Ok(None) };
        seed.deserialize(Decoder::new(item)).map(Some).map_err(|error| error.within(format!("[{index}]"), &item.place))
    }
}

struct Entries<'n> {
    entries: std::slice::Iter<'n, (String, Node)>,
    next: Option<&'n (String, Node)>,
}

impl<'n> MapAccess<'n> for Entries<'n> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'n>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        self.next = Some(entry);
        let (name, node) = entry;
        seed.deserialize(name.as_str().into_deserializer())
            .map(Some)
            .map_err(|error: Error| error.within(name.clone(), &node.place))
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((name, node)) = self.next.take() else { return Err(Error::new(Kind::Shape)) };
        seed.deserialize(Decoder { node, unit: Unit::of(name) })
            .map_err(|error| error.within(name.clone(), &node.place))
    }
}

#[cfg(test)]
mod tests;
