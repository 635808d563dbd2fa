//! The parts of a line: blanks, quoted texts, and a command with its input.

/// The byte of the line that is wrong, and why.
pub(crate) struct Wrong(pub(crate) usize, pub(crate) String);

/// The text at `start`, and where it ends: inside quotes, or up to a character that ends it or the blanks at the line's end.
pub(crate) fn quoted(
    line: &str,
    start: usize,
    ends: impl Fn(char) -> bool,
) -> Result<(&str, usize), Wrong> {
    let text = &line[start..];
    if let Some(quote) = text.chars().next().filter(|c| "\"'".contains(*c)) {
        let inside = &text[1..];
        let length = inside.find(quote);
        let length = length.ok_or_else(|| Wrong(start, format!("no second {quote}")))?;
        return Ok((&inside[..length], start + length + 2));
    }
    let text = &text[..text.find(ends).unwrap_or(text.len())];
    let text = text.trim_end_matches(is_blank);
    Ok((text, start + text.len()))
}

/// The command and its standard input: an unescaped `%` is a new line, and the first one ends the command.
pub(crate) fn split(text: &str) -> (String, Option<String>) {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('%') => part.push('%'),
                next => part.extend([c].into_iter().chain(next)),
            },
            '%' => parts.push(std::mem::take(&mut part)),
            _ => part.push(c),
        }
    }
    if !parts.is_empty() && !part.is_empty() {
        part.push('\n');
    }
    parts.push(part);
    let command = parts.remove(0);
    let input = (!parts.is_empty()).then(|| parts.join("\n"));
    (command, input)
}

pub(crate) fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// The first byte from `at` on that is no blank.
pub(crate) fn skip_blanks(line: &str, at: usize) -> usize {
    line.len() - line[at..].trim_start_matches(is_blank).len()
}
