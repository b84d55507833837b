//! Objects of JSON as columns: values, and the levels that say to which object they belong and what of it is absent (Dremel:
//! <https://github.com/apache/parquet-format#nested-encoding>).

use super::columns::{Column, Kind};
use serde_json::Value;

/// A column of values and its levels.
#[derive(Debug, PartialEq)]
pub(super) struct Leaf {
    pub values: Values,
    /// How much of the way to a value is there.
    pub definitions: Vec<i16>,
    /// Which list goes on; 0 begins another object.
    pub repetitions: Vec<i16>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Values {
    Text(Vec<String>),
    Int(Vec<i32>),
    Long(Vec<i64>),
    Flag(Vec<bool>),
}

pub(super) struct Shredder<'a> {
    columns: &'a [Column],
    leaves: Vec<Leaf>,
}

/// Where a value stands.
#[derive(Clone, Copy, Default)]
struct Levels {
    repetition: i16,
    definition: i16,
    /// How many lists it is in.
    lists: i16,
}

impl Levels {
    fn deeper(self, by: i16) -> Levels {
        Levels {
            definition: self.definition + by,
            ..self
        }
    }

    /// Of an element of a list here.
    fn element(self, number: usize) -> Levels {
        let lists = self.lists + 1;
        Levels {
            repetition: if number == 0 { self.repetition } else { lists },
            // The list, and an element of it.
            definition: self.definition + 2,
            lists,
        }
    }
}

impl<'a> Shredder<'a> {
    pub fn new(columns: &'a [Column]) -> Shredder<'a> {
        let mut leaves = Vec::new();
        for (_, kind) in columns {
            prepare(kind, &mut leaves);
        }
        Shredder { columns, leaves }
    }

    /// Adds an object. What it has beside the columns is left out.
    pub fn add(&mut self, object: &Value) {
        let mut at = 0;
        for (name, kind) in self.columns {
            self.put(kind, object.get(name), at, Levels::default());
            at += kind.leaves();
        }
    }

    pub fn leaves(self) -> Vec<Leaf> {
        self.leaves
    }

    fn put(&mut self, kind: &Kind, value: Option<&Value>, at: usize, levels: Levels) {
        match (kind, value) {
            (Kind::Group(columns), Some(Value::Object(object))) => {
                let mut at = at;
                for (name, kind) in *columns {
                    self.put(kind, object.get(*name), at, levels.deeper(1));
                    at += kind.leaves();
                }
            }
            (Kind::List(of), Some(Value::Array(elements))) => {
                for (number, element) in elements.iter().enumerate() {
                    self.put(of, Some(element), at, levels.element(number));
                }
                if elements.is_empty() {
                    self.absent(kind, at, levels.deeper(1));
                }
            }
            (Kind::Map, Some(Value::Object(object))) => {
                for (number, (key, value)) in object.iter().enumerate() {
                    let levels = levels.element(number);
                    let text = match value {
                        Value::String(text) => text.clone(),
                        other => other.to_string(),
                    };
                    self.push(at, levels.repetition, levels.definition, |values| {
                        values.text(key.clone());
                    });
                    self.push(at + 1, levels.repetition, levels.definition + 1, |values| {
                        values.text(text);
                    });
                }
                if object.is_empty() {
                    self.absent(kind, at, levels.deeper(1));
                }
            }
            (Kind::Text | Kind::Int | Kind::Long | Kind::Flag, Some(value))
                if self.leaves[at].values.takes(value) =>
            {
                self.push(at, levels.repetition, levels.definition + 1, |values| {
                    values.put(value);
                });
            }
            _ => self.absent(kind, at, levels),
        }
    }

    fn absent(&mut self, kind: &Kind, at: usize, levels: Levels) {
        for at in at..at + kind.leaves() {
            self.push(at, levels.repetition, levels.definition, |_| {});
        }
    }

    fn push(&mut self, at: usize, repetition: i16, definition: i16, put: impl FnOnce(&mut Values)) {
        let leaf = &mut self.leaves[at];
        leaf.repetitions.push(repetition);
        leaf.definitions.push(definition);
        put(&mut leaf.values);
    }
}

fn prepare(kind: &Kind, leaves: &mut Vec<Leaf>) {
    let mut leaf = |values| {
        leaves.push(Leaf {
            values,
            definitions: Vec::new(),
            repetitions: Vec::new(),
        });
    };
    match kind {
        Kind::Text => leaf(Values::Text(Vec::new())),
        Kind::Int => leaf(Values::Int(Vec::new())),
        Kind::Long => leaf(Values::Long(Vec::new())),
        Kind::Flag => leaf(Values::Flag(Vec::new())),
        Kind::Map => {
            leaf(Values::Text(Vec::new()));
            leaf(Values::Text(Vec::new()));
        }
        Kind::List(kind) => prepare(kind, leaves),
        Kind::Group(columns) => {
            for (_, kind) in *columns {
                prepare(kind, leaves);
            }
        }
    }
}

impl Values {
    /// Whether a value is of this type, and no larger than it.
    fn takes(&self, value: &Value) -> bool {
        match self {
            Values::Text(_) => value.is_string(),
            Values::Int(_) => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Values::Long(_) => value.as_i64().is_some(),
            Values::Flag(_) => value.is_boolean(),
        }
    }

