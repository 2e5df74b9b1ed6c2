//! Digests of definitions.
//!
//! Decides which two definitions count as alike: those with the same names and values, whatever their layout and comments and the
//! order of named fields. Leaves what is compared to the reader and the builder.

use std::ops::Range;

use super::model::Fingerprint;
use super::outline::{Field, Node, Shape};

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): the same on every machine and in every version.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    /// Adds a part. 0xff, which no UTF-8 text contains, ends it.
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&[0xff]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Of a list of texts, for definitions that come from code rather than a file.
pub(super) fn of_parts<'a>(parts: impl IntoIterator<Item = &'a str>) -> Fingerprint {
    let mut hash = Fnv::new();
    for part in parts {
        hash.add(part.as_bytes());
    }
    Fingerprint(hash.0)
}

/// Of a value in a text; of a struct, without the fields named.
pub(super) fn of_node(text: &str, node: &Node, without: &[&str]) -> Fingerprint {
    let mut hash = Fnv::new();
    add_node(text, node, without, &mut hash);
    Fingerprint(hash.0)
}

fn add_node(text: &str, node: &Node, without: &[&str], hash: &mut Fnv) {
    let slice = |span: &Range<usize>| text.get(span.clone()).unwrap_or("");
    match &node.shape {
        Shape::Scalar => hash.add(slice(&node.span).as_bytes()),
        Shape::List(items) => {
            hash.add(b"[");
            for item in items {
                add_node(text, item, &[], hash);
            }
            hash.add(b"]");
        }
        Shape::Map(entries) => {
            hash.add(b"{");
            for (key, value) in entries {
                add_node(text, key, &[], hash);
                add_node(text, value, &[], hash);
            }
            hash.add(b"}");
        }
        Shape::Struct { name, fields } => {
            hash.add(slice(name).as_bytes());
            hash.add(b"(");
            // Stable: values without a name keep their order.
            let mut fields: Vec<&Field> = fields.iter().collect();
            fields.sort_by_key(|f| slice(&f.name));
            for field in fields.into_iter().filter(|f| !without.contains(&slice(&f.name))) {
                hash.add(slice(&field.name).as_bytes());
                add_node(text, &field.value, &[], hash);
            }
            hash.add(b")");
        }
    }
}
