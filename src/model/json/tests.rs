use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::*;
use crate::model::limits::MAX_PAYLOAD_BYTES;

fn back<T: Serialize + DeserializeOwned>(value: &T) -> T {
    decode("payload", &encode("payload", value).unwrap()).unwrap()
}

/// The error of encoding, which is of the right kind.
fn refusal<T: Serialize + ?Sized>(value: &T) -> String {
    let error = encode("result", value).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Payload);
    error.to_string()
}

/// The error of decoding, which is of the right kind.
fn failure<T: DeserializeOwned>(json: &str) -> String {
    let Err(error) = decode::<T>("payload", json.as_bytes()) else {
        panic!("{json} was decoded");
    };
    assert_eq!(error.kind(), ErrorKind::Payload);
    error.to_string()
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    item: String,
    price: f64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    lines: Vec<Line>,
    discount: Option<f32>,
    shape: Shape,
    notes: BTreeMap<String, f64>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f64),
    Box { width: f64, height: f64 },
    Both(f64, f64),
}

fn order() -> Order {
    Order {
        lines: vec![
            Line {
                item: "a kettle".into(),
                price: 19.99 * 1.19,
            },
            Line {
                item: "a lid".into(),
                price: 0.9999999999999999,
            },
        ],
        discount: Some(0.1),
        shape: Shape::Box {
            width: -0.0,
            height: f64::MIN_POSITIVE,
        },
        notes: [("hunter2".to_owned(), 1.0)].into(),
    }
}

#[test]
fn every_number_comes_back_as_it_was() {
    let mut random = fastrand::Rng::with_seed(12);
    for cents in 0..20_000 {
        let gross = f64::from(cents) * 1.19;
        assert_eq!(back(&gross).to_bits(), gross.to_bits(), "{gross}");
        let any = f64::from_bits(random.u64(..));
        if any.is_finite() {
            assert_eq!(back(&any).to_bits(), any.to_bits(), "{any}");
        }
        let single = f32::from_bits(random.u32(..));
        if single.is_finite() {
            assert_eq!(back(&single).to_bits(), single.to_bits(), "{single}");
        }
        let value = serde_json::json!({ "n": any, "m": random.u64(..), "l": random.i64(..) });
        assert_eq!(back(&value), value);
    }
    assert_eq!(back(&0.9999999999999999_f64), 0.9999999999999999);
    assert_eq!(back(&(u128::MAX, i128::MIN)), (u128::MAX, i128::MIN));
    assert_eq!(back(&order()), order());
    assert_eq!(back(&(Shape::Point, Shape::Both(1.5, 2.5))).0, Shape::Point);
}

#[test]
fn a_number_that_json_does_not_have_is_refused_at_its_place() {
    type Spoil = fn(&mut Order);
    let table: [(Spoil, &str); 7] = [
        (
            |order| order.lines[1].price = f64::NAN,
            "`lines[1].price`: JSON has no number for NaN",
        ),
        (
            |order| order.discount = Some(f32::INFINITY),
            "`discount`: JSON has no number for inf",
        ),
        (
            |order| order.shape = Shape::Circle(f64::NEG_INFINITY),
            "`shape.Circle`: JSON has no number for -inf",
        ),
        (
            |order| {
                order.shape = Shape::Box {
                    width: f64::NAN,
                    height: 1.0,
                }
            },
            "`shape.width`",
        ),
        (
            |order| order.shape = Shape::Both(1.0, f64::NAN),
            "`shape[1]`",
        ),
        (
            |order| {
                order.notes.insert("hunter2".into(), f64::NAN);
            },
            "`notes[..]`",
        ),
        (
            |order| order.lines[0].price = f64::INFINITY,
            "`lines[0].price`",
        ),
    ];
    for (spoil, said) in table {
        let mut order = order();
        spoil(&mut order);
        let text = refusal(&order);
        assert!(text.contains(said), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(refusal(&f64::NAN).starts_with("cannot encode the result: "));
    assert!(refusal(&Some(f32::NAN)).contains("NaN"));
    assert!(refusal(&HashMap::from([((1, 2), 3)])).contains("key must be a string"));
}

fn nested(levels: usize) -> serde_json::Value {
    (0..levels).fold(serde_json::Value::Null, |inner, level| match level % 2 {
        0 => serde_json::Value::Array(vec![inner]),
        _ => serde_json::json!({ "inner": inner }),
    })
}

/// Bytes are an array of numbers.
#[test]
fn bytes_are_nested_like_any_array() {
    /// Bytes inside so many arrays.
    struct Bytes(usize);
    impl Serialize for Bytes {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0 {
                0 => serializer.serialize_bytes(b"ab"),
                arrays => [Self(arrays - 1)].serialize(serializer),
            }
        }
    }
    let reads = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).is_ok();
    assert!(reads(&encode("payload", &Bytes(MAX_NESTING - 1)).unwrap()));
    assert!(refusal(&Bytes(MAX_NESTING)).contains("deeper than 127"));
    assert!(!reads(&serde_json::to_vec(&Bytes(MAX_NESTING)).unwrap()));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Node(Box<Tree>),
    Pair(Box<Tree>, u8),
    Named { inner: Box<Tree> },
}

