//! Whatever is written: no panic, and every problem at a place of the text.

use proptest::prelude::*;

use super::*;

/// Texts that are nearly right.
fn mutated() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "(", ")", "[", "]", "\"", ",", ":", "{", "}", "//", "/*", "r#\"", "'", "\\", "ä", "5",
    ]);
    (prop::collection::vec((0..GOOD.len(), pieces, any::<bool>()), 1..6)).prop_map(|edits| {
        let mut text = GOOD.to_owned();
        for (at, piece, replace) in edits {
            let mut at = at.min(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let end = text[at..].chars().next().filter(|_| replace).map_or(at, |c| at + c.len_utf8());
            text.replace_range(at..end, piece);
        }
        text
    })
}

/// Whether every problem of a text is at a place of it, and can be shown.
fn all_in_place(text: &str, diagnostics: &Diagnostics) -> Result<(), TestCaseError> {
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in diagnostics.problems() {
        for (line, column) in
            [(problem.line, problem.column)].into_iter().chain(problem.related.as_ref().map(|r| (r.line, r.column)))
        {
            prop_assert!(line >= 1 && line <= lines.len(), "{problem:?}");
            prop_assert!(column >= 1 && column <= lines[line - 1].chars().count() + 1, "{problem:?}");
        }
    }
    prop_assert_eq!(diagnostics.to_string().is_empty(), diagnostics.is_empty());
    Ok(())
}

/// Any RON value, written in any way.
fn ron_value() -> impl Strategy<Value = String> {
    let blank = || prop::sample::select(vec!["", " ", "\n", "\t", "/* ) */", "// \"\n", "\u{2028}"]);
    let leaf = prop::sample::select(vec![
        "5",
        "-1.5e3",
        "0x1F",
        "1_000u32",
        "true",
        "Name",
        "r#name",
        "'a'",
        "'\\''",
        "'\"'",
        "\"\"",
        "\"a\\\"b)\"",
        "\"ä\\\\\"",
        "r\"\\\"",
        "r#\"a\"b\"#",
        "b\"a\\\"\"",
        "br#\"x\"#",
        "b'x'",
        "()",
        "\"/*\"",
        "inf",
        "NaN",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 32, 4, move |inner| {
        let items = prop::collection::vec((blank(), inner.clone(), blank()), 0..4);
        let name = prop::sample::select(vec!["", "Name", "name_2", "r#name", "Ä"]);
        (items, prop::sample::select(vec![0, 1, 2, 3]), name, blank(), any::<bool>()).prop_map(
            |(items, kind, name, gap, comma)| {
                let field = |(i, (a, value, b)): (usize, &(&str, String, &str))| match kind {
                    0 | 1 => format!("{a}{value}{b}"),
                    2 => format!("{a}field_{i}{b}:{a}{value}{b}"),
                    _ => format!("{a}\"key {i}\"{b}:{a}{value}{b}"),
                };
                let body = items.iter().enumerate().map(field).collect::<Vec<_>>().join(",");
                let comma = if comma && !items.is_empty() { "," } else { "" };
                match kind {
                    0 => format!("[{gap}{body}{comma}]"),
                    1 | 2 => format!("{name}({gap}{body}{comma})"),
                    _ => format!("{{{gap}{body}{comma}}}"),
                }
            },
        )
    })
}

/// A text with its blanks exchanged for others, outside of strings.
fn laid_out_anew(text: &str, blanks: &[&str]) -> String {
    let mut anew = String::new();
    let mut in_string = false;
    for (i, line) in text.lines().filter(|l| !l.trim_start().starts_with("//")).enumerate() {
        for (j, c) in line.chars().enumerate() {
            in_string ^= c == '"';
            if in_string || !matches!(c, ' ' | ',' | '(' | ')' | '[' | ']') {
                anew.push(c);
            } else {
                let blank = blanks[(i * 7 + j) % blanks.len()];
                anew.push_str(if c == ' ' { "" } else { blank });
                anew.push(c);
                anew.push_str(blank);
            }
        }
        anew.push('\n');
    }
    anew
}

proptest! {
    #[test]
    fn nothing_that_can_be_written_makes_the_reader_panic(
        text in prop_oneof![
            any::<String>(), "[()\\[\\]{}:,\"'a-z0-9#/*\\\\ \n]{0,60}", mutated(), ron_value(),
        ],
    ) {
        let reading = read(&text);
        all_in_place(&text, &reading.diagnostics)?;
        prop_assert!(!reading.loaded.is_empty() || reading.diagnostics.has_errors() || text.contains('['));
    }

    #[test]
    fn no_bytes_make_the_reader_of_files_panic(bytes in any::<Vec<u8>>()) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("x.ron"), bytes).unwrap();
        let reading = read_directory(directory.path(), &Toys);
        prop_assert!(reading.diagnostics.has_errors());
    }

    #[test]
    fn everything_that_is_ron_has_its_places(text in ron_value()) {
        let source = Source::new("any.ron", &text);
        let (read, diagnostics) = read_value(&source, |value| Some(value.text().to_owned()));
        // Fields without a name may not be among those with one, and so on: what `ron` itself refuses is no matter here.
        if options_accept(&text) {
            let only_twice = diagnostics.problems().iter().all(|p| p.message.ends_with("is here twice"));
            prop_assert!(only_twice, "{text:?}: {diagnostics}");
            prop_assert_eq!(read.as_deref(), Some(text.as_str()));
        }
    }

    #[test]
    fn layout_does_not_change_a_fingerprint(
        blanks in prop::collection::vec(prop::sample::select(vec!["", " ", "\n", "/* , */", "// )\n"]), 1..9),
    ) {
        let text = laid_out_anew(GOOD, &blanks);
        let anew = read(&text);
        prop_assert_eq!(anew.diagnostics.to_string(), "");
        prop_assert_eq!(&anew.loaded[0].hierarchy, &read(GOOD).loaded[0].hierarchy);
    }
}

fn options_accept(text: &str) -> bool {
    crate::hierarchy::value::options().from_str::<serde::de::IgnoredAny>(text).is_ok()
}
