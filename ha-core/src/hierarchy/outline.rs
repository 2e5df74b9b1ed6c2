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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) span: Range<usize>,
    pub(super) fault: Fault,
    /// The bracket that surrounds it.
    pub(super) inside: Option<Range<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("one value is expected in a file, and nothing after it")]
    Trailing,
    #[error("this {0} is never closed")]
    Unclosed(&'static str),
    #[error("values nest too deeply: at most {DEPTH} levels are expected")]
    TooDeep,
    #[error("a value is expected here")]
    NoValue,
    #[error("a comma or `{0}` is expected here")]
    NoComma(char),
    #[error("a colon and a value are expected here")]
    NoColon,
    #[error("a field name and a colon are expected here")]
    NoFieldName,
}

pub(super) fn outline(text: &str) -> Result<Node, Wrong> {
    let mut reader = Reader { text, bytes: text.as_bytes(), at: 0, open: Vec::new() };
    reader.skip_attributes()?;
    let node = reader.value()?;
    reader.blank()?;
    if reader.at < text.len() { Err(reader.wrong(Fault::Trailing)) } else { Ok(node) }
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// The brackets that are open here.
    open: Vec<usize>,
}

impl Reader<'_> {
    fn wrong(&self, fault: Fault) -> Wrong {
        let length = self.text.get(self.at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        let inside = self.open.last().map(|open| *open..*open + 1);
        Wrong { span: self.at..self.at + length, fault, inside }
    }

    fn unclosed(at: usize, what: &'static str) -> Wrong {
        Wrong { span: at..at + 1, fault: Fault::Unclosed(what), inside: None }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn starts(&self, with: &str) -> bool {
        self.bytes[self.at..].starts_with(with.as_bytes())
    }

    fn peek_char(&self) -> Option<char> {
        self.text.get(self.at..).and_then(|rest| rest.chars().next())
    }

    /// Skips white space and comments.
    fn blank(&mut self) -> Result<(), Wrong> {
        loop {
            match self.peek_char() {
                Some(c) if is_blank(c) => self.at += c.len_utf8(),
                Some('/') if self.starts("//") => {
                    while self.peek().is_some_and(|b| b != b'\n') {
                        self.at += 1;
                    }
                }
                Some('/') if self.starts("/*") => self.block_comment()?,
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
        Err(Self::unclosed(begin, "comment"))
    }

    /// `#![enable(…)]`, as other RON files begin.
    fn skip_attributes(&mut self) -> Result<(), Wrong> {
        self.blank()?;
        while self.starts("#") {
            while self.peek().is_some_and(|b| b != b']') {
                self.at += 1;
            }
            self.at = (self.at + 1).min(self.bytes.len());
            self.blank()?;
        }
        Ok(())
    }

    fn value(&mut self) -> Result<Node, Wrong> {
        self.blank()?;
        if self.open.len() > DEPTH {
            return Err(self.wrong(Fault::TooDeep));
        }
        let begin = self.at;
        let shape = match self.peek() {
            Some(b'[') => Shape::List(self.items(']', Self::value)?),
            Some(b'{') => Shape::Map(self.items('}', Self::entry)?),
            Some(b'(') => Shape::Struct { name: begin..begin, fields: self.fields()? },
            Some(_) if self.literal()? => Shape::Scalar,
            _ => return self.word(begin),
        };
        Ok(Node { span: begin..self.at, shape })
    }

    /// A number, a name, or a name with `(…)` behind it.
    fn word(&mut self, begin: usize) -> Result<Node, Wrong> {
        while let Some(c) = self.peek_char().filter(|c| is_word(*c)) {
            self.at += c.len_utf8();
        }
        if self.at == begin {
            return Err(self.wrong(Fault::NoValue));
        }
        let name = self.name(begin..self.at);
        let end = self.at;
        self.blank()?;
        if self.peek() == Some(b'(') {
            let fields = self.fields()?;
            return Ok(Node { span: begin..self.at, shape: Shape::Struct { name, fields } });
        }
        self.at = end;
        Ok(Node { span: begin..end, shape: Shape::Scalar })
    }

    /// The span without the `r#` of a raw name.
    fn name(&self, span: Range<usize>) -> Range<usize> {
        let raw = self.text.get(span.clone()).is_some_and(|name| name.starts_with("r#"));
        if raw { span.start + 2..span.end } else { span }
    }

    fn items<T>(&mut self, close: char, mut item: impl FnMut(&mut Self) -> Result<T, Wrong>) -> Result<Vec<T>, Wrong> {
        let begin = self.at;
        self.open.push(begin);
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.blank()?;
            match self.peek_char() {
                None => return Err(Self::unclosed(begin, "bracket")),
                Some(c) if c == close => break,
                Some(_) => items.push(item(self)?),
            }
            self.blank()?;
            match self.peek_char() {
                Some(',') => self.at += 1,
                Some(c) if c == close => {}
                None => return Err(Self::unclosed(begin, "bracket")),
                Some(_) => return Err(self.wrong(Fault::NoComma(close))),
            }
        }
        self.at += 1;
        self.open.pop();
        Ok(items)
    }

    fn entry(&mut self) -> Result<(Node, Node), Wrong> {
        let key = self.value()?;
        self.blank()?;
        if self.peek() != Some(b':') {
            return Err(self.wrong(Fault::NoColon));
        }
        self.at += 1;
        Ok((key, self.value()?))
    }

    /// Either all have names or none has.
    fn fields(&mut self) -> Result<Vec<Field>, Wrong> {
        let mut named = false;
        self.items(')', |reader| {
            let field = reader.field()?;
            if named && field.name.is_empty() {
                reader.at = field.value.span.start;
                return Err(reader.wrong(Fault::NoFieldName));
            }
            named = !field.name.is_empty();
            Ok(field)
        })
    }

    fn field(&mut self) -> Result<Field, Wrong> {
        let first = self.value()?;
        let end = self.at;
        self.blank()?;
        if self.peek() == Some(b':') && first.shape == Shape::Scalar {
            self.at += 1;
            return Ok(Field { name: self.name(first.span), value: self.value()? });
        }
        self.at = end;
        Ok(Field { name: first.span.start..first.span.start, value: first })
    }

    /// A string or a character, also of bytes, if there is one here: `"…"`, `b"…"`, `r#"…"#`, `br#"…"#`, `'…'`, `b'…'`.
    fn literal(&mut self) -> Result<bool, Wrong> {
        let begin = self.at;
        let after_b = begin + usize::from(self.peek() == Some(b'b'));
        match self.bytes.get(after_b) {
            Some(b'"') => self.quoted(after_b, b'"', "string"),
            Some(b'\'') => self.quoted(after_b, b'\'', "character"),
            Some(b'r') => {
                let hashes = self.bytes[after_b + 1..].iter().take_while(|b| **b == b'#').count();
                if self.bytes.get(after_b + 1 + hashes) != Some(&b'"') {
                    return Ok(false);
                }
                let close = format!("\"{}", "#".repeat(hashes));
                let body = after_b + hashes + 2;
                let length = self.text.get(body..).and_then(|rest| rest.find(&close));
                self.at = body + length.ok_or_else(|| Self::unclosed(begin, "string"))? + close.len();
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn quoted(&mut self, open: usize, quote: u8, what: &'static str) -> Result<bool, Wrong> {
        self.at = open + 1;
        while let Some(b) = self.peek() {
            self.at += if b == b'\\' { 2 } else { 1 };
            if b == quote {
                return Ok(true);
            }
        }
        Err(Self::unclosed(open, what))
    }
}

/// White space as `ron` knows it.
fn is_blank(c: char) -> bool {
    matches!(c, '\t'..='\r' | ' ' | '\u{85}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}')
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-' | '#' | '=') || (!c.is_ascii() && !is_blank(c))
}