#[test]
fn what_is_nested_too_deep_to_be_read_is_refused_and_nothing_else() {
    for levels in [1, 126, 127, 128, 129, 1_000] {
        let encoded = encode("payload", &nested(levels));
        assert_eq!(encoded.is_ok(), levels <= MAX_NESTING, "{levels}");
        if let Ok(json) = encoded {
            assert_eq!(
                decode::<serde_json::Value>("payload", &json).unwrap(),
                nested(levels)
            );
        }
    }
    let grow: [fn(Tree) -> Tree; 3] = [
        |tree| Tree::Node(Box::new(tree)),
        |tree| Tree::Pair(Box::new(tree), 1),
        |tree| Tree::Named {
            inner: Box::new(tree),
        },
    ];
    for grow in grow {
        let mut tree = Tree::Leaf;
        // A refusal is right exactly where serde_json would fail.
        while let Ok(json) = encode("payload", &tree) {
            assert_eq!(decode::<Tree>("payload", &json).unwrap(), tree);
            tree = grow(tree);
        }
        let json = serde_json::to_vec(&tree).unwrap();
        assert!(serde_json::from_slice::<Tree>(&json).is_err());
    }
}

#[test]
fn a_decoding_error_names_the_place_and_what_is_wrong_there() {
    let order = |lines: &str, rest: &str| format!(r#"{{"lines":{lines},"discount":null{rest}}}"#);
    let rest = r#","shape":"Point","notes":{}"#;
    let table = [
        (
            order(r#"[{"item":"hunter2","price":1},{"item":"hunter2"}]"#, rest),
            "at `lines[1]`: missing field `price` (line 1",
        ),
        (
            order(
                r#"[{"item":"x","price":"hunter2, expected hunter2"}]"#,
                rest,
            ),
            "at `lines[0].price`: invalid type, expected f64 (line 1",
        ),
        (order("[]", ""), ": missing field `shape` (line 1"),
        (
            order("[]", r#","shape":"hunter2","notes":{}"#),
            "at `shape`: unknown variant, expected one of `Point`, `Circle`, `Box`, `Both`",
        ),
        (
            order("[]", r#","shape":{"Circle":"hunter2"},"notes":{}"#),
            "at `shape.Circle`: invalid type, expected f64",
        ),
        (
            order(
                "[]",
                r#","shape":{"Box":{"width":1,"height":[]}},"notes":{}"#,
            ),
            "at `shape.Box.height`: invalid type, expected f64",
        ),
        (
            order("[]", r#","shape":{"Both":[1,true]},"notes":{}"#),
            "at `shape.Both[1]`: invalid type, expected f64",
        ),
        (
            order("[]", r#","shape":"Point","notes":{"hunter2":"hunter2"}"#),
            "at `notes[..]`: invalid type, expected f64",
        ),
        (
            order("[]", r#","shape":"Point","notes":{},"lines":[]"#),
            ": duplicate field `lines`",
        ),
        (order("[", rest), "no valid JSON"),
        (
            r#"{"lines":["#.to_owned(),
            "the JSON ends too early, at line 1 column 10",
        ),
    ];
    for (json, said) in table {
        let text = failure::<Order>(&json);
        assert!(text.contains(said), "{json}: {text}");
        assert!(text.contains("cannot decode the payload as"), "{text}");
        assert!(text.contains("column"), "{text}");
        assert!(!text.contains("hunter2"), "{json}: {text}");
    }
}

#[test]
fn a_type_s_own_error_is_not_quoted() {
    #[derive(Debug)]
    struct Picky;
    impl<'de> Deserialize<'de> for Picky {
        fn deserialize<D: serde::Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
            let text = String::deserialize(json)?;
            Err(serde::de::Error::custom(text))
        }
    }
    for own in [
        "hunter2 is not wanted",
        "invalid value of a key, expected hunter2",
        "invalid types, expected hunter2",
        "unknown field, expected hunter2",
    ] {
        let text = failure::<(u8, Picky)>(&format!(r#"[1,"{own}"]"#));
        assert!(text.contains("at `[1]`: the type refuses it"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn an_error_without_a_position_shows_none() {
    #[derive(Debug, Deserialize)]
    #[serde(try_from = "u8")]
    struct Never;
    impl TryFrom<u8> for Never {
        type Error = String;
        fn try_from(_: u8) -> Result<Self, String> {
            Err("hunter2".into())
        }
    }
    let text = failure::<Never>("1");
    assert!(text.ends_with(": the type refuses it"), "{text}");
}

#[test]
fn what_is_encoded_and_not_decoded_is_found_by_verifying() {
    #[derive(Serialize, Deserialize)]
    struct OneWay {
        #[serde(skip_serializing)]
        #[expect(dead_code, reason = "what matters is that it is missing in the JSON")]
        secret: String,
    }
    #[derive(Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        inner: Wide,
    }
    #[derive(Serialize, Deserialize)]
    struct Wide {
        wide: u128,
    }
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Wide(u128),
        Text(String),
    }
    fn check<T: Serialize + DeserializeOwned>(value: &T) -> Option<String> {
        let json = encode("payload", value).unwrap();
        verified::<T>(json).err().map(|error| error.to_string())
    }
    let secret = String::new();
    let text = check(&OneWay { secret }).unwrap();
    assert!(text.contains("missing field `secret`"), "{text}");
    let inner = Wide { wide: 1 };
    assert_eq!(check(&inner), None);
    assert!(
        check(&Flat { inner }).is_some(),
        "serde reads no u128 there"
    );
    assert!(check(&Either::Wide(u128::MAX)).is_some());
    assert_eq!(check(&Either::Text("x".into())), None);
}

#[test]
fn a_payload_over_the_limit_is_refused() {
    let fits = "x".repeat(MAX_PAYLOAD_BYTES - 2);
    assert_eq!(encode("payload", &fits).unwrap().len(), MAX_PAYLOAD_BYTES);
    let text = refusal(&"x".repeat(MAX_PAYLOAD_BYTES - 1));
    assert!(text.contains("more than 1048576"), "{text}");
}

#[test]
fn json_nested_without_end_is_an_error_not_a_stack_overflow() {
    let text = failure::<serde_json::Value>(&"[".repeat(500_000));
    assert!(text.contains("nested too deep"), "{text}");
}
