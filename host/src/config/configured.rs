//! One sink's mapping: the options that are its own, and among them those that every sink has.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, de};

use crate::pipeline::options::DeliveryOptions;

/// A sink's own options, and those that every sink has. `flatten` would do, if it went together with refusing unknown keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Configured<T> {
    /// The sink's own.
    pub options: T,
    /// Every sink's.
    pub delivery: DeliveryOptions,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Configured<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Whole(PhantomData))
    }
}

struct Whole<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Whole<T> {
    type Value = Configured<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let mut delivery = DeliveryOptions::default();
        let own = Own { map, delivery: &mut delivery };
        let options = T::deserialize(MapAccessDeserializer::new(own))?;
        Ok(Configured { options, delivery })
    }
}

/// The mapping without the keys that every sink has, which are read in passing.
struct Own<'d, A> {
    map: A,
    delivery: &'d mut DeliveryOptions,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Own<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let mut seed = Some(seed);
        // Every sink's keys, and the first that is not.
        loop {
            match self.map.next_key_seed(Key(&mut seed))? {
                None => return Ok(None),
                Some(Either::Own(key)) => return Ok(Some(key)),
                Some(Either::Common(0)) => self.delivery.on_error = self.map.next_value()?,
                Some(Either::Common(_)) => self.delivery.topics = self.map.next_value()?,
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

enum Either<K> {
    Own(K),
    Common(usize),
}

/// Reads a key: as one of those that every sink has, or as the sink's own wants it.
struct Key<'s, K>(&'s mut Option<K>);

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<'_, K> {
    type Value = Either<K::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let key = String::deserialize(deserializer)?;
        if let Some(common) = DeliveryOptions::KEYS.iter().position(|common| *common == key) {
            return Ok(Either::Common(common));
        }
        let seed = self.0.take().ok_or_else(|| de::Error::custom("a key was read twice"))?;
        seed.deserialize(key.into_deserializer()).map(Either::Own)
    }
}

impl<T: JsonSchema> JsonSchema for Configured<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        format!("Configured<{}>", T::schema_id()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut own = T::json_schema(generator);
        let mut common = DeliveryOptions::json_schema(generator);
        if let (Some(own), Some(common)) = (properties(&mut own), properties(&mut common)) {
            own.append(common);
        }
        own
    }
}

fn properties(schema: &mut Schema) -> Option<&mut serde_json::Map<String, serde_json::Value>> {
    schema.get_mut("properties")?.as_object_mut()
}
