//! Explains why a type could not be decoded from JSON: the place and what is wrong there, without a value of the JSON.
//!
//! Used only after decoding has failed: it decodes once more, slowly, and notes every step down.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use serde_json::error::Category;

use super::place::{Place, Step};

/// The second half of an error text, for an error of decoding `bytes` as a `T`.
pub(super) fn explain<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    match error.classify() {
        Category::Data => {}
        Category::Eof => {
            return format!(": the JSON ends too early, at line {line} column {column}");
        }
        Category::Syntax | Category::Io => {
            return format!(": no valid JSON, or nested too deep, at line {line} column {column}");
        }
    }
    let failed = OnceCell::new();
    let place = Place::root(&failed);
    let again = T::deserialize(Tracked {
        inner: &mut serde_json::Deserializer::from_slice(bytes),
        place: &place,
        names: &[],
    });
    // A type may read the same text differently the second time.
    let text = again.err().as_ref().unwrap_or(error).to_string();
    let wrong = without_values(&text);
    let place = failed.get().filter(|place| !place.is_empty());
    let place = place.map_or(String::new(), |place| format!(" at `{place}`"));
    // An error of the type's own, once all of the JSON is read, has no line.
    let position = match line {
        0 => String::new(),
        _ => format!(" (line {line} column {column})"),
    };
    format!("{place}: {wrong}{position}")
}

/// What serde says is wrong, without the values that it quotes: they are the payload's. The text after "expected" comes from
/// the type.
fn without_values(text: &str) -> String {
    let text = text
        .rsplit_once(" at line ")
        .map_or(text, |(message, _)| message);
    for name in ["missing field", "duplicate field"] {
        if let Some(field) = text
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(" `"))
            .and_then(|rest| rest.strip_suffix('`'))
            && is_identifier(field)
        {
            return text.to_owned();
        }
    }
    let expected = || {
        text.rsplit_once(", expected ")
            .map(|(_, expected)| expected)
    };
    for (what, before_value) in [
        ("invalid type", ": "),
        ("invalid value", ": "),
        ("invalid length", " "),
        ("unknown variant", " `"),
        ("unknown field", " `"),
    ] {
        let rest = text.strip_prefix(what);
        if rest.is_some_and(|rest| rest.starts_with(before_value)) {
            return match expected() {
                Some(expected) => format!("{what}, expected {expected}"),
                None => what.to_owned(),
            };
        }
    }
    "the type refuses it".to_owned()
}

fn is_identifier(name: &str) -> bool {
    name.chars()
        .all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

/// A serde deserializer, visitor or seed at a place. It passes everything on, and notes the place of an error.
struct Tracked<'p, X> {
    inner: X,
    place: &'p Place<'p>,
    /// The fields of the struct, or the variants of the enum, that is read here; empty for a map.
    names: &'static [&'static str],
}

impl<'p, X> Tracked<'p, X> {
    fn new(inner: X, place: &'p Place<'p>) -> Self {
        Self {
            inner,
            place,
            names: &[],
        }
    }

    fn named(inner: X, place: &'p Place<'p>, names: &'static [&'static str]) -> Self {
        Self {
            inner,
            place,
            names,
        }
    }
}

/// The type's own spelling of a name, if the name is among `names`.
fn known(names: &'static [&'static str], name: &str) -> Option<&'static str> {
    names.iter().copied().find(|known| *known == name)
}