    fn text(&mut self, text: String) {
        if let Values::Text(all) = self {
            all.push(text);
        }
    }

    /// What it takes.
    fn put(&mut self, value: &Value) {
        match self {
            Values::Text(all) => all.extend(value.as_str().map(str::to_owned)),
            Values::Int(all) => all.extend(value.as_i64().map(|n| n as i32)),
            Values::Long(all) => all.extend(value.as_i64()),
            Values::Flag(all) => all.extend(value.as_bool()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn levels_are_those_of_the_paper() {
        // A list of groups with a list in each, as in the example of Dremel.
        const INNER: Kind = Kind::List(&Kind::Text);
        const COLUMNS: &[Column] = &[
            ("id", Kind::Long),
            (
                "names",
                Kind::List(&Kind::Group(&[("url", Kind::Text), ("codes", INNER)])),
            ),
            ("more", Kind::Map),
        ];
        let mut shredder = Shredder::new(COLUMNS);
        shredder.add(&json!({
            "id": 1,
            "names": [{"url": "a", "codes": ["x", "y"]}, {"codes": []}, {"url": "b"}],
            "more": {"k": "v", "n": {"a": 1}},
        }));
        shredder.add(&json!({"id": "not a number", "names": [], "more": {}, "beside": 1}));
        // What is of another kind than its column is left out.
        shredder.add(&json!({"names": "a", "more": "b"}));
        let leaves = shredder.leaves();
        let of = |at: usize| {
            let leaf: &Leaf = &leaves[at];
            (leaf.definitions.as_slice(), leaf.repetitions.as_slice())
        };
        assert_eq!(leaves[0].values, Values::Long(vec![1]));
        assert_eq!(of(0), (&[1, 0, 0][..], &[0, 0, 0][..]));
        let texts = |texts: &[&str]| Values::Text(texts.iter().map(|t| (*t).to_owned()).collect());
        assert_eq!(leaves[1].values, texts(&["a", "b"]));
        assert_eq!(of(1), (&[4, 3, 4, 1, 0][..], &[0, 1, 1, 0, 0][..]));
        assert_eq!(leaves[2].values, texts(&["x", "y"]));
        assert_eq!(of(2), (&[6, 6, 4, 3, 1, 0][..], &[0, 2, 1, 1, 0, 0][..]));
        assert_eq!(leaves[3].values, texts(&["k", "n"]));
        assert_eq!(of(3), (&[2, 2, 1, 0][..], &[0, 1, 0, 0][..]));
        assert_eq!(leaves[4].values, texts(&["v", "{\"a\":1}"]));
        assert_eq!(of(4), (&[3, 3, 1, 0][..], &[0, 1, 0, 0][..]));
    }
}
