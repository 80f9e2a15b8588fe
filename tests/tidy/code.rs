//! Rust source without its comments and literals, and the paths in it. As much of a parser as the rules need: no macro
//! is expanded, and a path that a macro puts together is not seen.

/// One file's code.
pub struct Code {
    /// The text with comments and the insides of literals blanked, line breaks kept.
    text: String,
    tokens: Vec<(usize, Token)>,
    /// The line at which the file's own tests begin; they come last.
    tests: usize,
}

/// Words that a path with a leading `::` may stand behind without being part of it.
const KEYWORDS: &[&str] = &["as", "dyn", "for", "if", "impl", "in", "match", "mut", "return", "use"];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Into,
    Mark(char),
}

impl Code {
    /// Reads a file's text.
    pub fn parse(source: &str) -> Self {
        let text = blank(source);
        let tokens = tokens(&text);
        let flat: Vec<&str> = text.lines().map(str::trim).collect();
        let tests = flat
            .windows(2)
            .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'))
            .map_or(usize::MAX, |line| line + 1);
        Self { text, tokens, tests }
    }

    /// Whether the line belongs to the file's own tests.
    pub fn is_test(&self, line: usize) -> bool {
        line >= self.tests
    }

    /// The lines, numbered from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Macro calls by their last name, with their lines.
    pub fn macros(&self) -> Vec<(usize, String)> {
        let calls = self.tokens.windows(2).filter_map(|pair| match pair {
            [(line, Token::Word(name)), (_, Token::Mark('!'))] => Some((*line, name.clone())),
            _ => None,
        });
        calls.collect()
    }

    /// Every path of two words or more, groups taken apart, with its line. `file` is the file's place below `src`, from
    /// which paths that begin with `super` are written out.
    pub fn paths(&self, file: &str) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            let next = |ahead: usize| self.tokens.get(at + ahead).map(|(_, token)| token);
            let word = matches!(next(0), Some(Token::Word(word)) if !KEYWORDS.contains(&word.as_str()));
            // `use tokio;` names a crate with one word.
            let used = matches!(next(0), Some(Token::Word(word)) if word == "use");
            at = if used && matches!(next(1), Some(Token::Word(_))) {
                self.path(at + 1, "", &mut found)
            } else if word && next(1) == Some(&Token::Into) {
                self.path(at, "", &mut found)
            } else {
                at + 1
            };
        }
        let place: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
        let depth = place.len();
        for (_, path) in &mut found {
            let climbs = path.split("::").take_while(|word| *word == "super").count();
            if climbs > 0 && climbs <= depth {
                let rest = path.split("::").skip(climbs);
                let whole = std::iter::once("crate").chain(place[..depth - climbs].iter().copied()).chain(rest);
                *path = whole.collect::<Vec<_>>().join("::");
            }
        }
        found
    }

    /// Reads the path or group at `at`, which continues `before`; returns where it ends.
    fn path(&self, mut at: usize, before: &str, found: &mut Vec<(usize, String)>) -> usize {
        let mut path = before.to_owned();
        loop {
            let Some((line, token)) = self.tokens.get(at) else { return at };
            match token {
                Token::Word(word) => {
                    if !path.is_empty() {
                        path.push_str("::");
                    }
                    path.push_str(word);
                    at += 1;
                    if !matches!(self.tokens.get(at), Some((_, Token::Into))) {
                        found.push((*line, path));
                        return at;
                    }
                    at += 1;
                }
                Token::Mark('{') => {
                    at += 1;
                    while let Some((_, token)) = self.tokens.get(at) {
                        at = match token {
                            Token::Mark('}') => return at + 1,
                            Token::Word(word) if word == "as" => at + 2,
                            Token::Word(_) | Token::Mark('{') => self.path(at, &path, found),
                            _ => at + 1,
                        };
                    }
                    return at;
                }
                // `path::*`, `path::<T>`: as far as it goes.
                _ => {
                    found.push((*line, path));
                    return at + 1;
                }
            }
        }
    }
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn tokens(text: &str) -> Vec<(usize, Token)> {
    let mut tokens = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let (token, length) = if is_word(first) {
                let length = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
                (Token::Word(rest[..length].to_owned()), length)
            } else if rest.starts_with("::") {
                (Token::Into, 2)
            } else {
                (Token::Mark(first), first.len_utf8())
            };
            tokens.push((index + 1, token));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// The text with everything in comments and literals made blank.
fn blank(source: &str) -> String {
    let letters: Vec<char> = source.chars().collect();
    let mut text = String::with_capacity(source.len());
    let mut at = 0;
    while at < letters.len() {
        let end = match (letters[at], letters.get(at + 1)) {
            ('/', Some('/')) => until(&letters, at, |at| letters[at] == '\n'),
            ('/', Some('*')) => comment(&letters, at),
            ('"', _) => string(&letters, at),
            ('r', Some('"' | '#')) if at == 0 || !is_word(letters[at - 1]) || letters[at - 1] == 'b' => {
                raw(&letters, at)
            }
            // A letter in quotes; a lifetime has no second quote so close.
            ('\'', Some('\\')) => until(&letters, at + 3, |at| letters[at] == '\'') + 1,
            ('\'', Some(_)) if letters.get(at + 2) == Some(&'\'') => at + 3,
            _ => at,
        };
        if end == at {
            text.push(letters[at]);
            at += 1;
        } else {
            let end = end.min(letters.len());
            text.extend(letters[at..end].iter().map(|letter| if *letter == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    text
}

fn until(letters: &[char], from: usize, stop: impl Fn(usize) -> bool) -> usize {
    (from..letters.len()).find(|at| stop(*at)).unwrap_or(letters.len())
}

fn comment(letters: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at + 1 < letters.len() {
        match (letters[at], letters[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    letters.len()
}

fn string(letters: &[char], from: usize) -> usize {
    let mut at = from + 1;
    while at < letters.len() {
        match letters[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    letters.len()
}

/// The end of a raw string, or `from` when none begins there.
fn raw(letters: &[char], from: usize) -> usize {
    let opening = until(letters, from + 1, |at| letters[at] != '#');
    if letters.get(opening) != Some(&'"') {
        return from;
    }
    let hashes = opening - from - 1;
    let closes = |at: usize| {
        letters[at] == '"'
            && letters.len() > at + hashes
            && letters[at + 1..=at + hashes].iter().all(|mark| *mark == '#')
    };
    until(letters, opening + 1, closes) + 1 + hashes
}