macro_rules! pass_on {
    ($($name:ident),* $(,)?) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            let place = self.place;
            self.inner
                .$name(Tracked::new(visitor, place))
                .inspect_err(|_| place.note())
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Tracked<'_, D> {
    type Error = D::Error;

    pass_on! {
        deserialize_any,
        deserialize_bool,
        deserialize_i8,
        deserialize_i16,
        deserialize_i32,
        deserialize_i64,
        deserialize_i128,
        deserialize_u8,
        deserialize_u16,
        deserialize_u32,
        deserialize_u64,
        deserialize_u128,
        deserialize_f32,
        deserialize_f64,
        deserialize_char,
        deserialize_str,
        deserialize_string,
        deserialize_bytes,
        deserialize_byte_buf,
        deserialize_option,
        deserialize_unit,
        deserialize_seq,
        deserialize_map,
        deserialize_identifier,
        deserialize_ignored_any,
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let place = self.place;
        self.inner
            .deserialize_unit_struct(name, Tracked::new(visitor, place))
            .inspect_err(|_| place.note())
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let place = self.place;
        self.inner
            .deserialize_newtype_struct(name, Tracked::new(visitor, place))
            .inspect_err(|_| place.note())
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let place = self.place;
        self.inner
            .deserialize_tuple(len, Tracked::new(visitor, place))
            .inspect_err(|_| place.note())
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let place = self.place;
        self.inner
            .deserialize_tuple_struct(name, len, Tracked::new(visitor, place))
            .inspect_err(|_| place.note())
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let place = self.place;
        self.inner
            .deserialize_struct(name, fields, Tracked::named(visitor, place, fields))
            .inspect_err(|_| place.note())
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let place = self.place;
        self.inner
            .deserialize_enum(name, variants, Tracked::named(visitor, place, variants))
            .inspect_err(|_| place.note())
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($name:ident: $type:ty),* $(,)?) => {
        $(fn $name<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$name(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Tracked<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool: bool,
        visit_i8: i8,
        visit_i16: i16,
        visit_i32: i32,
        visit_i64: i64,
        visit_i128: i128,
        visit_u8: u8,
        visit_u16: u16,
        visit_u32: u32,
        visit_u64: u64,
        visit_u128: u128,
        visit_f32: f32,
        visit_f64: f64,
        visit_char: char,
        visit_str: &str,
        visit_borrowed_str: &'de str,
        visit_string: String,
        visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>,
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Tracked::new(value, self.place))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.inner
            .visit_newtype_struct(Tracked::new(value, self.place))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Elements {
            inner: elements,
            place: self.place,
            next: 0,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Entries {
            inner: entries,
            place: self.place,
            names: self.names,
            step: Step::Entry,
        })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.inner
            .visit_enum(Tracked::named(variant, self.place, self.names))
    }
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Tracked<'_, T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<T::Value, D::Error> {
        let place = self.place;
        self.inner
            .deserialize(Tracked::new(value, place))
            .inspect_err(|_| place.note())
    }
}

struct Elements<'p, A> {
    inner: A,
    place: &'p Place<'p>,
    next: usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        let place = self.place.below(Step::Index(self.next), 1);
        self.next += 1;
        self.inner.next_element_seed(Tracked::new(seed, &place))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct Entries<'p, A> {
    inner: A,
    place: &'p Place<'p>,
    names: &'static [&'static str],
    /// The step to the value of the last key.
    step: Step,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        self.step = Step::Entry;
        if self.names.is_empty() {
            return self.inner.next_key_seed(seed);
        }
        let name = PhantomData::<Cow<'de, str>>;
        let Some(name) = self.inner.next_key_seed(name)? else {
            return Ok(None);
        };
        if let Some(known) = known(self.names, &name) {
            self.step = Step::Field(known);
        }
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let place = self.place.below(self.step, 1);
        self.inner.next_value_seed(Tracked::new(seed, &place))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 'p, A: EnumAccess<'de>> EnumAccess<'de> for Tracked<'p, A> {
    type Error = A::Error;
    type Variant = Content<'p, A::Variant>;

    fn variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Self::Variant), A::Error> {
        let name = PhantomData::<Cow<'de, str>>;
        let (name, inner) = self.inner.variant_seed(name)?;
        let step = known(self.names, &name).map_or(Step::Entry, Step::Variant);
        let place = self.place;
        seed.deserialize(name.into_deserializer())
            .map(|value| (value, Content { inner, place, step }))
    }
}

/// The content of a variant.
struct Content<'p, A> {
    inner: A,
    place: &'p Place<'p>,
    step: Step,
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Content<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        let place = self.place.below(self.step, 1);
        self.inner.newtype_variant_seed(Tracked::new(seed, &place))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let place = self.place.below(self.step, 1);
        self.inner
            .tuple_variant(len, Tracked::new(visitor, &place))
            .inspect_err(|_| place.note())
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let place = self.place.below(self.step, 1);
        self.inner
            .struct_variant(fields, Tracked::named(visitor, &place, fields))
            .inspect_err(|_| place.note())
    }
}
