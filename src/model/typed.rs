//! Converts an app's own types to documents and back.
//!
//! `serde_json` writes values for which JSON has no number (NaN, infinities) as `null`, which a schema may
//! accept. Here they are refused, with their place.

use std::fmt::{self, Display};

use serde::{
    Serialize, Serializer,
    de::DeserializeOwned,
    ser::{
        SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct, SerializeTupleVariant,
    },
};

use super::{Blame, Code, Document, Fault};

impl Document {
    /// `value` as JSON.
    ///
    /// Errors: `invalid_json` for a value that JSON cannot express, such as NaN or a map whose keys are not
    /// texts, with its place as a JSON pointer; `too_large`.
    pub fn of(value: &(impl Serialize + ?Sized), what: &str) -> Result<Document, Fault> {
        let refused = |why: String| {
            Fault::new(Code::InvalidJson, format!("{what} cannot be written as JSON: {why}"))
                .hint("give it another value there, or leave it out (`Option`, `#[serde(skip)]`)")
        };
        value.serialize(Finite).map_err(|error| refused(error.to_string()))?;
        let text = serde_json::to_string(value).map_err(|error| refused(error.to_string()))?;
        Document::passing(text, what)
    }

    /// Reads the document as a type of the app.
    ///
    /// Errors: `usage` if the document has another shape; the message says where.
    pub fn read<T: DeserializeOwned>(&self, what: &str) -> Result<T, Fault> {
        serde_json::from_str(self.text()).map_err(|error| {
            let text = format!("{what} is not a `{}`: {error}", std::any::type_name::<T>());
            Fault::new(Code::Usage, text)
                .blame(Blame::Caller)
                .hint("the operation's output schema says what comes; `serde_json::Value` takes anything")
        })
    }
}

/// Walks through a value and refuses NaN and infinite numbers.
struct Finite;

/// Why a value cannot be written, and its path: the innermost name first.
#[derive(Debug)]
struct Refused {
    why: String,
    path: Vec<String>,
}

impl Refused {
    fn within(mut self, name: impl Display) -> Refused {
        self.path.push(name.to_string().replace('~', "~0").replace('/', "~1"));
        self
    }
}

impl Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}, at ", self.why)?;
        match self.path.is_empty() {
            true => formatter.write_str("its top"),
            false => self.path.iter().rev().try_for_each(|name| write!(formatter, "/{name}")),
        }
    }
}

impl std::error::Error for Refused {}

impl serde::ser::Error for Refused {
    fn custom<T: Display>(message: T) -> Refused {
        Refused { why: message.to_string(), path: Vec::new() }
    }
}

fn number(number: f64) -> Result<(), Refused> {
    match number.is_finite() {
        true => Ok(()),
        false => Err(Refused { why: format!("it has {number}, which is no number of JSON"), path: Vec::new() }),
    }
}

/// Elements of a list; counts them, for their places.
struct Elements(usize);

impl Elements {
    fn element(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Refused> {
        let at = self.0;
        self.0 += 1;
        value.serialize(Finite).map_err(|refused| refused.within(at))
    }
}

macro_rules! fine {
    ($($name:ident: $type:ty),*) => {
        $(fn $name(self, _: $type) -> Result<(), Refused> { Ok(()) })*
    };
}

impl Serializer for Finite {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Elements;
    type SerializeTuple = Elements;
    type SerializeTupleStruct = Elements;
    type SerializeTupleVariant = Elements;
    type SerializeMap = Entries;
    type SerializeStruct = Entries;
    type SerializeStructVariant = Entries;

