//! Where things stand in a RON text: a tree of places, without meaning.
//!
//! Decides only where each value begins and ends. Leaves the syntax and every value to the `ron` crate, which has no places for
//! what is found wrong after parsing.

use std::ops::Range;

/// How deep values may nest.
const DEPTH: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) span: Range<usize>,
    pub(super) shape: Shape,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Scalar,
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    /// `Name(…)` or `(…)`: named fields, or positional values with an empty name each.
    Struct {
        name: Range<usize>,
        fields: Vec<Field>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: Range<usize>,
    pub(super) value: Node,
}

/// What is wrong, and where.
pub(super) type Wrong = (Range<usize>, &'static str);

pub(super) fn outline(text: &str) -> Result<Node, Wrong> {
    let mut reader = Reader { text, bytes: text.as_bytes(), at: 0 };
    reader.skip_attributes()?;
    let node = reader.value(0)?;
    reader.blank()?;
    if reader.at < text.len() {
        Err(reader.wrong("one value is expected in a file, and nothing after it"))
    } else {
        Ok(node)
    }
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn wrong(&self, what: &'static str) -> Wrong {
        let mut end = (self.at + 1).min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        (self.at.min(end)..end, what)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn starts(&self, with: &str) -> bool {
        self.bytes[self.at..].starts_with(with.as_bytes())
    }

    /// Skips white space and comments.
    fn blank(&mut self) -> Result<(), Wrong> {
        loop {
            match self.peek() {
                Some(b) if b.is_ascii_whitespace() => self.at += 1,
                _ if self.starts("//") => {
                    while self.peek().is_some_and(|b| b != b'\n') {
                        self.at += 1;
                    }
                }
                _ if self.starts("/*") => self.block_comment()?,
                // Other white space of Unicode.
                Some(b) if b >= 0x80 => match self.text[self.at..].chars().next() {
                    Some(c) if c.is_whitespace() => self.at += c.len_utf8(),
                    _ => return Ok(()),
                },
                _ => return Ok(()),
            }
        }
    }

    fn block_comment(&mut self) -> Result<(), Wrong> {
        let begin = self.at;
        let mut depth = 0;
        while self.at < self.bytes.len() {
            if self.starts("/*") {
                depth += 1;
                self.at += 2;
            } else if self.starts("*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return Ok(());
                }
            } else {
                self.at += 1;
            }
        }
        Err((begin..begin + 2, "this comment is never closed"))
    }

    /// `#![enable(…)]`, as other RON files begin.
    fn skip_attributes(&mut self) -> Result<(), Wrong> {
        self.blank()?;
        while self.starts("#!") {
            while self.peek().is_some_and(|b| b != b']') {
                self.at += 1;
            }
            self.at = (self.at + 1).min(self.bytes.len());
            self.blank()?;
        }
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<Node, Wrong> {
        self.blank()?;
        if depth > DEPTH {
            return Err(self.wrong("values nest too deeply: at most 64 levels"));
        }
        let begin = self.at;
        let shape = match self.peek() {
            None => return Err(self.wrong("a value is expected, and the file ends")),
            Some(b'[') => Shape::List(self.items(b']', depth, Self::value)?),
            Some(b'{') => Shape::Map(self.items(b'}', depth, Self::entry)?),
            Some(b'(') => Shape::Struct { name: begin..begin, fields: self.items(b')', depth, Self::field)? },
            Some(b'"') => self.string()?,
            Some(b'\'') => self.character()?,
            Some(_) => {
                if self.raw_string()? {
                    Shape::Scalar
                } else {
                    return self.word(begin, depth);
                }
            }
        };
        Ok(Node { span: begin..self.at, shape })
    }

    /// A number, a name, or a name with `(…)` behind it.
    fn word(&mut self, begin: usize, depth: usize) -> Result<Node, Wrong> {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'+' | b'-' | b'#') || b >= 0x80;
        while self.peek().is_some_and(is_word) {
            self.at += 1;
        }
        if self.at == begin {
            return Err(self.wrong("a value is expected"));
        }
        let name = begin..self.at;
        // A string with a prefix, such as b"…".
        if self.peek() == Some(b'"') && self.at - begin == 1 {
            let shape = self.string()?;
            return Ok(Node { span: begin..self.at, shape });
        }
        let end = self.at;
        self.blank()?;
        if self.peek() == Some(b'(') {
            let fields = self.items(b')', depth, Self::field)?;
            return Ok(Node { span: begin..self.at, shape: Shape::Struct { name, fields } });
        }
        self.at = end;
        Ok(Node { span: name, shape: Shape::Scalar })
    }

    fn items<T>(
        &mut self,
        close: u8,
        depth: usize,
        mut item: impl FnMut(&mut Self, usize) -> Result<T, Wrong>,
    ) -> Result<Vec<T>, Wrong> {
        let open = self.at;
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.blank()?;
            match self.peek() {
                None => return Err((open..open + 1, "this bracket is never closed")),
                Some(b) if b == close => {
                    self.at += 1;
                    return Ok(items);
                }
                Some(_) => items.push(item(self, depth + 1)?),
            }
            self.blank()?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b) if b == close => {}
                None => return Err((open..open + 1, "this bracket is never closed")),
                Some(_) => return Err(self.wrong("a comma or the closing bracket is expected")),
            }
        }
    }

    fn entry(&mut self, depth: usize) -> Result<(Node, Node), Wrong> {
        let key = self.value(depth)?;
        self.blank()?;
        if self.peek() != Some(b':') {
            return Err(self.wrong("a colon and a value are expected"));
        }
        self.at += 1;
        Ok((key, self.value(depth)?))
    }

    fn field(&mut self, depth: usize) -> Result<Field, Wrong> {
        let first = self.value(depth)?;
        let end = self.at;
        self.blank()?;
        if self.peek() == Some(b':') && first.shape == Shape::Scalar {
            self.at += 1;
            return Ok(Field { name: first.span, value: self.value(depth)? });
        }
        self.at = end;
        Ok(Field { name: first.span.start..first.span.start, value: first })
    }

    fn string(&mut self) -> Result<Shape, Wrong> {
        self.quoted(b'"', "this string is never closed")
    }

    fn character(&mut self) -> Result<Shape, Wrong> {
        self.quoted(b'\'', "this character is never closed")
    }

    fn quoted(&mut self, quote: u8, unclosed: &'static str) -> Result<Shape, Wrong> {
        let open = self.at;
        self.at += 1;
        while let Some(b) = self.peek() {
            self.at += if b == b'\\' { 2 } else { 1 };
            if b == quote {
                return Ok(Shape::Scalar);
            }
        }
        self.at = self.bytes.len();
        Err((open..open + 1, unclosed))
    }

    /// `r"…"`, `r#"…"#`, and so on, also behind a `b`.
    fn raw_string(&mut self) -> Result<bool, Wrong> {
        let begin = self.at;
        let mut at = begin;
        if self.bytes.get(at) == Some(&b'b') {
            at += 1;
        }
        if self.bytes.get(at) != Some(&b'r') {
            return Ok(false);
        }
        at += 1;
        let hashes = self.bytes[at..].iter().take_while(|b| **b == b'#').count();
        if self.bytes.get(at + hashes) != Some(&b'"') {
            return Ok(false);
        }
        let close = format!("\"{}", "#".repeat(hashes));
        let body = at + hashes + 1;
        match self.text.get(body..).and_then(|rest| rest.find(&close)) {
            Some(length) => {
                self.at = body + length + close.len();
                Ok(true)
            }
            None => Err((begin..begin + 1, "this string is never closed")),
        }
    }
}
