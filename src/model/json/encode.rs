//! Encoding that refuses values that could not be decoded: `serde_json` writes NaN as `null`, and nests deeper than it reads.

use std::cell::OnceCell;
use std::fmt::Display;

use serde::Serialize;
use serde::ser::{
    Error as _, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::MAX_NESTING;
use super::place::{Place, Step};

/// Why a value was not encoded.
pub(super) struct Failed {
    /// `None`: the value as a whole.
    pub(super) place: Option<String>,
    pub(super) error: serde_json::Error,
}

pub(super) fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::with_capacity(128);
    let failed = OnceCell::new();
    let place = Place::root(&failed);
    let encoded = Nested {
        value,
        place: &place,
    }
    .serialize(&mut serde_json::Serializer::new(&mut bytes));
    match encoded {
        Ok(()) => Ok(bytes),
        Err(error) => Err(Failed {
            place: failed.into_inner().filter(|place| !place.is_empty()),
            error,
        }),
    }
}

/// A value at a place.
struct Nested<'p, T: ?Sized> {
    value: &'p T,
    place: &'p Place<'p>,
}

impl<T: Serialize + ?Sized> Serialize for Nested<'_, T> {
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        let place = self.place;
        self.value
            .serialize(Encoder { inner, place })
            .inspect_err(|_| place.note())
    }
}

/// Passes everything on to another serializer, except the refused values.
struct Encoder<'p, S> {
    inner: S,
    place: &'p Place<'p>,
}

impl<'p, S: Serializer> Encoder<'p, S> {
    /// Enters `levels` arrays or objects.
    fn enter<C>(
        self,
        levels: usize,
        begin: impl FnOnce(S) -> Result<C, S::Error>,
    ) -> Result<Compound<'p, C>, S::Error> {
        self.check_nesting(levels)?;
        Ok(Compound {
            inner: begin(self.inner)?,
            place: self.place,
            levels,
            next: 0,
        })
    }

    fn check_nesting(&self, levels: usize) -> Result<(), S::Error> {
        if self.place.nesting + levels <= MAX_NESTING {
            return Ok(());
        }
        Err(S::Error::custom(format_args!(
            "arrays and objects are nested deeper than {MAX_NESTING}"
        )))
    }

    fn check_finite(is_finite: bool, number: impl Display) -> Result<(), S::Error> {
        if is_finite {
            return Ok(());
        }
        Err(S::Error::custom(format_args!(
            "JSON has no number for {number}"
        )))
    }
}

macro_rules! pass_on {
    ($($name:ident: $type:ty),* $(,)?) => {
        $(fn $name(self, value: $type) -> Result<S::Ok, S::Error> {
            self.inner.$name(value)
        })*
    };
}

impl<'p, S: Serializer> Serializer for Encoder<'p, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Compound<'p, S::SerializeSeq>;
    type SerializeTuple = Compound<'p, S::SerializeTuple>;
    type SerializeTupleStruct = Compound<'p, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Compound<'p, S::SerializeTupleVariant>;
    type SerializeMap = Compound<'p, S::SerializeMap>;
    type SerializeStruct = Compound<'p, S::SerializeStruct>;
    type SerializeStructVariant = Compound<'p, S::SerializeStructVariant>;

    pass_on! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_char: char,
        serialize_str: &str,
        serialize_unit_struct: &'static str,
    }

    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        Self::check_finite(value.is_finite(), value)?;
        self.inner.serialize_f32(value)
    }

    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        Self::check_finite(value.is_finite(), value)?;
        self.inner.serialize_f64(value)
    }

    /// As an array.
    fn serialize_bytes(self, value: &[u8]) -> Result<S::Ok, S::Error> {
        self.check_nesting(1)?;
        self.inner.serialize_bytes(value)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let Self { inner, place } = self;
        inner.serialize_some(&Nested { value, place })
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let Self { inner, place } = self;
        inner.serialize_newtype_struct(name, &Nested { value, place })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.check_nesting(1)?;
        let place = &self.place.below(Step::Variant(variant), 1);
        let value = &Nested { value, place };
        self.inner
            .serialize_newtype_variant(name, index, variant, value)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.enter(1, |inner| inner.serialize_seq(len))
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.enter(1, |inner| inner.serialize_tuple(len))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.enter(1, |inner| inner.serialize_tuple_struct(name, len))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.enter(2, |inner| {
            inner.serialize_tuple_variant(name, index, variant, len)
        })
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.enter(1, |inner| inner.serialize_map(len))
    }

    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        // With these names serde_json passes numbers and raw JSON to itself.
        let is_object = !name.starts_with("$serde_json::private::");
        self.enter(usize::from(is_object), |inner| {
            inner.serialize_struct(name, len)
        })
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.enter(2, |inner| {
            inner.serialize_struct_variant(name, index, variant, len)
        })
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// The inside of an array or object.
struct Compound<'p, C> {
    inner: C,
    place: &'p Place<'p>,
    levels: usize,
    /// The index of the next element.
    next: usize,
}

macro_rules! elements {
    ($($trait:ident, $element:ident);* $(;)?) => {
        $(impl<C: $trait> $trait for Compound<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                let place = &self.place.below(Step::Index(self.next), self.levels);
                self.next += 1;
                self.inner.$element(&Nested { value, place })
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        })*
    };
}

elements! {
    SerializeSeq, serialize_element;
    SerializeTuple, serialize_element;
    SerializeTupleStruct, serialize_field;
    SerializeTupleVariant, serialize_field;
}

macro_rules! fields {
    ($($trait:ident),*) => {
        $(impl<C: $trait> $trait for Compound<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), C::Error> {
                let place = &self.place.below(Step::Field(name), self.levels);
                self.inner.serialize_field(name, &Nested { value, place })
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), C::Error> {
                self.inner.skip_field(name)
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        })*
    };
}

fields!(SerializeStruct, SerializeStructVariant);

impl<C: SerializeMap> SerializeMap for Compound<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.inner.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        let place = &self.place.below(Step::Entry, self.levels);
        self.inner.serialize_value(&Nested { value, place })
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.inner.end()
    }
}