    fine!(serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128);
    fine!(serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128);
    fine!(serialize_char: char, serialize_str: &str, serialize_bytes: &[u8], serialize_unit_struct: &'static str);

    fn serialize_f32(self, value: f32) -> Result<(), Refused> {
        number(value.into())
    }
    fn serialize_f64(self, value: f64) -> Result<(), Refused> {
        number(value)
    }
    fn serialize_none(self) -> Result<(), Refused> {
        Ok(())
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refused> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<(), Refused> {
        Ok(())
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Refused> {
        Ok(())
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Refused> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        value.serialize(self).map_err(|refused| refused.within(variant))
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Elements, Refused> {
        Ok(Elements(0))
    }
    fn serialize_tuple(self, _: usize) -> Result<Elements, Refused> {
        Ok(Elements(0))
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Elements, Refused> {
        Ok(Elements(0))
    }
    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Elements, Refused> {
        Ok(Elements(0))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Entries, Refused> {
        Ok(Entries)
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Entries, Refused> {
        Ok(Entries)
    }
    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Entries, Refused> {
        Ok(Entries)
    }
}

macro_rules! elements {
    ($($trait:ident $method:ident),*) => {
        $(impl $trait for Elements {
            type Ok = ();
            type Error = Refused;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
                self.element(value)
            }
            fn end(self) -> Result<(), Refused> {
                Ok(())
            }
        })*
    };
}

elements!(SerializeSeq serialize_element, SerializeTuple serialize_element, SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field);

/// Entries of an object.
struct Entries;

impl SerializeMap for Entries {
    type Ok = ();
    type Error = Refused;
    // `serde_json` checks that a key is a text.
    fn serialize_key<T: Serialize + ?Sized>(&mut self, _: &T) -> Result<(), Refused> {
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        value.serialize(Finite)
    }
    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(&mut self, key: &K, value: &V) -> Result<(), Refused> {
        value.serialize(Finite).map_err(|refused| {
            let key = serde_json::to_string(key).unwrap_or_default();
            refused.within(key.trim_matches('"'))
        })
    }
    fn end(self) -> Result<(), Refused> {
        Ok(())
    }
}

macro_rules! fields {
    ($($trait:ident),*) => {
        $(impl $trait for Entries {
            type Ok = ();
            type Error = Refused;
            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Refused> {
                value.serialize(Finite).map_err(|refused| refused.within(key))
            }
            fn end(self) -> Result<(), Refused> {
                Ok(())
            }
        })*
    };
}

fields!(SerializeStruct, SerializeStructVariant);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Scores {
        name: Option<String>,
        of: BTreeMap<String, Vec<f64>>,
        last: Last,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Last {
        None,
        One(f32),
        Pair { at: (u8, f64) },
    }

    fn scores(number: f64, last: Last) -> Scores {
        Scores { name: None, of: BTreeMap::from([("a/b".to_owned(), vec![1.5, number])]), last }
    }

    #[test]
    fn types_become_documents_and_come_back() {
        for last in [Last::None, Last::One(0.25), Last::Pair { at: (1, 2.5) }] {
            let scores = scores(0.1, last);
            let document = Document::of(&scores, "input").unwrap();
            assert_eq!(document.value(), &serde_json::to_value(&scores).unwrap());
            assert_eq!(document.read::<Scores>("output").unwrap(), scores);
        }
        assert_eq!(Document::of(&json!({"a": [1, null]}), "input").unwrap().text(), r#"{"a":[1,null]}"#);
    }

    #[test]
    fn what_json_has_no_word_for_is_refused_with_its_place_and_never_null() {
        let deep = |last| Document::of(&scores(1.0, last), "input").unwrap_err();
        for (fault, place) in [
            (Document::of(&scores(f64::NAN, Last::None), "input").unwrap_err(), "NaN, which is no number of JSON, at /of/a~1b/1"),
            (deep(Last::One(f32::INFINITY)), "inf, which is no number of JSON, at /last/One"),
            (deep(Last::Pair { at: (1, f64::NEG_INFINITY) }), "-inf, which is no number of JSON, at /last/at/1"),
            (Document::of(&BTreeMap::from([((1, 2), 3)]), "input").unwrap_err(), "key must be a string"),
            (Document::of(&u128::MAX, "input").unwrap_err(), "an integer past 64 bits"),
        ] {
            assert_eq!((fault.code, fault.blame), (Code::InvalidJson, Blame::Caller), "{fault:?}");
            assert!(fault.message.contains(place) && fault.hint.is_some(), "{fault:?}");
        }
    }

    #[test]
    fn what_is_of_another_shape_than_the_app_reads_is_said_with_the_place() {
        let fault = Document::of(&json!({"name": 1}), "x").unwrap().read::<Scores>("output of `a/b`").unwrap_err();
        assert_eq!((fault.code, fault.blame), (Code::Usage, Blame::Caller));
        assert!(
            fault.message.starts_with("output of `a/b` is not a `") && fault.message.contains("expected a string at line 1"),
            "{fault:?}"
        );
    }
}
