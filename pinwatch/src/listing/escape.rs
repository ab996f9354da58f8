//! Text of other people for the terminal: nothing in it may move the cursor, end a line or hide.

/// A name for a table: control characters and bytes that are no text become `\n`, `\t`, `\xNN` or `\u{NNNN}`, a
/// backslash becomes two, so that the name can be had back exactly.
pub fn name(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\\' => out.push_str("\\\\"),
                c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
                c if c.is_control() || invisible(c) => out.push_str(&format!("\\u{{{:x}}}", c as u32)),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    // A space at the end would be lost among the padding.
    if out.ends_with(' ') {
        out.pop();
        out.push_str("\\x20");
    }
    out
}

/// A sentence for the terminal: as [`name`], but backslashes stay as they are.
pub fn sentence(text: &str) -> String {
    name(text.as_bytes()).replace("\\\\", "\\")
}

/// Characters that show nothing, or turn the direction of what follows.
fn invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{ad}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_through() {
        assert_eq!(name(b"/srv/a b"), "/srv/a b");
        assert_eq!(name(b"a\nb\tc\x1b[2J\x7f"), "a\\nb\\tc\\x1b[2J\\x7f");
        assert_eq!(name(b"\xff\xfeok\xc3"), "\\xff\\xfeok\\xc3");
        assert_eq!(name("\u{202e}\u{9b}\u{200b}é漢".as_bytes()), "\\u{202e}\\u{9b}\\u{200b}é漢");
        assert_eq!(name(b"\\n"), "\\\\n");
        assert_eq!(name(b"x "), "x\\x20");
    }
}
